"""Packings change no completion, and take the rows that have ended out of the work."""

import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.packing import ForcedLengths, draw_lengths, row_steps
from pkpo_jax import packing, sampling, sharding
from pkpo_jax.models import architecture_of, gemma
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies import language_model
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.settings import MeshSettings
from pkpo_jax.types import Prompts
from tests.gemma_cases import SMALL, random_params
from tests.sampling_cases import NoMemory

STOP_ID, LENGTH, PROMPT_LENGTH = 1, 24, 7


def _model(family):
  """Returns a small model; Gemmas' local layers see fewer tokens than are drawn."""
  if family == 'gemma2':
    return Transformer(gemma.Gemma(SMALL))  # A window of 5.
  model = Transformer(architecture_of(f'{family}_micro', None))
  if family == 'gemma3':
    model.windows = (6, None)
  return model


@functools.cache
def _case(family):
  model = _model(family)
  return model, random_params(model)


@functools.cache
def _program(family, num_packings, shape, is_forced, stop_ids=(STOP_ID,), devices=None):
  """Returns fn(lengths) -> tokens, masks and log-probabilities; and the text of the program."""
  model, params = _case(family)
  tokens = jax.random.randint(jax.random.key(1), (shape[0], PROMPT_LENGTH), 2, model.vocab_size)
  mask = jnp.arange(PROMPT_LENGTH) >= jnp.arange(shape[0])[:, None] % PROMPT_LENGTH
  keys = jax.random.split(jax.random.key(2), shape)
  num_shards, place = 1, lambda arrays: arrays
  if devices is not None:
    mesh = sharding.make_mesh(
      MeshSettings(**dict(zip(sharding.AXES, devices, strict=True)), gather_for_sampling=False)
    )
    num_shards = sharding.num_prompt_shards(mesh)
    place = lambda arrays: jax.device_put(arrays, sharding.over_prompts(mesh))

  def draw(params, tokens, mask, keys, lengths):
    return sampling.sample(
      *(ForcedLengths(model, lengths) if is_forced else model, params, tokens, mask, keys),
      max_new_tokens=LENGTH,
      stop_ids=stop_ids,
      num_packings=num_packings,
      num_shards=num_shards,
    )

  batch = place((tokens, mask, keys))
  with_lengths = lambda lengths: (params, *batch, place(jnp.asarray(lengths, jnp.int32)))
  compiled = jax.jit(draw).lower(*with_lengths(np.zeros(shape))).compile()
  return lambda lengths: jax.device_get(compiled(*with_lengths(lengths))), compiled.as_text()


def _sample(family, num_packings, lengths, **options):
  fn, _ = _program(family, num_packings, lengths.shape, True, **options)
  return fn(lengths)


def _collectives(text):
  return re.findall(r'= (\S+) ((?:all|collective|reduce)-(?!window)\w+(?:-\w+)*)\(', text)


def _assert_same(found, expected):
  for a, b in zip(found[:2], expected[:2], strict=True):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_allclose(found[2], expected[2], atol=5e-6)


SPREADS = {
  'log-normal': draw_lengths((8, 4), LENGTH, 4),
  'wide': draw_lengths((8, 4), LENGTH, 8, seed=1),
  # All completions of one prompt go on alone, in the groups of the others.
  'one prompt': np.where(np.arange(8)[:, None] == 5, LENGTH, 3) * np.ones((8, 4), int),
  'all at once': np.full((8, 4), 6),
  'none': np.full((8, 4), LENGTH + 5),
}


@pytest.mark.parametrize('spread', SPREADS)
@pytest.mark.parametrize('family', ['gemma2', 'gemma3', 'llama'])
def test_completions_are_those_of_the_loop_of_all_rows(family, spread):
  lengths = SPREADS[spread]
  expected = _sample(family, 0, lengths)
  np.testing.assert_array_equal(expected[1].sum(-1), np.minimum(lengths, LENGTH))
  for num_packings in (1, 2):
    _assert_same(_sample(family, num_packings, lengths), expected)


@pytest.mark.parametrize('stop_ids', [(1, 3, 11), (31,), (99,)])
def test_completions_that_end_by_themselves(stop_ids):
  """Soon, late, and never; the model draws the stop token."""
  expected, found = (
    _program('gemma2', num_packings, (8, 4), False, stop_ids)[0](np.zeros((8, 4)))
    for num_packings in (0, 3)
  )
  assert len(np.unique(expected[1].sum(-1))) > 4 or stop_ids == (99,)
  _assert_same(found, expected)


@pytest.mark.parametrize('shape', [(1, 1), (3, 1), (1, 5), (3, 3)])
def test_few_rows(shape):
  lengths = draw_lengths(shape, LENGTH, 1.0 if shape == (1, 1) else 1.5)
  _assert_same(_sample('llama', 3, lengths), _sample('llama', 0, lengths))


@pytest.mark.parametrize('devices', [(8, 1, 1), (2, 2, 2)])
def test_shards_are_packed_by_themselves_and_nothing_moves(devices):
  """Devices tell each other one truth value a step: whether it is time for the next loop."""
  lengths = draw_lengths((16, 8), LENGTH, 4)
  _assert_same(_sample('gemma2', 2, lengths, devices=devices), _sample('gemma2', 0, lengths))
  _, text = _program('gemma2', 2, (16, 8), True, devices=devices)
  assert _collectives(text) == [('pred[]', 'all-reduce')] * 3, 'one in each loop'


def test_the_policy_packs_on_each_device(monkeypatch):
  """It knows in how many parts the prompts lie; with all as one shard, rows would move."""
  task = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=128, stop_ids=(STOP_ID,)))
  policy = LanguageModel(task, 'llama_micro', max_new_tokens=LENGTH, num_packings=1)
  params = policy.init(jax.random.key(0))
  tokens = jnp.ones((8, 3), jnp.int32)
  prompts = Prompts(ids=np.arange(8, dtype=np.int32), tokens=tokens, mask=tokens > 0, hidden=())
  mesh = sharding.make_mesh(MeshSettings(data=2, fsdp=2, tensor=1, gather_for_sampling=False))
  sharded = jax.device_put(prompts, sharding.over_prompts(mesh))

  def text():
    sample = jax.jit(lambda params, prompts, key: policy.sample(params, prompts, 4, key))
    return sample.lower(params, sharded, jax.random.key(0)).compile().as_text()

  assert {shape for shape, _ in _collectives(text())} == {'pred[]'}
  monkeypatch.setattr(language_model, '_num_shards', lambda tokens: 1)
  assert {shape for shape, _ in _collectives(text())} != {'pred[]'}, 'what moves is seen'


class Counting(NoMemory):
  """A model without memory that adds up the rows of its decoding steps."""

  vocab_size = 8

  def __init__(self):
    self.num_rows = 0

  def __call__(self, params, tokens, positions, memory=None, cache=None, index=None):
    if cache is not None:
      jax.debug.callback(self._count, tokens)
    return jnp.zeros((*tokens.shape, 1)), cache

  def _count(self, tokens):
    self.num_rows += tokens.size

  def logits(self, params, hidden):
    return jnp.zeros((*hidden.shape[:-1], self.vocab_size))


@pytest.mark.parametrize(('num_packings', 'least_saved'), [(0, 1.0), (1, 1.5), (2, 2.0)])
def test_rows_that_have_ended_are_not_computed(num_packings, least_saved):
  """The model's calls have as many rows as the layouts that a plain count of lengths leads to."""
  lengths = draw_lengths((8, 16), 40, 4)
  model = Counting()
  keys = jax.random.split(jax.random.key(0), lengths.shape)
  tokens = jnp.ones((8, 1), jnp.int32)
  sampling.sample(
    *(ForcedLengths(model, lengths), {}, tokens, tokens > 0, keys),
    max_new_tokens=40,
    stop_ids=(STOP_ID,),
    num_packings=num_packings,
  )
  jax.effects_barrier()
  assert model.num_rows == row_steps(lengths, packing.layouts(8, 16, num_packings))
  assert lengths.size * 39 / model.num_rows >= least_saved


def test_layouts():
  assert packing.layouts(3, 8, 1) == [(3, 8), (3, 2)]
  assert packing.layouts(8, 3, 9) == [(8, 3), (6, 1), (1, 1)]
  assert packing.layouts(1, 1, 4) == [(1, 1)]
  for num_prompts, num_samples in ((4, 7), (1, 16), (6, 1)):
    found = packing.layouts(num_prompts, num_samples, 20)
    rows = [groups * width for groups, width in found]
    assert all(4 * b <= a for a, b in zip(rows, rows[1:], strict=False)) and rows[-1] < 4
    assert all(groups <= num_prompts for groups, _ in found), 'no more copies of prompts'


@pytest.mark.parametrize(
  ('shape', 'layouts'),
  [((4, 6), ((4, 3), (4, 1))), ((5, 4), ((5, 2), (3, 2))), ((6, 1), ((3, 1),))],
)
def test_regrouping_against_a_loop_over_prompts(shape, layouts):
  """One packing after another: from the full layout, and from one with empty places."""
  rng, num_fitting = np.random.default_rng(0), 0
  num_rows = shape[0] * shape[1]
  needed = jax.jit(packing.groups_needed, static_argnums=(2, 3, 4))
  regroup = jax.jit(packing.regroup, static_argnums=(2, 3, 4))
  for _ in range(60):
    ids = np.arange(num_rows).reshape(shape)
    is_live = rng.random(shape) < rng.random(shape[0])[:, None]
    for num_groups, width in layouts:
      expected = []
      for prompt in range(shape[0]):
        mine = [i for i in ids[is_live] if i // shape[1] == prompt]
        chunks = [mine[i : i + width] for i in range(0, len(mine), width)]
        expected += [chunk + [num_rows] * (width - len(chunk)) for chunk in chunks]
      assert needed(ids, is_live, *shape, width) == len(expected)
      if len(expected) > num_groups:
        break
      num_fitting += 1
      expected += [[num_rows] * width] * (num_groups - len(expected))
      new_ids, source = jax.device_get(regroup(ids, is_live, *shape, (num_groups, width)))
      np.testing.assert_array_equal(new_ids, expected)
      assert ((source >= 0) & (source < ids.size)).all()
      is_row = new_ids < num_rows
      np.testing.assert_array_equal(ids.ravel()[source][is_row], new_ids[is_row])
      ids, is_live = new_ids, is_row & (rng.random(new_ids.shape) < 0.5)
  assert num_fitting > 10


def test_lengths_of_the_benchmark():
  for ratio in (2, 4, 8):
    lengths = draw_lengths((16, 16), 256, ratio)
    assert lengths.max() == 256 and lengths.min() >= 2
    assert lengths.max() / lengths.mean() == pytest.approx(ratio, rel=0.02)

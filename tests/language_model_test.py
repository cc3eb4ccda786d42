"""Gemma-2 as a policy: what it samples has the log-probabilities it reports, and can be trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pkpo_jax.policies import Policy
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.sampling import bucket
from pkpo_jax.tasks.copy import Copy
from pkpo_jax.tasks.text import encode_prompts
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Prompts
from tests.gemma_cases import SMALL, library_logits, name_preset, random_params

FIELDS = {
  'preset': 'small',
  'weights': None,
  'dtype': 'float32',
  'remat': False,
  'lora_rank': None,
  'max_new_tokens': 12,
  'temperature': 1.0,
  'top_k': None,
  'top_p': None,
  'log_prob_chunk': 5,
}


@dataclasses.dataclass
class Tokens:
  """A tokenizer as a policy sees it."""

  vocab_size: int = SMALL.num_embed
  stop_ids: tuple[int, ...] = (1,)


@dataclasses.dataclass
class TokenTask:
  """A text task as a policy sees it."""

  tokenizer: Tokens = dataclasses.field(default_factory=Tokens)


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
  name_preset(monkeypatch, SMALL)


def _policy(stop_ids=(1,), **fields):
  return LanguageModel(TokenTask(Tokens(stop_ids=stop_ids)), **FIELDS | fields)


def _prompts(tokens, mask=None):
  tokens = np.asarray(tokens, np.int32)
  mask = tokens != 0 if mask is None else np.asarray(mask)
  ids = np.arange(len(tokens), dtype=np.int32)
  return Prompts(ids=ids, tokens=tokens, mask=mask, hidden=())


def _sample(policy, params, tokens, num_samples=4, seed=0, mask=None):
  sample = jax.jit(policy.sample, static_argnums=2)
  return sample(params, _prompts(tokens, mask), num_samples, jax.random.key(seed))


PROMPTS = np.asarray([[0, 0, 0, 2, 7, 9, 30], [2, 5, 4, 3, 9, 9, 8], [0, 0, 0, 0, 0, 0, 2]])


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'temperature': 0.6},
    {'lora_rank': 2},
    {'preset': 'gemma3_micro', 'temperature': 8.0},  # It has no cap of logits.
    {'preset': 'llama_micro', 'freeze_embedding': True},
  ],
)
def test_sampling_log_probs_are_the_teacher_forced_ones(fields):
  """Past the window of 5, with prompts of unequal length and completions that end early."""
  policy = _policy(stop_ids=tuple(range(1, 128, 8)) if 'preset' in fields else (1, 3, 11), **fields)
  params = random_params(policy.model)
  rollout = _sample(policy, params, PROMPTS, num_samples=16)
  mask = np.asarray(rollout.completion_mask)
  lengths = mask.sum(-1)
  assert lengths.min() < 4 and lengths.max() == 12  # Ended, and cut at max_new_tokens.
  log_probs, entropy = jax.jit(policy.log_probs_and_entropy)(params, rollout)
  np.testing.assert_allclose(
    np.where(mask, log_probs, 0), np.where(mask, rollout.sampling_log_probs, 0), atol=1e-4
  )
  assert (np.asarray(entropy)[mask] > 0).all()
  num_tokens = policy.architecture.num_embeddings
  assert (np.asarray(entropy)[mask] < np.log(num_tokens)).all()


def test_keys_and_values_in_bfloat16(monkeypatch):
  """All that a decoding step reads is of half the size, and log-probabilities are off by little."""
  policy = _policy(stop_ids=(31,), cache_dtype='bfloat16', num_packings=1)
  params = random_params(policy.model)
  read, call = [], type(policy.model).__call__

  def spy(model, params, tokens, positions, memory=None, cache=None, index=None):
    if cache is not None:
      read.extend(x for part in (*memory, *cache) for x in (part.keys, part.values))
    return call(model, params, tokens, positions, memory, cache, index)

  monkeypatch.setattr(type(policy.model), '__call__', spy)
  rollout = _sample(policy, params, PROMPTS, num_samples=16)
  assert {x.dtype for x in read} == {jnp.dtype('bfloat16')}
  assert len(read) >= 2 * 2 * 2 * len(policy.model.windows), 'of prompts and completions, two loops'
  assert rollout.sampling_log_probs.dtype == jnp.float32
  mask = np.asarray(rollout.completion_mask)
  log_probs, _ = jax.jit(policy.log_probs_and_entropy)(params, rollout)
  difference = np.abs(log_probs - rollout.sampling_log_probs)[mask]
  assert 1e-4 < difference.max() < 0.1 and difference.mean() < 0.01
  # The first token is drawn after the prompt, which is read as it is computed.
  np.testing.assert_allclose(log_probs[..., 0], rollout.sampling_log_probs[..., 0], atol=1e-4)


def test_small_adapters_are_sampled_with_apart_from_their_weights():
  """In bfloat16; added into the weights they would be rounded, and training sees them whole."""
  policy = _policy(lora_rank=2, dtype='bfloat16', max_new_tokens=3)
  params = random_params(policy.model)
  params['adapters'] = jax.tree.map(lambda x: x / 12, params['adapters'])
  rollout = _sample(policy, params, PROMPTS, num_samples=32)
  forced = jax.jit(policy.log_probs_and_entropy)

  def distance(params):
    difference = forced(params, rollout)[0] - rollout.sampling_log_probs
    return float(jnp.sqrt(jnp.mean(jnp.where(rollout.completion_mask, difference, 0) ** 2)))

  assert distance(params) < distance(policy.model.merge(params))


def test_greedy_is_the_argmax_of_the_librarys_model_token_by_token_without_a_cache():
  policy = _policy(temperature=0.0, stop_ids=(31,))
  params = random_params(policy.model)
  rollout = _sample(policy, params, PROMPTS, num_samples=2)
  for prompt, group in zip(PROMPTS, np.asarray(rollout.completions), strict=True):
    np.testing.assert_array_equal(group[0], group[1])
    row = prompt[prompt != 0].tolist()
    start = len(row)
    while len(row) < start + 12 and row[-1] != 31:
      padded = np.zeros((1, 20), np.int32)
      padded[0, : len(row)] = row
      logits = library_logits(SMALL, params['weights'], jnp.asarray(padded))
      row.append(int(np.argmax(logits[0, len(row) - 1])))
    np.testing.assert_array_equal(group[0][: len(row) - start], row[start:])


def test_samples_of_a_prompt_are_draws_from_the_librarys_distribution():
  """Chi-squared of the first token, and of the second given the most frequent first."""
  policy = _policy(max_new_tokens=2, stop_ids=(31,))
  params = random_params(policy.model)
  rollout = _sample(policy, params, PROMPTS[1:2], num_samples=20_000)
  tokens = np.asarray(rollout.completions[0])
  favourite = np.bincount(tokens[:, 0]).argmax()
  seconds = tokens[tokens[:, 0] == favourite][:, 1]
  for counted, row in ((tokens[:, 0], []), (seconds, [favourite])):
    row = jnp.asarray([[*PROMPTS[1], *row]], jnp.int32)
    logits = np.asarray(library_logits(SMALL, params['weights'], row)[0, -1], np.float64)
    probs = np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(counted, minlength=len(probs))
    is_likely = probs * len(counted) > 5
    expected = probs[is_likely] / probs[is_likely].sum() * counts[is_likely].sum()
    assert stats.chisquare(counts[is_likely], expected).pvalue > 1e-4
  assert len(np.unique(tokens, axis=0)) > 50


def test_a_row_does_not_depend_on_what_else_is_in_the_batch():
  policy = _policy()
  params = random_params(policy.model)
  alone = _sample(policy, params, PROMPTS[:1], num_samples=2)
  others = _sample(policy, params, PROMPTS, num_samples=5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0, :2], b[0, :2], atol=1e-5),
    (alone.completions, alone.completion_mask, alone.sampling_log_probs),
    (others.completions, others.completion_mask, others.sampling_log_probs),
  )


def test_padding_and_bucket_do_not_change_the_samples():
  policy = _policy()
  params = random_params(policy.model)
  expected = _sample(policy, params, PROMPTS)
  for width in (9, 25):
    padded = np.pad(PROMPTS, ((0, 0), (width, 0)))
    found = _sample(policy, params, padded)
    np.testing.assert_array_equal(found.completions, expected.completions)
    np.testing.assert_allclose(found.sampling_log_probs, expected.sampling_log_probs, atol=1e-5)


def test_the_token_0_is_a_token_like_others():
  """Positions come from the mask: the same vocabulary with every id one higher is as likely.

  Where padding was known by its id, a prompt with a 0 in it was read with a hole.
  """
  policy = _policy(stop_ids=(7,), max_new_tokens=6)
  params = random_params(policy.model)
  tokens = np.asarray([[5, 0, 0, 4, 0], [0, 9, 0, 3, 8]])
  mask = np.asarray([[False, False, True, True, True], [True] * 5])
  rollout = _sample(policy, params, tokens, num_samples=32, mask=mask)
  has_token = np.asarray(rollout.completion_mask)
  assert (np.asarray(rollout.completions)[has_token] == 0).any()
  log_probs, entropy = jax.jit(policy.log_probs_and_entropy)(params, rollout)
  np.testing.assert_allclose(
    np.where(has_token, log_probs, 0), rollout.sampling_log_probs, atol=1e-4
  )

  def shifted(x):
    return (x + 1) % SMALL.num_embed

  def with_rows_shifted(path, leaf):
    return jnp.roll(leaf, 1, axis=0) if 'input_embedding' in jax.tree_util.keystr(path) else leaf

  other_params = jax.tree_util.tree_map_with_path(with_rows_shifted, params)
  other = rollout.replace(
    prompt_tokens=shifted(rollout.prompt_tokens), completions=shifted(rollout.completions)
  )
  assert np.asarray(other.prompt_tokens)[mask].min() > 0
  expected = jax.jit(policy.log_probs_and_entropy)(other_params, other)
  for values, others in zip((log_probs, entropy), expected, strict=True):
    np.testing.assert_allclose(
      np.where(has_token, values, 0), np.where(has_token, others, 0), atol=1e-4
    )
  # With the zeros taken for padding, the numbers are others.
  hole = rollout.replace(prompt_mask=jnp.asarray(tokens != 0))
  difference = jax.jit(policy.log_probs_and_entropy)(params, hole)[0] - log_probs
  assert np.abs(np.where(has_token, difference, 0)[1]).max() > 0.01


def test_what_stands_where_the_mask_has_no_token_does_not_matter():
  policy = _policy()
  params = random_params(policy.model)
  expected = _sample(policy, params, PROMPTS)
  garbage = np.where(PROMPTS == 0, 17, PROMPTS)
  rollout = _sample(policy, params, garbage, mask=PROMPTS != 0)
  np.testing.assert_array_equal(rollout.completions, expected.completions)
  np.testing.assert_allclose(rollout.sampling_log_probs, expected.sampling_log_probs, atol=1e-5)


def test_compilations_are_bounded_by_the_buckets():
  """Prompts of lengths up to 58 compile the sampler once for each of their five buckets."""
  task = Copy(CharacterTokenizer(), num_letters=1, alphabet_size=2)
  policy = LanguageModel(task, **FIELDS | {'preset': 'gemma2_tiny', 'max_new_tokens': 1})
  params = jax.jit(policy.init)(jax.random.key(0))
  sample = jax.jit(policy.sample, static_argnums=2)
  lengths = range(1, 60, 4)
  for length in lengths:
    tokens, mask = encode_prompts(task.tokenizer, ['a' * length, 'b'])
    assert tokens.shape == (2, bucket(length + 1))
    sample(params, _prompts(tokens, mask), 2, jax.random.key(0))
  assert sample._cache_size() == len({bucket(length + 1) for length in lengths}) == 5


def test_under_lora_only_adapters_get_gradients():
  policy = _policy(lora_rank=2)
  assert policy.frozen == {'weights'}
  params = random_params(policy.model)
  rollout = _sample(policy, params, PROMPTS)

  def mean_log_prob(adapters):
    log_probs, _ = policy.log_probs_and_entropy({**params, 'adapters': adapters}, rollout)
    return jnp.mean(jnp.where(rollout.completion_mask, log_probs, 0))

  grads = jax.jit(jax.grad(mean_log_prob))(params['adapters'])
  for path, grad in jax.tree.leaves_with_path(grads):
    assert np.abs(grad).max() > 0, jax.tree_util.keystr(path)


def test_what_it_says_of_itself():
  assert isinstance(_policy(), Policy)
  assert (_policy().completions, _policy().max_new_tokens) == ('text', 12)
  assert _policy().samples_exactly
  for fields in ({'top_k': 3}, {'top_p': 0.9}, {'temperature': 0.0}):
    assert not _policy(**fields).samples_exactly


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'preset': 'gemma3'}, "preset: expected one of .*'gemma2_2b'.*, got 'gemma3'"),
    ({'dtype': 'float16'}, r"dtype: expected one of \['bfloat16', 'float32'\], got 'float16'"),
    ({'max_new_tokens': 0}, 'max_new_tokens: expected at least 1, got 0'),
    ({'temperature': -1.0}, 'temperature: expected a number >= 0, got -1.0'),
    ({'top_p': 1.5}, r'top_p: expected in \(0, 1\] or None, got 1.5'),
    ({'top_k': 0}, 'top_k: expected at least 1 or None, got 0'),
    ({'lora_rank': 2, 'lora_alpha': 0.0}, 'lora_alpha: expected a number > 0 or None, got 0.0'),
    (
      {'lora_rank': 2, 'lora_targets': ('q', 'x')},
      r"lora_targets: expected some of \('q', .*'x'\)",
    ),
    ({'lora_rank': 2, 'lora_targets': ()}, r'lora_targets: expected some of .*, got \(\)'),
    ({'preset': None}, 'preset: expected a name where there are no weights'),
    ({'lora_rank': 0}, 'lora_rank: expected at least 1 or None, got 0'),
    ({'log_prob_chunk': 0}, 'log_prob_chunk: expected at least 1, got 0'),
    (
      {'cache_dtype': 'float16'},
      r"cache_dtype: expected one of \['bfloat16', 'float32'\] or None, got 'float16'",
    ),
    ({'num_packings': -1}, 'num_packings: expected at least 0 or None, got -1'),
  ],
)
def test_wrong_fields(fields, message):
  with pytest.raises(ValueError, match=message):
    _policy(**fields)


def test_the_tokenizer_has_to_fit_the_model():
  with pytest.raises(ValueError, match="preset: expected a model with at least the tokenizer's 99"):
    LanguageModel(TokenTask(Tokens(vocab_size=99)), **FIELDS)

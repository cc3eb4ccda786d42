"""Training on several devices: the numbers of one, and on each device only its part."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs import default
from pkpo_jax import pieces, sharding
from pkpo_jax.optimizer import make_optimizer
from pkpo_jax.run import jit_train_step, make_init
from pkpo_jax.settings import LossSettings, MeshSettings
from tests.sequence_policy import make_policy, make_rollout

SETTINGS = LossSettings(**default.get_config().loss)
EVERYTHING = {
  'name': 'ppo',
  'normalization': 'token',
  'kl_coef': 0.1,
  'entropy_coef': 0.1,
  'num_epochs': 2,
  'num_minibatches': 2,
  'num_microbatches': 2,
}
PIECES = {
  'num_microbatches': 2,
  'num_sample_blocks': 2,
  'num_lengths': 3,
  'skip_without_signal': True,
}
MESHES = [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 2, 4)]
NUM_PROMPTS = 32
KEY = jax.random.key(0)
PARAMS = {
  'params': {'layer_0': {'mlp': {'linear': jnp.zeros((8, 4))}, 'norm': {'scale': jnp.zeros(4)}}}
}


def _mesh(*shape):
  return sharding.make_mesh(
    MeshSettings(**dict(zip(sharding.AXES, shape, strict=True)), gather_for_sampling=False)
  )


def _compiled(mesh, settings, dtype):
  """Returns (init, train_step) as `train.train` compiles them."""
  policy = make_policy(dtype=dtype)
  # A large eps, as Adam would else blow the rounding of gradients near 0 up to whole steps.
  optimizer = make_optimizer(
    **{**default.get_config().optimizer, 'max_grad_norm': 1.0, 'eps': 1e-3},
    num_train_steps=10,
    updates_per_step=settings.num_epochs * settings.num_minibatches,
  )
  train_step = jit_train_step(policy, optimizer, settings, mesh)
  return make_init(policy, optimizer, mesh), train_step


def _train(mesh, settings, dtype=jnp.float32):
  """Returns the state after three steps, and the metrics of each."""
  init, train_step = _compiled(mesh, settings, dtype)
  policy = make_policy()
  rollout, advantages = make_rollout(policy, policy.init(jax.random.key(3)), NUM_PROMPTS)
  rollout = rollout.replace(ref_log_probs=0.9 * rollout.sampling_log_probs)
  state, frozen = init(jax.random.key(0))
  all_metrics = []
  for step in range(3):
    arguments = jax.device_put((rollout, advantages), sharding.over_prompts(mesh))
    state, metrics = train_step(state, frozen, *arguments, jax.random.key(step))
    all_metrics.append(jax.device_get(metrics))
  return state, all_metrics


@functools.cache
def _train_on_one(options):
  return _train(_mesh(1, 1, 1), dataclasses.replace(SETTINGS, **dict(options)))


@pytest.mark.parametrize('shape', MESHES)
@pytest.mark.parametrize('options', [{}, EVERYTHING, PIECES])
def test_three_steps_equal_those_of_one_device(shape, options):
  expected, expected_metrics = _train_on_one(tuple(options.items()))
  state, metrics = _train(_mesh(*shape), dataclasses.replace(SETTINGS, **options))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
  jax.tree.map(close, state, expected)
  jax.tree.map(close, metrics, expected_metrics)
  assert not np.allclose(
    state.params['head']['kernel'], make_policy().init(jax.random.key(0))['head']['kernel']
  )


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', MESHES)
def test_a_device_holds_its_part_of_parameters_and_optimizer_state(shape, dtype):
  mesh = _mesh(*shape)
  init, _ = _compiled(mesh, SETTINGS, dtype)
  states = [init(jax.random.key(0))[0], _train(mesh, SETTINGS, dtype)[0]]
  num_split, num_whole = 8 * 16 + 16 * 16 + 16 * 8, 8  # Parameters by the rules; the bias.
  copies = {jnp.float32: 3 * 4, jnp.bfloat16: 2 + 3 * 4}[dtype]  # Bytes: it, (master,) two moments.
  expected = copies * (num_split // (shape[1] * shape[2]) + num_whole)
  if dtype == jnp.bfloat16:
    rounded = jax.tree.map(lambda x: x.astype(dtype), states[1].opt_state.master)
    jax.tree.map(np.testing.assert_array_equal, states[1].params, rounded)
  for state in states:
    for device in mesh.devices.flat:
      held = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((state.params, state.opt_state))
        for shard in leaf.addressable_shards
        if shard.device == device and leaf.ndim
      )
      assert held == expected


@pytest.mark.parametrize('options', [{'num_microbatches': 4}, PIECES])
def test_gradients_of_pieces_are_added_up_in_parts(options):
  """No loop of the compiled step carries a gradient, or anything, of a whole parameter's shape."""
  settings = dataclasses.replace(SETTINGS, **options)
  mesh = _mesh(2, 2, 2)
  init, train_step = _compiled(mesh, settings, jnp.float32)
  policy = make_policy()
  batch = make_rollout(policy, policy.init(jax.random.key(3)), NUM_PROMPTS)
  batch = jax.device_put(batch, sharding.over_prompts(mesh))
  text = train_step.lower(*init(jax.random.key(0)), *batch, KEY).compile().as_text()
  (accumulator,) = re.findall(
    r' = \(([^)]*)\) while\([^\n]*op_name="jit\(train_step\)/while"', text
  )
  shapes = re.findall(r'\w+\[[\d,]*\]', accumulator)
  assert 'f32[8,8]' in shapes, 'the gradient of `transition`, split in two ways'
  assert 'f32[16,16]' not in shapes


@pytest.mark.parametrize('num_pieces', [2, 4])
def test_microbatches_move_nothing_between_devices(num_pieces):
  over_prompts = sharding.over_prompts(_mesh(2, 4, 1))
  x = jax.device_put(np.zeros((NUM_PROMPTS, 3)), over_prompts)

  def total(split, x):
    return jax.lax.map(lambda piece: 2 * piece, split(x, num_pieces))

  def collectives(split):
    text = jax.jit(functools.partial(total, split)).lower(x).compile().as_text()
    return re.findall(r'(?:all|collective|reduce)-\w+\(', text)

  blocks = lambda x, num_pieces: x.reshape(num_pieces, -1, *x.shape[1:])
  assert not collectives(pieces.split_prompts)
  assert collectives(blocks), 'what a split in blocks would need is seen'


def test_pieces_move_nothing_between_devices_but_their_length():
  mesh = _mesh(2, 4, 1)
  lengths = np.random.default_rng(0).integers(1, 9, (NUM_PROMPTS, 4))
  x = np.arange(8) < lengths[..., None]
  arrays = jax.device_put((x[:, 0], x), sharding.over_prompts(mesh))

  def total(num_shards, arrays):
    lengths = pieces.num_tokens(arrays[1])
    arrays, _ = pieces.sort_samples(arrays, lengths)
    arrays = pieces.sort_prompts(arrays, lengths, 2, num_shards)
    double = lambda length, piece: 2 * jnp.sum(piece[1][..., :length], axis=-1)
    of_piece = lambda piece: pieces.at_length(double, (4, 8), piece[1], piece)
    return jax.lax.map(of_piece, pieces.split(arrays, 2, 2))

  def moved(num_shards):
    text = jax.jit(functools.partial(total, num_shards)).lower(arrays).compile().as_text()
    return re.findall(r' = (\S+) (?:all|collective|reduce-scatter)[\w-]*\(', text)

  assert moved(8) == ['s32[]']
  assert len(moved(1)) > 1, 'what sorting over all devices would need is seen'


def test_rules_match_the_end_of_the_path_and_the_first_counts():
  mesh = _mesh(2, 2, 2)
  rules = (
    ('mlp/linear', PartitionSpec('tensor', 'fsdp')),
    ('linear', PartitionSpec()),
    ('norm', PartitionSpec('tensor')),
  )
  tree = {**PARAMS, 'opt_state': ({'mu': PARAMS['params']}, {'count': jnp.zeros(())})}
  found = jax.tree.map(lambda s: s.spec, sharding.tree_shardings(tree, mesh, rules))
  for layers in (found['params'], found['opt_state'][0]['mu']):
    assert layers['layer_0']['mlp']['linear'] == PartitionSpec('tensor', 'fsdp')
    assert layers['layer_0']['norm']['scale'] == PartitionSpec(), 'norm is not the end of the path'
  assert found['opt_state'][1]['count'] == PartitionSpec()


@pytest.mark.parametrize(
  'spec, shape, words',
  [
    (PartitionSpec('fsdp'), (1, 3, 1), ['axis 0 of the shape (8, 4)', 'mesh.fsdp = 3', 'got 8']),
    (PartitionSpec(None, 'tensor'), (1, 1, 8), ['axis 1', 'mesh.tensor = 8', 'got 4']),
    (PartitionSpec(('fsdp', 'tensor')), (1, 3, 2), ['axis 0', 'mesh.fsdp * mesh.tensor = 6']),
    (PartitionSpec(None, None, 'fsdp'), (1, 2, 1), ['an axis for each', 'got (8, 4)']),
  ],
)
def test_a_parameter_that_does_not_divide_is_named(spec, shape, words):
  with pytest.raises(ValueError, match='^params/layer_0/mlp/linear: expected') as caught:
    sharding.tree_shardings(PARAMS, _mesh(*shape), (('linear', spec),))
  for word in words:
    assert word in str(caught.value)


@pytest.mark.parametrize(
  'fields, shape', [((-1, 1, 1), (8, 1, 1)), ((-1, 2, 2), (2, 2, 2)), ((1, 4, 1), (1, 4, 1))]
)
def test_mesh(fields, shape):
  mesh = _mesh(*fields)
  assert tuple(mesh.shape.values()) == shape
  assert sharding.num_prompt_shards(mesh) == shape[0] * shape[1]

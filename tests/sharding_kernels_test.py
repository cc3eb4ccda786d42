"""Kernels on 8 devices: the same values, and for rewards sharded over prompts no communication."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from advantage_cases import LARGE_N, extra_arguments
from conftest import NUM_DEVICES
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pkpo_jax import ADVANTAGES, max_at_k

K = 3
NUM_PROMPTS = 2 * NUM_DEVICES
# Both ways to rank samples, and a sample axis that 8 devices can share.
SIZES = [8, -(-LARGE_N // NUM_DEVICES) * NUM_DEVICES]
COLLECTIVE = re.compile(
  r'all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast'
)
# Looks across prompts by definition: it ranks the entropies of the whole batch.
COMMUNICATES = {'passk_adaptive'}
KERNELS = [*sorted(ADVANTAGES), 'max_at_k']


@pytest.fixture(scope='module')
def mesh():
  assert jax.device_count() == NUM_DEVICES
  return jax.make_mesh((NUM_DEVICES,), ('data',), axis_types=(AxisType.Auto,))


def kernels_of(n):
  """Returns the names of those that take n samples: the vote is computed for small groups alone."""
  return [name for name in KERNELS if name != 'maj_at_k' or n <= 64]


def call_all(inputs, k, names=None):
  """Returns every kernel's result on `inputs`, a dict of `[P, ...]`: one program to compile."""
  common = {key: inputs[key] for key in ('rewards', 'where') if key in inputs}
  results = {}
  for name in names or kernels_of(inputs['rewards'].shape[-1]):
    if name == 'max_at_k':
      results[name] = max_at_k(k=k, **common)
    else:
      wanted = extra_arguments(name, np.zeros(inputs['rewards'].shape))
      extra = {key: inputs.get(key, value) for key, value in wanted.items()}
      results[name] = ADVANTAGES[name](k=k, **common, **extra)
  return results


def make_inputs(n, masked):
  rng = np.random.default_rng(n)
  shape = NUM_PROMPTS, n
  inputs = {
    'rewards': np.round(rng.uniform(0, 4, shape) * 8).astype(np.float32) / 8,
    'ratios': rng.uniform(0.5, 1.5, shape).astype(np.float32),
    'baseline_weights': rng.uniform(0.5, 1.5, shape).astype(np.float32),
    'answers': rng.integers(-1, 4, shape).astype(np.int32),
    'entropy': rng.permutation(NUM_PROMPTS).astype(np.float32),
  }
  return inputs | ({'where': rng.random(shape) < 0.8} if masked else {})


def put(inputs, mesh, *axes):
  """Returns the inputs on the mesh, axis a of each sharded as axes[a] says."""

  def put_one(x):
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes[: np.ndim(x)])))

  return jax.tree.map(put_one, inputs)


def assert_same(actual, expected):
  """Checks equality but for the order of float32 sums."""
  for name in expected:
    scale = np.abs(expected[name]).max()
    np.testing.assert_allclose(
      actual[name], expected[name], rtol=2e-6, atol=2e-6 * scale, err_msg=name
    )


@pytest.mark.parametrize('n, masked', [(n, masked) for n in SIZES for masked in (False, True)])
def test_sharded_over_prompts(n, masked, mesh):
  """The compiled program has no collective, its results stay sharded, and values are equal."""
  inputs, k = make_inputs(n, masked), jnp.int32(K)
  sharded = put(inputs, mesh, 'data')
  names = tuple(name for name in kernels_of(n) if name not in COMMUNICATES)
  compiled = jax.jit(call_all, static_argnums=2).lower(sharded, k, names).compile()
  found = [line for line in compiled.as_text().splitlines() if COLLECTIVE.search(line)]
  assert not found
  actual = compiled(sharded, k)
  assert_same(actual, jax.jit(call_all, static_argnums=2)(inputs, k, names))
  for name, result in actual.items():
    assert result.sharding.shard_shape(result.shape)[0] == NUM_PROMPTS // NUM_DEVICES, name


@pytest.mark.parametrize('name', sorted(COMMUNICATES))
def test_exceptions_give_equal_values(name, mesh):
  inputs, k = make_inputs(SIZES[0], True), jnp.int32(K)
  call = jax.jit(call_all, static_argnums=2)
  assert_same(call(put(inputs, mesh, 'data'), k, (name,)), call(inputs, k, (name,)))


def test_a_collective_would_be_seen(mesh):
  """The check above finds the collective that a sum over prompts needs."""
  sharded = put(np.ones((NUM_PROMPTS, 2), np.float32), mesh, 'data')
  text = jax.jit(lambda x: x - x.sum(0)).lower(sharded).compile().as_text()
  assert COLLECTIVE.search(text)


def test_sharded_over_samples(mesh):
  inputs, k = make_inputs(SIZES[1], True), jnp.int32(K)
  # One entropy a prompt: no sample axis to shard.
  sharded = put(inputs, mesh, None, 'data')
  assert_same(jax.jit(call_all)(sharded, k), jax.jit(call_all)(inputs, k))


def test_shard_map_and_pmap(mesh):
  """Both give each device's prompts what that device alone would give them."""
  inputs, k = make_inputs(SIZES[0], False), jnp.int32(K)
  per_device = jax.tree.map(lambda x: x.reshape(NUM_DEVICES, -1, *x.shape[1:]), inputs)
  alone = jax.jit(call_all)
  devices = [{key: x[d] for key, x in per_device.items()} for d in range(NUM_DEVICES)]
  expected = [alone(device, k) for device in devices]
  stacked = jax.tree.map(lambda *x: np.stack(x), *expected)
  assert_same(jax.pmap(call_all, in_axes=(0, None))(per_device, k), stacked)
  specs = PartitionSpec('data')
  mapped = jax.shard_map(call_all, mesh=mesh, in_specs=(specs, PartitionSpec()), out_specs=specs)
  joined = jax.tree.map(lambda x: np.concatenate(x), stacked)
  assert_same(jax.jit(mapped)(inputs, k), joined)

"""Float32 error at n = 65536, under jit with a traced k, against float64 sums over definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from pkpo_jax import ADVANTAGES, max_at_k

N = 65536
# What the norm of the error may be: without a baseline, relative to k max |g|, which A_i reaches;
# with one, relative to the norm of A itself.
BOUNDS = {'pkpo': 2e-7, 'pkpo_loo': 5e-7, 'pkpo_loo_minus_one': 1e-6, 'pkpo_centered': 1e-6}
KS = [2, 3, 16, 1024, N // 2, N - 2, N - 1]


def best_with(g, v, k):
  """Returns s_i of ascending g: v_i g_i, and for j > i the subsets with maximum j that hold i."""
  j = np.arange(1, len(g) + 1)
  others = v * (k - 1) / np.maximum(j - 1, 1) * g
  above = np.append(np.cumsum(others[:0:-1])[::-1], 0)
  return v * g + above


def max_at_k_without(g, k):
  """Returns for each i the estimate of max@k from ascending g without its i-th entry."""
  u = oracles.subset_weights_float64(len(g) - 1, k)
  below = np.concatenate([[0], np.cumsum(u * g[:-1])])
  above = np.append(np.cumsum((u * g[1:])[::-1])[::-1], 0)
  return below + above


def expected_advantages(g, k):
  n = len(g)
  s = best_with(g, oracles.subset_weights_float64(n, k), k)
  rho_without = max_at_k_without(g, k) if k < n else None
  # The subsets I with i, less i, are all (k-1)-subsets of the others.
  expected = {
    'pkpo': n * s,
    'pkpo_loo_minus_one': n * (s - k / n * max_at_k_without(g, k - 1)),
  }
  if k < n:
    expected['pkpo_loo'] = n * (s - k / (n - 1) * rho_without)
    expected['pkpo_centered'] = n * (s - k / n * rho_without)
  return expected


def test_fast_reference_equals_enumeration():
  g = np.sort(np.random.default_rng(0).normal(size=7))
  for k in range(2, 8):
    for name, values in expected_advantages(g, k).items():
      exact = np.array(getattr(oracles, name)(list(g), k), np.float64)
      np.testing.assert_allclose(values, exact, atol=1e-13)


@pytest.fixture(scope='module')
def advantages_of():
  def call(rewards, k):
    results = {name: ADVANTAGES[name](rewards, k=k) for name in BOUNDS}
    return results | {'max_at_k': max_at_k(rewards, k)}

  return jax.jit(call)


@pytest.mark.parametrize('distribution', ['uniform', 'normal', 'sparse'])
def test_error_at_65536_samples(distribution, advantages_of):
  rng = np.random.default_rng(0)
  draw = {
    'uniform': rng.uniform,
    'normal': rng.normal,
    'sparse': lambda size: rng.uniform(size=size) * (rng.uniform(size=size) < 0.01),
  }
  rewards = draw[distribution](size=N).astype(np.float32)
  to_ascending = np.argsort(rewards, kind='stable')
  g = rewards[to_ascending].astype(np.float64)
  for k in KS:
    actual = advantages_of(rewards, jnp.int32(k))
    largest = np.abs(g).max()
    rho = g @ oracles.subset_weights_float64(N, k)
    np.testing.assert_allclose(actual['max_at_k'], rho, atol=3e-7 * largest)
    expected = expected_advantages(g, k)
    for name, bound in BOUNDS.items():
      error = np.linalg.norm(np.asarray(actual[name], np.float64)[to_ascending] - expected[name])
      unit = k * largest * np.sqrt(N) if name == 'pkpo' else np.linalg.norm(expected[name])
      assert error < bound * unit, f'{name}, k={k}: {error / unit}'

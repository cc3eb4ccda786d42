"""v_t: its definition, its recurrence, and the float32 error up to n = 131072."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from pkpo_jax import subset_weights

weights_with_traced_k = jax.jit(subset_weights, static_argnums=0)


def exact_weight(t, n, k):
  return float(Fraction(math.comb(t - 1, k - 1), math.comb(n, k)))


def ks_over(n):
  """Returns k from 1 to n, dense at both ends."""
  powers = {2**e for e in range(18)}
  ks = powers | {n - p for p in powers} | {3, n // 3, n // 2, 2 * n // 3, 9 * n // 10, n}
  return sorted(k for k in ks if 1 <= k <= n)


@pytest.mark.parametrize('n', [1, 2, 5, 40])
def test_equals_exact_integers(n):
  for k in range(1, n + 1):
    actual = subset_weights(n, k)
    assert actual.dtype == jnp.float32
    expected = [float(v) for v in oracles.subset_weights(n, k)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(np.asarray(actual) == 0, np.arange(1, n + 1) < k)


@pytest.mark.parametrize('k', [1, 2, 7, 30, 60])
def test_recurrence_from_the_top(k):
  """v_n = k/n and v_{j-1} = v_j (j-k)/(j-1)."""
  n = 60
  v = np.asarray(subset_weights(n, k), np.float64)
  j = np.arange(n, 1, -1)
  np.testing.assert_allclose(v[-1], k / n, rtol=1e-6)
  np.testing.assert_allclose(v[j - 2], v[j - 1] * np.maximum(j - k, 0) / (j - 1), rtol=2e-6)


@pytest.mark.parametrize('n, k', [(9, 4), (1000, 10), (131072, 1), (131072, 50_000)])
def test_sums_to_one(n, k):
  """The largest of k drawn samples is one of the n."""
  np.testing.assert_allclose(np.asarray(subset_weights(n, k), np.float64).sum(), 1, rtol=3e-6)


@pytest.mark.parametrize('n', [1, 2, 3, 17, 64, 1024, 8192, 65536, 131072])
def test_float32_error(n):
  """Every weight above 1e-30 is within 5e-6; the reference is the float64 recurrence."""
  for k in ks_over(n):
    expected = oracles.subset_weights_float64(n, k)
    actual = np.asarray(weights_with_traced_k(n, jnp.int32(k)), np.float64)
    large = expected > 1e-30
    error = np.max(np.abs(actual[large] / expected[large] - 1))
    assert error < 5e-6, f'k={k}: {error}'
    assert np.all(actual[~large] < 2e-30), f'k={k}'


@pytest.mark.parametrize('n', [200, 4096, 131072])
def test_float64_reference_equals_exact_integers(n):
  """Ties the reference of the test above to C(t-1, k-1) / C(n, k) in integers."""
  for k in (1, 2, n // 3, n - 2, n):
    reference = oracles.subset_weights_float64(n, k)
    above = np.flatnonzero(reference > 1e-30) + 1
    for t in {int(above[0]), int(above[len(above) // 2]), n}:
      np.testing.assert_allclose(reference[t - 1], exact_weight(t, n, k), rtol=1e-10)


def test_float64_weights():
  with jax.enable_x64(True):
    actual = subset_weights(30, 11, dtype=jnp.float64)
  assert actual.dtype == jnp.float64
  np.testing.assert_allclose(actual, [exact_weight(t, 30, 11) for t in range(1, 31)], rtol=1e-12)


def test_num_valid_gives_each_group_its_own_weights():
  """A group of m samples has the weights of n = m, then zeros; k > m gives zeros throughout."""
  n = 29
  num_valid = np.arange(n + 1).reshape(5, 6)
  weights = jax.jit(lambda k: subset_weights(n, k, num_valid=num_valid))
  for k in range(1, n + 1):
    actual = weights(jnp.int32(k))
    assert actual.shape == (5, 6, n)
    for m, row in zip(num_valid.ravel(), np.reshape(actual, (-1, n)), strict=True):
      expected = [float(v) for v in oracles.subset_weights(m, k)] if k <= m else [0.0] * m
      np.testing.assert_allclose(row, expected + [0.0] * (n - m), rtol=1e-6, atol=0)


@pytest.mark.parametrize('k', [-1, 0, 8, 2**31 - 1])
def test_k_out_of_range_gives_zeros(k):
  np.testing.assert_array_equal(weights_with_traced_k(7, jnp.int32(k)), np.zeros(7))

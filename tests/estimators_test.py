"""Estimates of pass@k and max@k, and their uncertainty over problems."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from advantage_cases import LARGE_N, groups_of

from pkpo_jax import max_at_k, pass_at_k, pass_at_k_curve, standard_error

pass_at_k_jit = jax.jit(pass_at_k)


def binomial(n, p):
  """Returns the chances of c = 0..n right samples of n at pass rate p."""
  c = np.arange(n + 1)
  log_choose = [math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1) for x in c]
  return np.exp(log_choose + c * np.log(p) + (n - c) * np.log1p(-p))


class TestPassAtK:
  @pytest.mark.parametrize('n', range(1, 8))
  def test_equals_the_share_of_subsets_with_a_right_sample(self, n):
    for k in range(1, n + 1):
      expected = [float(oracles.pass_at_k(c, n, k)) for c in range(n + 1)]
      for estimate, traced in ((pass_at_k, k), (pass_at_k_jit, jnp.int32(k))):
        actual = estimate(np.arange(n + 1), np.full(n + 1, n), traced)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)

  @pytest.mark.parametrize('n, k', [(64, 1), (64, 16), (64, 64), (1000, 300)])
  def test_equals_the_ratio_of_binomials(self, n, k):
    """rho = 1 - C(n-c, k)/C(n, k), by integers."""
    expected = [1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)]
    np.testing.assert_allclose(pass_at_k(np.arange(n + 1), n, k), expected, rtol=1e-7 * (k + 5))

  def test_tiny_values_keep_their_digits(self):
    """One right sample of n is among k drawn with chance k/n."""
    for n, k in ((10**6, 1), (10**6, 100), (10**5, 1000)):
      np.testing.assert_allclose(pass_at_k(1, n, k), k / n, rtol=1e-7 * (k + 1))

  @pytest.mark.parametrize('p', [0.02, 0.3, 0.9])
  def test_unbiased(self, p):
    """Over the binomial number of right samples its mean is 1 - (1-p)^k."""
    n = 20
    chances = binomial(n, p)
    for k in (1, 2, 8, 20):
      mean = chances @ np.asarray(pass_at_k(np.arange(n + 1), n, k), np.float64)
      np.testing.assert_allclose(mean, 1 - (1 - p) ** k, rtol=2e-6)

  def test_asymptotic_variance(self):
    """For many samples the variance tends to k^2 p (1-p)^(2k-1) / n."""
    n, p, k = 4000, 0.2, 4
    chances = binomial(n, p)
    rho = np.asarray(pass_at_k(np.arange(n + 1), n, k), np.float64)
    variance = chances @ (rho - chances @ rho) ** 2
    np.testing.assert_allclose(variance, k**2 * p * (1 - p) ** (2 * k - 1) / n, rtol=0.01)

  def test_redrawing_samples_is_biased_low(self):
    """1 right of 4: pass@4 is 1 for certain; the best of 4 redrawn samples is right in 0.684."""
    redraws = itertools.product([0, 0, 0, 1], repeat=4)
    np.testing.assert_allclose(np.mean([max(x) for x in redraws]), 1 - 0.75**4)
    assert pass_at_k(1, 4, 4) == 1

  def test_problems_may_differ_in_samples(self):
    actual = pass_at_k(np.array([1, 2, 0]), np.array([2, 5, 3]), 2)
    expected = [oracles.pass_at_k(c, n, 2) for c, n in ((1, 2), (2, 5), (0, 3))]
    np.testing.assert_allclose(actual, [float(x) for x in expected], rtol=1e-6)

  def test_numpy_scalars(self):
    correct = np.array([True, False, False]).sum()
    np.testing.assert_allclose(pass_at_k(correct, np.int32(3), np.int64(2)), 2 / 3, rtol=1e-6)

  @pytest.mark.parametrize('k', [0, -2, 5, 2**31 - 1])
  def test_traced_k_out_of_range_gives_zero(self, k):
    assert pass_at_k_jit(jnp.int32(3), jnp.int32(4), jnp.int32(k)) == 0

  @pytest.mark.parametrize('c, n', [(-1, 4), (5, 4)])
  def test_known_counts_out_of_range(self, c, n):
    with pytest.raises(ValueError, match=rf'num_correct: .*num_samples = {n}, got {c}'):
      pass_at_k(np.array([0, c]), n, 1)
    assert pass_at_k_jit(jnp.int32(c), jnp.int32(n), jnp.int32(1)) == 0

  @pytest.mark.parametrize('k', [0, 5])
  def test_known_k_out_of_range(self, k):
    with pytest.raises(ValueError, match=rf'k: expected 1 <= k <= n = 4, got {k}'):
      pass_at_k(np.array([1, 2]), np.array([4, 6]), k)

  def test_counts_that_are_no_integers(self):
    with pytest.raises(TypeError, match='num_correct: expected integers'):
      pass_at_k(np.array([0.5]), 4, 1)


class TestMaxAtK:
  """Its definition by enumeration is in advantages_definition_test.py."""

  @pytest.mark.parametrize('n', [1, 6, 64, LARGE_N])
  def test_binary_rewards_give_pass_at_k(self, n):
    rewards = np.tril(np.ones((n + 1, n)), -1)
    for k in {1, 2, n // 2, n} - {0}:
      if k <= n:
        actual = jax.jit(max_at_k)(rewards, jnp.int32(k))
        np.testing.assert_allclose(actual, pass_at_k(np.arange(n + 1), n, k), atol=1e-6)

  def test_limits(self):
    rewards = groups_of(7)
    np.testing.assert_allclose(max_at_k(rewards, 1), rewards.mean(-1), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(max_at_k(rewards, 7), rewards.max(-1))

  def test_masked(self):
    rewards, where = groups_of(6), np.arange(6) % 3 != 1
    mask = np.broadcast_to(where, rewards.shape)
    poisoned = np.where(mask, rewards, np.nan)
    for k in range(1, 5):
      expected = [float(oracles.max_at_k(list(g), k)) for g in rewards[:, where]]
      np.testing.assert_allclose(max_at_k(poisoned, k, where=mask), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(max_at_k(poisoned, 5, where=mask), np.zeros(len(rewards)))
    np.testing.assert_array_equal(max_at_k(poisoned, 1, where=np.zeros_like(mask)), 0)

  @pytest.mark.parametrize('junk', [np.nan, np.inf, -np.inf])
  def test_a_reward_that_is_not_finite_makes_the_estimate_of_its_group_nan(self, junk):
    rewards = np.array([[1.0, junk, 0.0], [1.0, 2.0, 0.0]])
    for estimates in (max_at_k(rewards, 2), jax.jit(max_at_k)(rewards, 2)):
      assert np.isnan(estimates[0])
      np.testing.assert_allclose(estimates[1], 5 / 3, rtol=1e-6)
    np.testing.assert_allclose(max_at_k(rewards, 2, where=np.isfinite(rewards)), [1, 5 / 3])

  @pytest.mark.parametrize('k', [-1, 0, 8])
  def test_k_out_of_range(self, k):
    with pytest.raises(ValueError, match=rf'k: expected 1 <= k <= n = 7, got {k}'):
      max_at_k(groups_of(7), k)
    np.testing.assert_array_equal(max_at_k(groups_of(7), jnp.int32(k)), 0)

  def test_large_offset_costs_no_digits(self):
    """Rewards 1e4 + g: float32 holds them to 1e-3, and the estimate is as good."""
    g = 1e4 + np.round(np.random.default_rng(0).normal(size=(5, 40)) * 1024) / 1024
    v = oracles.subset_weights_float64(40, 8)
    np.testing.assert_allclose(max_at_k(g, 8), np.sort(g, axis=-1) @ v, atol=1e-3)

  def test_curve(self):
    rewards = groups_of(5)
    curve = pass_at_k_curve(rewards, [1, 3, 5])
    assert curve.shape == (len(rewards), 3)
    for column, k in enumerate([1, 3, 5]):
      np.testing.assert_array_equal(curve[:, column], max_at_k(rewards, k))
    assert np.all(np.diff(curve, axis=-1) >= 0)

  def test_curve_names_the_problem_with_too_few_samples(self):
    where = np.ones((3, 4), bool)
    where[2, :2] = False
    with pytest.raises(ValueError, match=r'k = 3 and 2 samples at problem \(2,\)'):
      pass_at_k_curve(np.zeros((3, 4)), [1, 3], where=where)
    with pytest.raises(ValueError, match='got 5'):
      pass_at_k_curve(np.zeros((3, 4)), [1, 5])


class TestStandardError:
  def test_standard_error(self):
    values = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    expected = np.sqrt(((values - values.mean(0)) ** 2).sum(0) / 8 / 9)
    np.testing.assert_allclose(standard_error(values), expected, rtol=1e-6)

  @pytest.mark.usefixtures('no_type_checker')
  def test_too_few_problems(self):
    values = np.array([0.125, 0.5], np.float32)
    for few in (values[:1], values[0]):
      with pytest.raises(ValueError, match=r'values: expected shape \[P, \.\.\.\] with P >= 2'):
        standard_error(few)

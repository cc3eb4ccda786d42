"""Limits, closed forms and second routes: every identity the method's description states."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from advantage_cases import BELOW_N, LARGE_N, allowed_ks, bind, groups_of

from pkpo_jax import (
  ADVANTAGES,
  grpo,
  max_at_k,
  max_at_k_off_policy,
  maxrl,
  mean_centered,
  passk_analytical,
  pkpo,
  pkpo_centered,
  pkpo_loo,
  pkpo_loo_minus_one,
  pkpo_weighted_loo,
  reinforce,
  rloo,
  rs_grpo,
  tailrl,
  tzsm,
)

PKPO = {name: ADVANTAGES[name] for name in ADVANTAGES if name.startswith('pkpo')}
PKPO['pkpo_weighted_loo'] = functools.partial(pkpo_weighted_loo, baseline_weights=None)
WITH_BASELINE = {name: fn for name, fn in PKPO.items() if name != 'pkpo'}


def close(actual, expected, scale=1.0, message=''):
  np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=3e-6 * scale, err_msg=message)


def binary_group(c, n):
  """Returns c right and n - c wrong samples, mixed."""
  return np.random.default_rng(n).permutation(np.arange(n) < c).astype(np.float32)


class TestNumericExample:
  """g = (3,1,4,1,5,9,2,6), k = 3; the paper's weights, summed over samples."""

  G = np.array([3, 1, 4, 1, 5, 9, 2, 6])
  WEIGHTS = {
    'pkpo': '125/56 31/14 16/7 31/14 67/28 27/8 31/14 18/7',
    'pkpo_loo': '-1361/1960 -71/98 -148/245 -71/98 -83/196 69/56 -71/98 -6/49',
    'pkpo_loo_minus_one': '1/14 0 5/28 0 5/14 7/4 1/56 5/8',
  }

  @pytest.mark.parametrize('name', WEIGHTS)
  def test_weights(self, name):
    weights = [Fraction(w) for w in self.WEIGHTS[name].split()]
    assert getattr(oracles, name)([Fraction(int(x)) for x in self.G], 3) == [8 * w for w in weights]
    close(ADVANTAGES[name](self.G, k=3), [8 * float(w) for w in weights])

  def test_estimate(self):
    assert oracles.max_at_k([int(x) for x in self.G], 3) == Fraction(13, 2)
    close(max_at_k(self.G, 3), 6.5)


class TestLimitsInK:
  @pytest.mark.parametrize('n', [2, 5, 7])
  def test_k_1_with_a_baseline_is_rloo(self, n):
    for name, fn in WITH_BASELINE.items():
      for k in (1, jnp.int32(1)):
        close(fn(groups_of(n), k=k), rloo(groups_of(n)), scale=30, message=name)

  def test_k_1_without_a_baseline_is_reinforce(self):
    close(pkpo(groups_of(6), k=1), reinforce(groups_of(6)), scale=30)

  def test_k_1_analytical_is_grpo(self):
    close(passk_analytical(groups_of(6), k=1), grpo(groups_of(6)))

  def test_printed_equation_29_at_k_1_is_not_rloo(self):
    """Nor is it shift invariant; the reason for giving k = 1 the plain baseline."""
    g = [1.0, 4.0, 2.0]
    by_equation, shifted = oracles.leave_one_out(g, 1), oracles.leave_one_out([x + 1 for x in g], 1)
    assert max(abs(a - b) for a, b in zip(by_equation, oracles.rloo(g), strict=True)) > 0.1
    assert max(abs(a - b) for a, b in zip(by_equation, shifted, strict=True)) > 0.1

  def test_k_n_without_a_baseline_gives_all_the_maximum(self):
    """s_i = max g: no signal once centered."""
    rewards = groups_of(6)
    expected = 6 * np.broadcast_to(rewards.max(-1, keepdims=True), rewards.shape)
    np.testing.assert_array_equal(pkpo(rewards, k=6), expected)

  @pytest.mark.parametrize('n', [2, 5, LARGE_N])
  def test_k_n_loo_minus_one_is_tzsm(self, n):
    """n (best - second best) for the best, exactly 0 for the others and for tied bests."""
    rewards = groups_of(n)
    advantages = np.asarray(pkpo_loo_minus_one(rewards, k=n))
    close(advantages, tzsm(rewards), scale=n)
    best, second = np.sort(rewards, axis=-1)[:, :-3:-1].T
    close(advantages.max(-1), n * (best - second), scale=n)
    assert np.all(advantages[rewards < best[:, None]] == 0)
    assert np.all(advantages[best == second] == 0)

  @pytest.mark.parametrize('name', sorted(BELOW_N))
  def test_k_n_with_a_leave_one_out_baseline_is_undefined(self, name):
    with pytest.raises(ValueError, match='expected k < n = 6, got 6'):
      bind(name, groups_of(6))(groups_of(6), 6)
    np.testing.assert_array_equal(bind(name, groups_of(6))(groups_of(6), jnp.int32(6)), 0)

  def test_k_n_analytical_is_zero(self):
    np.testing.assert_array_equal(passk_analytical(groups_of(6), k=6), 0)


class TestTiesAndZeros:
  @pytest.mark.parametrize('n', [6, LARGE_N])
  def test_loo_minus_one_is_exactly_zero_for_the_lowest_k_minus_1(self, n):
    """And never negative, for k >= 2."""
    rewards = groups_of(n)
    for k in {2, n // 2, n - 1, n}:
      advantages = np.asarray(pkpo_loo_minus_one(rewards, k=jnp.int32(k)))
      assert np.all(advantages >= 0)
      for g, a in zip(rewards, advantages, strict=True):
        assert np.all(a[np.argsort(g)[: k - 1]] == 0)

  @pytest.mark.parametrize('value', [0.1, -3e4, 1e-30])
  def test_loo_minus_one_of_equal_rewards_is_exactly_zero(self, value):
    for n in (5, 70, LARGE_N):
      rewards = np.full((2, n), value, np.float32)
      for k in (1, 2, n):
        np.testing.assert_array_equal(pkpo_loo_minus_one(rewards, k=k), 0)

  def test_centered_sums_to_zero(self):
    rewards = groups_of(7)
    for k in range(1, 7):
      advantages = np.asarray(pkpo_centered(rewards, k=k), np.float64)
      np.testing.assert_allclose(advantages.sum(-1) / np.abs(advantages).max(), 0, atol=1e-6)
      assert np.all(advantages[-2:] == 0)


class TestSecondRoutes:
  @pytest.mark.parametrize('n', [3, 7])
  def test_loo_by_the_corrected_recursion(self, n):
    """s_loo_i = s_i - b_i/(n-1) on sorted rewards, with the paper's recursion as it should read.

    b_1 = (k/C(n-1,k)) sum_{i>=2} C(i-2,k-1) g_i;
    b_{i+1} = b_i + (k C(i-1,k-1)/C(n-1,k)) (g_i - g_{i+1}).
    """
    rewards = np.sort(groups_of(n), axis=-1)
    for k in range(2, n):
      unit = k / math.comb(n - 1, k)
      s = np.asarray(pkpo(rewards, k=k), np.float64) / n
      b = [unit * sum(math.comb(i - 2, k - 1) * rewards[:, i - 1] for i in range(2, n + 1))]
      for i in range(1, n):
        step = unit * math.comb(i - 1, k - 1) * (rewards[:, i - 1] - rewards[:, i])
        b.append(b[-1] + step)
      close(pkpo_loo(rewards, k=k), n * (s - np.stack(b, axis=-1) / (n - 1)), scale=100)

  def test_centered_is_scaled_centered_s(self):
    """s_i - (k/n) rho_k(g without i) = (n/(n-k)) (s_i - mean s)."""
    rewards, n = groups_of(7), 7
    for k in range(1, n):
      s = np.asarray(pkpo(rewards, k=k), np.float64)
      expected = n / (n - k) * (s - s.mean(-1, keepdims=True))
      close(pkpo_centered(rewards, k=k), expected, scale=300)

  def test_analytical_in_terms_of_pkpo(self):
    """sigma A_i = (n/k)(s_i - mean s) = (1 - k/n)(G_i - B_i), B_i the mean max@k without i."""
    rewards, n = groups_of(6), 6
    for k in range(1, n):
      sigma = np.array([[oracles.std_of_max(list(g), k)] for g in rewards])
      left = sigma * np.asarray(passk_analytical(rewards, k=k), np.float64)
      s = np.asarray(pkpo(rewards, k=k), np.float64) / n
      close(left, n / k * (s - s.mean(-1, keepdims=True)), scale=100)
      excess = [
        [best - oracles.max_at_k(oracles.without(g, i), k) for i, best in enumerate(bests)]
        for g, bests in ((list(g), oracles.mean_best_with(list(g), k)) for g in rewards)
      ]
      close(left, (1 - k / n) * np.array(excess, np.float64), scale=30)

  @pytest.mark.parametrize('n', [5, 70])
  def test_tailrl_is_the_harmonic_sum_of_loo_minus_one(self, n):
    """w = sum over k of (1/k) s_loo1(k), with s_loo1(1) := r/n; A = n (w - mean w)."""
    rewards = groups_of(n, nonnegative=True)
    loo_minus_one = jax.jit(lambda k: pkpo_loo_minus_one(rewards, k=k))
    w = rewards / n
    for k in range(2, n + 1):
      w = w + np.asarray(loo_minus_one(jnp.int32(k)), np.float64) / n / k
    if n < 10:
      close(w, np.array([oracles.tail_weights(list(g)) for g in rewards], np.float64), scale=10)
    close(tailrl(rewards), n * (w - w.mean(-1, keepdims=True)), scale=100)

  def test_tailrl_of_binary_rewards_is_maxrl(self):
    rewards = np.stack([binary_group(c, 9) for c in range(10)])
    close(tailrl(rewards), maxrl(rewards))

  def test_off_policy_at_equal_policies_is_pkpo(self):
    for n in (1, 2, 6, LARGE_N):
      rewards = groups_of(n)
      for k in {1, 2, n - 1, n} & set(range(1, n + 1)):
        actual = max_at_k_off_policy(rewards, k=k, ratios=np.ones_like(rewards))
        close(actual, pkpo(rewards, k=k), scale=30 * n)

  def test_mean_centered_is_shrunk_rloo(self):
    close(mean_centered(groups_of(5)), (1 - 1 / 5) * np.asarray(rloo(groups_of(5))), scale=30)

  def test_rs_grpo_with_small_beta_is_mean_centered(self):
    for beta in (1e-4, -1e-4):
      actual = rs_grpo(groups_of(5) / 16, beta=beta)
      np.testing.assert_allclose(actual, mean_centered(groups_of(5) / 16), atol=2e-3)

  def test_rs_grpo_sums_to_zero_and_survives_large_rewards(self):
    for beta in (2.0, -2.0):
      advantages = np.asarray(rs_grpo(1e4 * groups_of(6), beta=beta))
      assert np.all(np.isfinite(advantages))
      np.testing.assert_allclose(advantages.sum(-1), 0, atol=1e-5)


class TestBinaryClosedForms:
  CASES = [(5, k) for k in range(1, 6)] + [(32, 1), (32, 4), (32, 31), (80, 9)]

  @pytest.mark.parametrize('n, k', CASES)
  def test_pkpo(self, n, k):
    """w = k/n if right, (k/n) rho(n-1, c, k-1) if wrong (eq. 8)."""
    for c in {0, 1, 2, n // 2, n - 1, n}:
      r = binary_group(c, n)
      wrong = 1 - math.comb(n - 1 - c, k - 1) / math.comb(n - 1, k - 1) if c < n else 0
      close(pkpo(r, k=k), k * np.where(r == 1, 1, wrong), scale=k)

  @pytest.mark.parametrize('n, k', [(n, k) for n, k in CASES if k > 1])
  def test_loo_minus_one(self, n, k):
    """w = C(n-c, k-1)/C(n, k) if right, 0 if wrong; all 0 when c = 0 or c > n-k+1."""
    for c in {0, 1, 2, n // 2, n - k + 1, n - k + 2, n}:
      r = binary_group(c, n)
      expected = n * math.comb(n - c, k - 1) / math.comb(n, k) * r
      assert np.all(expected == 0) == (c == 0 or c > n - k + 1)
      advantages = np.asarray(pkpo_loo_minus_one(r, k=k))
      np.testing.assert_allclose(advantages, expected, rtol=3e-6, atol=0)

  @pytest.mark.parametrize('n, k', CASES)
  def test_analytical(self, n, k):
    """A_right = (1-R)/sigma, A_wrong = (1 - R - C(n-c-1, k-1)/C(n-1, k-1))/sigma."""
    for c in {0, 1, 2, n // 2, n - k, n - k + 1, n - 1, n}:
      r = binary_group(c, n)
      expected = np.zeros(n)
      if 0 < c <= n - k:
        f = math.comb(n - c, k) / math.comb(n, k)
        sigma = math.sqrt(f * (1 - f))
        others_fail = math.comb(n - c - 1, k - 1) / math.comb(n - 1, k - 1)
        expected = np.where(r == 1, f, f - others_fail) / sigma
        # The stable form, which the docstring states.
        a_right = math.sqrt(f / (1 - f))
        np.testing.assert_allclose(expected, np.where(r == 1, a_right, -a_right * c / (n - c)))
      np.testing.assert_allclose(passk_analytical(r, k=k), expected, rtol=1e-5, atol=0)

  @pytest.mark.parametrize('k, best', [(1, 16), (4, 8), (8, 4), (16, 2)])
  def test_total_advantage_peaks_at_harder_prompts_for_larger_k(self, k, best):
    """eta(c) = sum_i |A_i| at n = 32 is largest at 16, 8, 4, 2 right for k = 1, 4, 8, 16."""
    rewards = np.stack([binary_group(c, 32) for c in range(33)])
    assert np.argmax(np.abs(passk_analytical(rewards, k=k)).sum(-1)) == best


@pytest.mark.parametrize('n', [4, 7])
def test_defined_ks_are_accepted_and_give_signal(n):
  """On distinct rewards every advantage tells samples apart for every k it allows below n."""
  rewards = groups_of(n)[0]
  for name, fn in PKPO.items():
    for k in allowed_ks(name, n):
      signal = np.ptp(np.asarray(fn(rewards, k=k)))
      assert (signal > 0) == (name != 'pkpo' or k < n)

"""The weighted leave-one-out baseline: any weights, what equal ones are, and what they save."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from advantage_cases import LARGE_N, groups_of
from advantages_unbiased_test import (
  ARM_REWARDS,
  ATOL,
  BINARY_ARM_REWARDS,
  LOGITS,
  expected_gradient,
  gradient_of_max_at_k,
  outcomes_of,
  softmax,
)

from pkpo_jax import pkpo_centered, pkpo_loo_minus_one, pkpo_weighted_loo, rloo, tzsm
from pkpo_jax.errors import FieldError

weighted = jax.jit(
  lambda rewards, k, weights, where=None: pkpo_weighted_loo(
    rewards, k=k, baseline_weights=weights, where=where
  )
)


def weights_like(rewards):
  """Returns weights of all sizes, zeros among them, in some groups for all samples but one."""
  weights = np.random.default_rng(0).integers(0, 4, rewards.shape) / 4
  weights[0], weights[1] = 0, np.arange(rewards.shape[-1]) == 0
  weights[2] *= 1e20
  return weights


@pytest.mark.parametrize('n', [2, 3, 6])
def test_equals_its_definition(n):
  rewards = groups_of(n)
  weights = weights_like(rewards)
  for k in range(1, n + 1):
    expected = [
      [float(x) for x in oracles.pkpo_weighted_loo(list(g), k, w)]
      for g, w in zip(rewards, weights, strict=True)
    ]
    np.testing.assert_allclose(
      weighted(rewards, jnp.int32(k), weights), expected, rtol=2e-6, atol=4e-6, err_msg=f'k={k}'
    )


def test_masked_samples_have_no_weight():
  n, kept = LARGE_N, 5
  rewards, where = groups_of(kept), np.zeros((len(groups_of(kept)), n), bool)
  for row in where:
    row[np.random.default_rng(1).choice(n, kept, replace=False)] = True
  weights = weights_like(rewards)
  spread = np.full(where.shape, 9.0), np.full(where.shape, np.nan)
  spread[0][where], spread[1][where] = rewards.ravel(), weights.ravel()
  for k in (1, 3, 5):
    actual = np.asarray(weighted(spread[0], jnp.int32(k), spread[1], where))
    expected = weighted(rewards, jnp.int32(k), weights)
    np.testing.assert_allclose(
      actual[where].reshape(rewards.shape), expected, rtol=2e-6, atol=4e-6, err_msg=f'k={k}'
    )
    assert np.all(actual[~where] == 0)


@pytest.mark.parametrize('arm_rewards', [ARM_REWARDS, BINARY_ARM_REWARDS])
def test_is_unbiased_with_weights_of_own_samples(arm_rewards):
  n, outcomes = 4, outcomes_of(4)
  scores = np.eye(len(LOGITS)) - softmax(LOGITS)
  given = (scores**2).sum(axis=1), np.array([0.0, 1.0, 0.0, 5.0]), np.ones(4), np.zeros(4)
  for arm_weights in given:
    for k in range(1, n + 1):
      advantages = weighted(arm_rewards[outcomes], jnp.int32(k), arm_weights[outcomes])
      actual = expected_gradient(advantages, outcomes)
      np.testing.assert_allclose(actual, gradient_of_max_at_k(k, arm_rewards), atol=ATOL)


@pytest.mark.parametrize('n', [5, 40, LARGE_N])
def test_limits(n):
  rewards = np.random.default_rng(n).normal(size=(3, n)).astype(np.float32)
  weights = np.random.default_rng(1).uniform(size=(3, n)).astype(np.float32)

  def close(actual, expected):
    size = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6 * size)

  for k in (2, n // 2, n - 1):
    mixed = (k - 1) * pkpo_loo_minus_one(rewards, k=k) + (n - k) * pkpo_centered(rewards, k=k)
    close(pkpo_weighted_loo(rewards, k=k, baseline_weights=None), mixed / (n - 1))
    close(weighted(8 * rewards + 0.5, k, weights / 4), 8 * weighted(rewards, k, weights))
  close(pkpo_weighted_loo(rewards, k=1, baseline_weights=None), rloo(rewards))
  close(weighted(rewards, n, weights), tzsm(rewards))
  others = weights.sum(axis=1, keepdims=True) - weights
  baseline = ((weights * rewards).sum(axis=1, keepdims=True) - weights * rewards) / others
  np.testing.assert_allclose(weighted(rewards, 1, weights), rewards - baseline, atol=2e-4 / n)


def test_binary_rewards_have_a_closed_form():
  """A_i = D_j (r_i - j/(n-1)), j the other right samples, D_j = k C(n-1-j, k-1) / C(n-1, k-1)."""
  n = 7
  rewards = (np.arange(n) < np.arange(n + 1)[:, None]).astype(np.float32)
  j = rewards.sum(axis=1, keepdims=True) - rewards
  for k in range(1, n + 1):
    ways = [math.comb(n - 1 - i, k - 1) for i in range(n)]
    steepness = k * np.array(ways)[j.astype(int)] / ways[0]
    np.testing.assert_allclose(
      pkpo_weighted_loo(rewards, k=k, baseline_weights=None),
      steepness * (rewards - j / (n - 1)),
      atol=1e-5,
    )


def counted_groups(n):
  """Returns all groups of n draws, in the order of the arms, and the ways to draw each."""
  counts = [c for c in itertools.product(range(n + 1), repeat=len(LOGITS)) if sum(c) == n]
  ways = [math.factorial(n) // math.prod(map(math.factorial, c)) for c in counts]
  return np.array([np.repeat(np.arange(len(LOGITS)), c) for c in counts]), np.array(ways)


def variance(advantages, outcomes, ways, logits):
  """Returns the trace of the variance of (1/n) sum_i A_i grad log p(x_i), exactly."""
  p = softmax(logits)
  scores = (np.eye(len(p)) - p)[outcomes]
  estimates = np.einsum('bi,bia->ba', np.asarray(advantages), scores) / outcomes.shape[1]
  chances = ways * p[outcomes].prod(axis=1)
  mean = chances @ estimates
  return chances @ (estimates**2).sum(axis=1) - mean @ mean


@pytest.mark.parametrize('k, expected', [(1, 0.730), (2, 0.845), (8, 1.327)])
def test_what_squared_norms_of_scores_save(k, expected):
  """A quarter of the variance at k = 1; at k = n/2 they cost, as few of the others decide."""
  logits = np.array([2.0, 0.0, 0.0, 0.0])
  outcomes, ways = counted_groups(16)
  rewards = np.array([0, 0, 1, 1], np.float32)[outcomes]
  norms = ((np.eye(4) - softmax(logits)) ** 2).sum(axis=1)
  alike, by_norm = (
    variance(weighted(rewards, k, weights[outcomes]), outcomes, ways, logits)
    for weights in (np.ones(4), norms)
  )
  assert by_norm / alike == pytest.approx(expected, abs=0.002)


def test_weights_out_of_range(no_type_checker):
  del no_type_checker
  rewards = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]], np.float32)
  for junk in (-1.0, np.nan, np.inf):
    weights = np.ones_like(rewards)
    weights[1, 2] = junk
    with pytest.raises(FieldError, match='baseline_weights: expected finite numbers >= 0, got'):
      pkpo_weighted_loo(rewards, k=2, baseline_weights=weights)
    advantages = np.asarray(weighted(rewards, 2, weights))
    assert np.all(np.isnan(advantages[1])) and np.all(np.isfinite(advantages[0]))
  with pytest.raises(FieldError, match=r'baseline_weights: expected shape \(2, 3\), got \(3,\)'):
    pkpo_weighted_loo(rewards, k=2, baseline_weights=np.ones(3))


@pytest.mark.parametrize('n, k', [(4096, 8), (4096, 512), (131_072, 64)])
def test_float32_error(n, k):
  rng = np.random.default_rng(0)
  rewards, weights = (rng.normal(size=n).astype(np.float32) for _ in range(2))
  weights = np.square(weights)
  order = np.argsort(rewards)
  gaps, w = np.diff(rewards[order].astype(np.float64), append=np.inf), weights[order].astype(float)
  gaps[-1] = 0
  v = oracles.subset_weights_float64(n, k)
  up_to = np.cumsum(w)
  gained = np.cumsum(up_to * np.roll(v, -1) * gaps)
  lost = np.cumsum(((up_to[-1] - up_to) * v * gaps)[::-1])[::-1]
  expected = n * (np.append(0, gained[:-1]) - lost) / (up_to[-1] - w)
  actual = np.asarray(weighted(rewards, k, weights))[order]
  error = np.abs(actual - expected).max() / np.abs(expected).max()
  print(error)
  assert error < 2e-6

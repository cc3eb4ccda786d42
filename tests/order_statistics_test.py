"""Objectives of ranks: each statistic against all subsets, its limits, its exact expectation."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from advantage_cases import groups_of
from advantages_unbiased_test import ARM_REWARDS, LOGITS, expected_gradient, outcomes_of, softmax

from configs import bandit
from pkpo_jax import (
  STATISTICS,
  f_grpo,
  grpo,
  max_at_k,
  min_at_k,
  order_statistic,
  order_statistic_at_k,
  pass_hat_k,
  pkpo_centered,
  rloo,
)
from pkpo_jax.ranks import weights_of_ranks
from pkpo_jax.run import make_run

THIRD = Fraction(1, 3)
# Options and a_1..a_k, exactly.
CASES = {
  'max': ({}, lambda k: [0] * (k - 1) + [1]),
  'min': ({}, lambda k: [1] + [0] * (k - 1)),
  'median': ({}, lambda k: oracles.quantile_ranks(k, Fraction(1, 2))),
  'quantile': ({'share': 1 / 3}, lambda k: oracles.quantile_ranks(k, THIRD)),
  'top_mean': ({'num_top': 2}, lambda k: [0] * (k - 2) + [Fraction(1, 2)] * 2),
  'lower_mean': ({'share': 1 / 3}, lambda k: oracles.lower_ranks(k, THIRD)),
}
every_statistic = pytest.mark.parametrize('statistic', STATISTICS)


def test_every_statistic_has_a_case():
  assert CASES.keys() == STATISTICS.keys()


def functions_of(statistic):
  """Returns the jitted advantage and estimate of (rewards, k)."""
  options = {'statistic': statistic, **CASES[statistic][0]}
  return (
    jax.jit(lambda rewards, k: order_statistic(rewards, k=k, **options)),
    jax.jit(lambda rewards, k: order_statistic_at_k(rewards, k, **options)),
  )


@every_statistic
@pytest.mark.parametrize('n', [2, 6])
def test_equals_the_sum_over_all_subsets(statistic, n):
  advantage, estimate = functions_of(statistic)
  rewards = groups_of(n)
  smallest_k = CASES[statistic][0].get('num_top', 1)
  for k in range(1, n + 1):
    if k < smallest_k:
      np.testing.assert_array_equal(advantage(rewards, jnp.int32(k)), 0)
      continue
    a = CASES[statistic][1](k)
    means = [float(oracles.of_ranks(list(g), a)) for g in rewards]
    np.testing.assert_allclose(estimate(rewards, jnp.int32(k)), means, rtol=2e-6, atol=2e-6)
    if k < n:
      expected = [[float(x) for x in oracles.centered_of_ranks(list(g), a)] for g in rewards]
      actual = advantage(rewards, jnp.int32(k))
      np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=4e-6, err_msg=f'k={k}')


@every_statistic
def test_is_unbiased(statistic):
  """E over all outcomes of n draws against the gradient over all outcomes of k draws."""
  n, p = 4, softmax(LOGITS)
  outcomes, (advantage, _) = outcomes_of(n), functions_of(statistic)
  for k in range(CASES[statistic][0].get('num_top', 1), n):
    draws = np.array(list(itertools.product(range(len(p)), repeat=k)))
    values = np.sort(ARM_REWARDS[draws]) @ np.array(CASES[statistic][1](k), float)
    scores = (np.eye(len(p))[draws] - p).sum(axis=1)
    expected = (p[draws].prod(axis=1) * values) @ scores
    actual = expected_gradient(advantage(ARM_REWARDS[outcomes], jnp.int32(k)), outcomes)
    np.testing.assert_allclose(actual, expected, atol=2e-6, err_msg=f'k={k}')
    assert np.linalg.norm(expected) > 1e-2


@pytest.mark.parametrize('n', [40, 300])
def test_limits(n):
  rewards = np.random.default_rng(n).normal(size=(3, n)).astype(np.float32)
  size = np.abs(rewards).max()

  def close(actual, expected):
    atol = 1e-6 * max(size, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)

  for k in (1, 7, n - 1):
    close(order_statistic(rewards, k=k, statistic='max'), pkpo_centered(rewards, k=k))
    close(pass_hat_k(rewards, k=k), -pkpo_centered(-rewards, k=k))
    close(order_statistic_at_k(rewards, k, statistic='max'), max_at_k(rewards, k))
    close(order_statistic_at_k(rewards, k, statistic='min'), min_at_k(rewards, k))
    for statistic, share in (('quantile', 1.0), ('top_mean', 0.5)):
      close(
        order_statistic(rewards, k=k, statistic=statistic, share=share), pkpo_centered(rewards, k=k)
      )
    # All ranks alike: the mean of k samples, whatever k is.
    close(order_statistic(rewards, k=k, statistic='lower_mean', share=1.0), rloo(rewards))
  close(order_statistic(rewards, k=1), rloo(rewards))


def test_given_weights_of_ranks():
  rewards = groups_of(6)
  median = order_statistic(rewards, k=4)
  given = order_statistic(rewards, k=4, rank_weights=(0.0, 0.5, 0.5, 0.0))
  np.testing.assert_array_equal(given, median)
  # The range of three: what no statistic has.
  spread = order_statistic_at_k(rewards, 3, rank_weights=(-1.0, 0.0, 1.0))
  expected = [float(oracles.of_ranks(list(g), [-1, 0, 1])) for g in rewards]
  np.testing.assert_allclose(spread, expected, rtol=2e-6, atol=2e-6)
  np.testing.assert_array_equal(
    order_statistic(rewards, k=jnp.int32(3), rank_weights=(0.0, 1.0, 0.0, 0.0)), 0
  )


def test_all_right():
  for n in (3, 5):
    for c in range(n + 1):
      rewards = np.arange(n) < c
      for k in range(1, n + 1):
        expected = math.comb(c, k) / math.comb(n, k)
        assert not np.signbit(min_at_k(rewards, k)), 'no -0'
        assert float(min_at_k(rewards, k)) == pytest.approx(expected, abs=1e-6)
        if k < n:
          assert bool(np.any(pass_hat_k(rewards, k=k))) == (k <= c < n)


@pytest.mark.parametrize('n, k, rank', [(4096, 8, 1), (4096, 64, 32), (1024, 1000, 500)])
def test_float32_error_against_exact_fractions(n, k, rank):
  rewards = np.random.default_rng(0).normal(size=n).astype(np.float32)
  order = np.argsort(rewards)
  gaps = np.diff(rewards[order].astype(np.float64))
  drawn = math.comb(n - 2, k - 1)
  c = [
    float(Fraction(math.comb(t - 1, rank - 1) * math.comb(n - t - 1, k - rank), drawn))
    for t in range(1, n)
  ]
  t = np.arange(1, n)
  gained = np.concatenate([[0], np.cumsum(t * c * gaps)])
  lost = np.append(np.cumsum(((n - t) * c * gaps)[::-1])[::-1], 0)
  expected = np.empty(n)
  expected[order] = k / (n - 1) * (gained - lost)
  a = np.arange(1, k + 1) == rank
  actual = np.asarray(
    order_statistic(rewards, k=k, rank_weights=tuple(a.astype(float))), np.float64
  )
  assert np.linalg.norm(actual - expected) < 2e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'statistic': 'mean'}, "statistic: expected one of .*, got 'mean'"),
    ({'statistic': 'quantile', 'share': 1.5}, r'share: expected a number in \[0, 1\], got 1.5'),
    ({'statistic': 'lower_mean', 'share': 0.0}, r'share: expected a number in \(0, 1\], got 0.0'),
    ({'statistic': 'top_mean', 'num_top': 0}, 'num_top: expected at least 1, got 0'),
    ({'statistic': 'top_mean', 'num_top': 4}, 'num_top: expected at most k = 3, got 4'),
    ({'rank_weights': (1.0, 0.0)}, 'rank_weights: expected k = 3 numbers'),
    ({'rank_weights': (1.0, 0.0, math.nan)}, 'rank_weights: expected k finite numbers'),
  ],
)
def test_wrong_arguments_are_named(arguments, message):
  for fn in (order_statistic, order_statistic_at_k):
    with pytest.raises(ValueError, match=message):
      fn(np.zeros(6), k=3, **arguments)


@pytest.mark.parametrize(
  'fields',
  [
    {'name': 'order_statistic', 'statistic': 'lower_mean', 'share': 0.25},
    {'name': 'order_statistic', 'rank_weights': (0.5, 0.0, 0.5)},
    {'name': 'pass_hat_k'},
    {'name': 'f_grpo', 'gamma': 0.5},
  ],
)
def test_configs_take_them(fields):
  config = bandit.get_config()
  config.advantage = {'k': 3, 'schedule': config.advantage.schedule, **fields}
  run = make_run(config)
  assert {n: run.settings.advantage.options[n] for n in fields if n != 'name'} == {
    n: x for n, x in fields.items() if n != 'name'
  }


def test_a_config_with_more_than_k_is_refused():
  config = bandit.get_config()
  fields = {'name': 'order_statistic', 'statistic': 'top_mean', 'num_top': 4}
  config.advantage = {'k': 3, 'schedule': config.advantage.schedule, **fields}
  with pytest.raises(ValueError, match='advantage.num_top: expected at most k = 3, got 4'):
    make_run(config)


def test_weights_add_up():
  for statistic, (options, exact) in CASES.items():
    options = {'share': 0.5, 'num_top': 1, 'rank_weights': None, **options}
    for k in range(2, 9):
      a = weights_of_ranks(statistic, k, 10, **options)
      np.testing.assert_allclose(a[:k], np.array(exact(k), float), atol=1e-6)
      assert float(a.sum()) == pytest.approx(1, abs=1e-6) and not np.any(a[k:])


def test_f_grpo_between_grpo_and_nothing():
  rewards = np.array([[0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
  np.testing.assert_array_equal(f_grpo(rewards, gamma=0.0), grpo(rewards))
  scale = np.array([[0.75], [0.25], [0]]) ** 2
  np.testing.assert_allclose(f_grpo(rewards, gamma=2.0), scale * grpo(rewards), rtol=1e-6)
  with pytest.raises(ValueError, match='gamma: expected a number >= 0, got -1.0'):
    f_grpo(rewards, gamma=-1.0)

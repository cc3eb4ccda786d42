"""Every advantage equals its definition, summed over all subsets, for all n <= 7 and all k."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from advantage_cases import (
  BELOW_N,
  LARGE_N,
  NEEDS_OTHERS,
  allowed_ks,
  extra_arguments,
  groups_of,
  suited,
)

from pkpo_jax import (
  ADVANTAGES,
  max_at_k,
  passk_adaptive,
  passk_bootstrap,
  passk_combination,
  passk_exceeding,
)

MAX_N = 7
# These have tests of their own below: one draws, one looks across prompts.
DETERMINISTIC = [name for name in ADVANTAGES if name not in ('passk_bootstrap', 'passk_adaptive')]
TOLERANCE = {'rtol': 2e-6, 'atol': 2e-6}
# Sums of complex numbers on the unit circle round more often.
TOLERANCES = {'maj_at_k': {'rtol': 2e-6, 'atol': 1e-5}}


def tolerance(name):
  return TOLERANCES.get(name, TOLERANCE)


def parameters_of(name):
  return inspect.signature(ADVANTAGES[name]).parameters


def numbers_of_samples(extra, rewards):
  """Returns the argument `[B, n]` with a number of each sample; zeros if there is none."""
  (found,) = [np.asarray(x) for x in extra.values() if x.shape == rewards.shape] or [0 * rewards]
  return found


def rewards_for(name, n):
  return suited(name, groups_of(n))


def expected_advantages(name, g, k, by_sample):
  """Returns the oracle's advantages of one group, zeros where they are undefined."""
  n = len(g)
  if not 1 <= k <= n or (name in BELOW_N and k == n):
    return [0.0] * n
  extra = (
    [by_sample] if {'ratios', 'baseline_weights', 'answers'} & set(parameters_of(name)) else []
  )
  return [float(a) for a in getattr(oracles, name)(list(g), k, *extra)]


@pytest.mark.parametrize('n', range(1, MAX_N + 1))
def test_equals_definition_with_traced_k(n):
  names = [name for name in DETERMINISTIC if n > 1 or name not in NEEDS_OTHERS]
  rewards = {name: rewards_for(name, n) for name in names}
  extra = {name: extra_arguments(name, rewards[name]) for name in names}

  @jax.jit
  def all_advantages(rewards, k):
    return {name: ADVANTAGES[name](rewards[name], k=k, **extra[name]) for name in names}

  for k in range(1, n + 1):
    actual = all_advantages(rewards, jnp.int32(k))
    for name in names:
      by_sample = numbers_of_samples(extra[name], rewards[name])
      expected = [
        expected_advantages(name, g, k, r) for g, r in zip(rewards[name], by_sample, strict=True)
      ]
      np.testing.assert_allclose(
        actual[name], expected, err_msg=f'{name}, k={k}', **tolerance(name)
      )


def test_masked_samples_do_not_count():
  """A masked group gives the definition on the samples that exist, and exactly 0 elsewhere."""
  n = 5
  masks = np.array(list(itertools.product([False, True], repeat=n)))
  picks = np.arange(len(masks)) % len(groups_of(n))
  rewards = {name: rewards_for(name, n)[picks] for name in DETERMINISTIC}
  extra = {name: extra_arguments(name, rewards[name]) for name in DETERMINISTIC}

  @jax.jit
  def all_advantages(rewards, k):
    return {
      name: ADVANTAGES[name](rewards[name], k=k, where=masks, **extra[name]) for name in rewards
    }

  for k in range(1, n + 1):
    actual = all_advantages(rewards, jnp.int32(k))
    for name in DETERMINISTIC:
      expected = np.zeros(masks.shape)
      by_sample = numbers_of_samples(extra[name], rewards[name])
      for row, mask in enumerate(masks):
        if mask.any():
          kept = expected_advantages(name, rewards[name][row, mask], k, by_sample[row][mask])
          # Advantages without k are those of the samples that exist, however many.
          if parameters_of(name)['k'].default is None:
            kept = getattr(oracles, name)(list(rewards[name][row, mask]))
          expected[row, mask] = [float(a) for a in kept]
      np.testing.assert_allclose(
        actual[name], expected, err_msg=f'{name}, k={k}', **tolerance(name)
      )
      assert np.all(np.asarray(actual[name])[~masks] == 0), name


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_static_k_equals_definition(name):
  n = 4
  rewards = rewards_for(name, n)
  extra = extra_arguments(name, rewards)
  by_sample = numbers_of_samples(extra, rewards)
  for k in allowed_ks(name, n):
    actual = ADVANTAGES[name](jnp.asarray(rewards, jnp.float32), k=k, **extra)
    expected = [expected_advantages(name, g, k, r) for g, r in zip(rewards, by_sample, strict=True)]
    np.testing.assert_allclose(actual, expected, err_msg=f'k={k}', **tolerance(name))


def test_sorted_path_equals_counted_path():
  """Groups too large to rank by counting pairs are sorted; both paths meet the definition.

  Six samples that exist among many slots take the sorting path and are small enough to enumerate.
  """
  n, kept = LARGE_N, 6
  rng = np.random.default_rng(0)
  where = np.zeros((len(groups_of(kept)), n), bool)
  for row in where:
    row[rng.choice(n, kept, replace=False)] = True
  for k in (1, 2, 5, 6):
    for name in sorted(set(DETERMINISTIC) - {'maj_at_k'}):  # It counts, and sorts nothing.
      g = rewards_for(name, kept)
      rewards = np.full(where.shape, 7.0)
      rewards[where] = g.ravel()
      extra = extra_arguments(name, rewards, neutral=True)
      actual = ADVANTAGES[name](rewards.astype(np.float32), k=jnp.int32(k), where=where, **extra)
      expected = [expected_advantages(name, row, k, np.ones(kept)) for row in g]
      np.testing.assert_allclose(
        np.asarray(actual)[where].reshape(g.shape), expected, err_msg=f'{name}, k={k}', **TOLERANCE
      )


@pytest.mark.parametrize('n', range(1, MAX_N + 1))
def test_max_at_k_equals_definition(n):
  rewards = groups_of(n)
  estimate = jax.jit(max_at_k)
  for k in range(1, n + 1):
    expected = [float(oracles.max_at_k(list(g), k)) for g in rewards]
    np.testing.assert_allclose(estimate(rewards, jnp.int32(k)), expected, **TOLERANCE)
    np.testing.assert_allclose(max_at_k(rewards, k), expected, **TOLERANCE)


def test_success_threshold_says_what_is_right():
  rewards = groups_of(5)
  for fn in (passk_exceeding, passk_combination):
    for threshold in (-40.0, 0.0, 0.5):
      expected = [getattr(oracles, fn.__name__)(list(g), 2, threshold) for g in rewards]
      actual = fn(rewards, k=2, success_threshold=threshold)
      np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize('num_prompts', [1, 2, 5, 6])
def test_adaptive_equals_definition(num_prompts):
  rewards = groups_of(5)[:num_prompts]
  entropy = np.random.default_rng(0).permutation(num_prompts).astype(np.float32)
  for k in (1, 3, 5):
    actual = passk_adaptive(rewards, k=k, entropy=entropy)
    expected = oracles.passk_adaptive([list(g) for g in rewards], k, entropy)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize('k', [1, 2, 3])
def test_bootstrap_has_the_expectation_over_all_draws(k):
  """The mean over keys is the mean over all C(n, k)^m equally likely draws of m sets."""
  g, num_sets, num_keys = [0.0, 1.0, 3.0], 3, 20_000
  draws = itertools.product(oracles.subsets(len(g), k), repeat=num_sets)
  outcomes = np.array([oracles.passk_bootstrap(g, sets) for sets in draws])
  keys = jax.random.split(jax.random.key(0), num_keys)
  batch = np.broadcast_to(np.array(g, np.float32), (num_keys, len(g)))

  def draw(row, key):
    return passk_bootstrap(row, k=jnp.int32(k), key=key, num_groups=num_sets)

  actual = jax.jit(jax.vmap(draw))(batch, keys)
  bound = 5 * outcomes.std(axis=0) / np.sqrt(num_keys) + 1e-6
  assert np.all(np.abs(np.mean(actual, axis=0) - outcomes.mean(axis=0)) < bound)
  assert k == len(g) or outcomes.mean(axis=0)[-1] > 20 * bound[-1]


def test_bootstrap_tends_to_the_analytical_advantages():
  """With m sets, A_i / (m k/n) tends to the analytical advantage at the rate 1/sqrt(m)."""
  n, k, num_sets = 7, 3, 2**15
  rewards = groups_of(n)
  drawn = passk_bootstrap(rewards, k=k, key=jax.random.key(1), num_groups=num_sets)
  analytical = [oracles.passk_analytical(list(g), k) for g in rewards]
  scaled = np.asarray(drawn) / (num_sets * k / n)
  np.testing.assert_allclose(scaled, analytical, atol=5 * np.sqrt(n / (k * num_sets)))


@pytest.mark.parametrize('masked', [False, True])
def test_bootstrap_sets_hold_k_distinct_samples(masked):
  """The rewards 'only sample j is right', for every j with one key, reveal the drawn sets.

  With h_j of m sets holding j: A^j_j = sqrt(h_j (m - h_j)), and the other entries are the
  covariances of the memberships. Sets of equal size make every row of these sum to 0, and that
  size is sum_j h_j / m. Sets drawn with repetition would have unequal sizes.
  """
  num_slots, num_sets = 9, 64
  where = np.arange(num_slots) % 3 != 1 if masked else np.ones(num_slots, bool)
  n = where.sum()
  rewards = np.eye(num_slots, dtype=np.float32)[where]

  def draw(g, k):
    key = jax.random.key(5)
    mask = where if masked else None
    return passk_bootstrap(g, k=k, key=key, num_groups=num_sets, where=mask)

  for k in range(1, n // 2):
    advantages = np.array([draw(g, k) for g in rewards])[:, where]
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=2e-4)
    squares = np.diag(advantages) ** 2
    # The smaller root of h (m - h): a sample is in fewer than half of the sets.
    held = num_sets / 2 - np.sqrt(num_sets**2 / 4 - squares)
    np.testing.assert_allclose(held, np.round(held), atol=2e-3)
    assert round(held.sum()) == num_sets * k


def test_bootstrap_with_one_key_is_deterministic():
  rewards = groups_of(6)
  first, again, other = (
    np.asarray(passk_bootstrap(rewards, k=2, key=jax.random.key(seed))) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)

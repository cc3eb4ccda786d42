"""Groups: ranks and order statistics on both ranking paths, masks, checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from advantage_cases import LARGE_N, extra_arguments, suited

from pkpo_jax import (
  ADVANTAGES,
  by_group,
  groups,
  max_at_k,
  passk_bootstrap,
  pkpo,
  pkpo_loo_minus_one,
  rloo,
)
from pkpo_jax.errors import FieldError

# One sample, one block of pairs, several with a rest, the last by counting and the first by sort.
SIZES = [1, 5, 32, 75, LARGE_N - 1, LARGE_N]


def tied_rewards(n, num_groups=12, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(-n, n, (num_groups, n)).astype(np.float32) / 4


def some_mask(shape, seed=1):
  mask = np.random.default_rng(seed).random(shape) < 0.6
  mask[0], mask[1] = False, True
  return mask


@jax.jit
def order(rewards, where=None):
  ranked = groups.order(groups.as_group(rewards, where))
  return ranked.values, ranked.ranks, ranked.gaps()


def lowest_rank(g):
  """Returns for each sample the number of samples below it."""
  return [sum(other < mine for other in g) for mine in g]


@pytest.mark.parametrize('n', SIZES)
def test_order_sorts_and_shares_the_lowest_rank_among_ties(n):
  rewards = tied_rewards(n)
  values, ranks, gaps = order(rewards)
  np.testing.assert_array_equal(values, np.sort(rewards, axis=-1))
  np.testing.assert_array_equal(ranks, [lowest_rank(g) for g in rewards])
  np.testing.assert_array_equal(gaps[:, :-1], np.diff(np.sort(rewards, axis=-1)))


@pytest.mark.parametrize('n', SIZES)
def test_masked_order_is_that_of_the_samples_that_exist(n):
  rewards = tied_rewards(n)
  where = some_mask(rewards.shape)
  for g, mask, values, ranks, gaps in zip(rewards, where, *order(rewards, where), strict=True):
    kept = np.sort(g[mask])
    top = kept[-1] if len(kept) else 0
    np.testing.assert_array_equal(values, [*kept, *[top] * (n - len(kept))])
    np.testing.assert_array_equal(ranks[mask], lowest_rank(g[mask]))
    assert np.all(gaps >= 0)
    assert np.all(gaps[max(len(kept) - 1, 0) :] == 0)


@pytest.mark.parametrize('masked', [False, True])
def test_reductions_equal_numpy_on_the_samples_that_exist(masked):
  rewards = tied_rewards(7)
  where = some_mask(rewards.shape) if masked else np.ones(rewards.shape, bool)
  group = groups.as_group(rewards, where if masked else None)
  for row, mask in enumerate(where):
    kept = rewards[row, mask] if mask.any() else np.zeros(1)
    np.testing.assert_allclose(group.sum(group.rewards)[row, 0], kept.sum(), rtol=1e-6)
    np.testing.assert_allclose(group.mean(group.rewards)[row, 0], kept.mean(), rtol=1e-6, atol=1e-7)
    assert group.max()[row, 0] == kept.max()


@pytest.mark.parametrize('value', [0.1, -1e30, 3e-38, 16777217.0])
def test_center_of_equal_rewards_is_exactly_zero(value):
  group = groups.as_group(np.full((3, 7), value, np.float32))
  np.testing.assert_array_equal(group.centered(), np.zeros((3, 7)))
  np.testing.assert_array_equal(group.minus_mean_of_others(), np.zeros((3, 7)))


@pytest.mark.parametrize('dtype', ['bool', 'int8', 'int32', 'uint8', 'float16', 'bfloat16'])
def test_rewards_are_promoted_to_float32(dtype):
  group = groups.as_group(jnp.asarray([0, 1, 1], dtype))
  assert group.rewards.dtype == jnp.float32
  np.testing.assert_array_equal(group.rewards, [0, 1, 1])


class TestChecks:
  """Malformed input is refused with the argument's name."""

  pytestmark = pytest.mark.usefixtures('no_type_checker')

  @pytest.mark.parametrize('shape', [(), (0,), (3, 0)])
  def test_rewards_without_samples(self, shape):
    with pytest.raises(ValueError, match=r'rewards: expected shape \[\.\.\., n\] with n >= 1'):
      groups.as_group(np.zeros(shape))

  def test_complex_rewards(self):
    with pytest.raises(TypeError, match='rewards: expected real numbers, got dtype complex64'):
      groups.as_group(jnp.ones(3, jnp.complex64))

  @pytest.mark.parametrize('shape', [(3,), (2, 1), (2, 4), (1, 2, 3)])
  def test_mask_of_another_shape(self, shape):
    with pytest.raises(ValueError, match=r'where: expected the shape of rewards \(2, 3\)'):
      groups.as_group(np.zeros((2, 3)), np.ones(shape, bool))

  def test_mask_of_another_dtype(self):
    with pytest.raises(TypeError, match='where: expected dtype bool, or integers 0 and 1, got fl'):
      groups.as_group(np.zeros((2, 3)), np.ones((2, 3), np.float32))

  @pytest.mark.parametrize('value', [2, -1])
  def test_mask_of_other_integers(self, value):
    with pytest.raises(ValueError, match='where: expected True and False, or 1 and 0'):
      groups.as_group(np.zeros(3), np.array([0, 1, value]))

  def test_ragged_rewards(self):
    with pytest.raises(TypeError, match='rewards: .* need a mask, `where`, or `by_group`'):
      groups.as_group([[0.0, 1.0], [1.0]])

  @pytest.mark.parametrize('key', [0, np.int32(3), np.uint32(3), jnp.int32(3), None])
  def test_key_that_is_a_seed(self, key):
    with pytest.raises(TypeError, match=r'key: expected a PRNG key, such as jax.random.key\(0\)'):
      passk_bootstrap(np.ones(4), k=2, key=key)

  @pytest.mark.parametrize(
    'rewards, ids, where, message',
    [
      ([[1.0, 0.0]], [0, 0], None, r'rewards: expected flat values, shape \[S\], got \(1, 2\)'),
      ([[1.0, 0.0], [1.0]], [0, 0], None, 'rewards: expected flat values.* got nested lists'),
      ([], [], None, 'rewards: expected at least one sample, got none'),
      ([1.0, 0.0], [0], None, 'group_ids: expected 2 entries, one per reward, got 1'),
      ([1.0, 0.0], [[0], [0]], None, 'group_ids: expected an id per sample, flat'),
      ([1.0, 0.0], [0, 0], [True], 'where: expected 2 entries, one per reward, got 1'),
      ([1.0, 0.0], [0, 0], [[True, True]], 'where: expected flat values'),
      ([1.0, 0.0], [0, 0], [1, 2], 'where: expected True and False, or 1 and 0'),
      ([1.0, 0.0], [0, 0], [1.0, 0.5], 'where: expected dtype bool, or integers 0 and 1'),
    ],
  )
  def test_flat_rewards_that_do_not_fit(self, rewards, ids, where, message):
    with pytest.raises(ValueError, match=f'^{message}'):
      by_group(rewards, ids, rloo, where=where)

  @pytest.mark.parametrize('k', [-1, 0, 5, np.int64(5)])
  def test_k_out_of_range(self, k):
    with pytest.raises(ValueError, match=rf'k: expected 1 <= k <= n = 4, got {k}\.'):
      groups.check_k(k, 4)

  def test_k_equal_to_n_where_undefined(self):
    with pytest.raises(ValueError, match=r'k: .*expected k < n = 4, got 4\.'):
      groups.check_k(4, 4, below_n=True)

  @pytest.mark.parametrize('k', [1.0, '2', None, True, np.float32(2)])
  def test_k_that_is_no_integer(self, k):
    with pytest.raises(TypeError, match='k: expected an integer'):
      groups.check_k(k, 4)

  @pytest.mark.parametrize('k', [jnp.float32(2), jnp.array([2])])
  def test_k_array_that_is_no_integer_scalar(self, k):
    with pytest.raises(TypeError, match='k: expected an integer scalar'):
      groups.check_k(k, 4)


@pytest.mark.parametrize('dtype', [np.int32, np.uint8, bool])
def test_integer_masks_are_those_of_bools(dtype):
  mask = np.array([1, 0, 1, 1])
  group = groups.as_group(np.arange(4.0), mask.astype(dtype))
  assert group.where.dtype == bool and group.num_valid == 3
  np.testing.assert_array_equal(group.where, mask == 1)
  traced = jax.jit(lambda where: groups.as_group(jnp.arange(4.0), where).where)
  np.testing.assert_array_equal(traced(mask.astype(dtype)), mask == 1)


class TestByGroup:
  IDS = ['b', 'a', 'b', 'c', 'a', 'b', 'd', 'a']
  REWARDS = np.array([1, 0, 0, 1, 2, 5, 3, 1], np.float32)

  def expected(self, fn, where, **kwargs):
    """Returns fn of each group by itself, the samples that do not count left out."""
    advantages = np.zeros(len(self.IDS))
    for each in set(self.IDS):
      rows = np.flatnonzero((np.array(self.IDS) == each) & where)
      if len(rows):
        advantages[rows] = fn(self.REWARDS[rows], **kwargs)
    return advantages

  @pytest.mark.parametrize('masked', [False, True])
  @pytest.mark.parametrize('name', ['reinforce', 'mean_centered', 'grpo', 'rs_grpo'])
  def test_equals_a_call_per_group(self, name, masked):
    where = np.arange(len(self.IDS)) != 5 if masked else np.ones(len(self.IDS), bool)
    actual = by_group(self.REWARDS, self.IDS, ADVANTAGES[name], where=where if masked else None)
    np.testing.assert_allclose(actual, self.expected(ADVANTAGES[name], where), rtol=1e-6, atol=1e-6)
    assert isinstance(actual, jax.Array) and actual.shape == self.REWARDS.shape

  def test_arguments_reach_the_advantage(self):
    """Groups of fewer than k samples get 0."""
    ids = [{'c': 'a', 'd': 'b'}.get(each, each) for each in self.IDS]  # Two groups of four.
    actual = by_group(self.REWARDS, ids, pkpo, k=3)
    for each in 'ab':
      rows = np.array(ids) == each
      np.testing.assert_allclose(actual[rows], pkpo(self.REWARDS[rows], k=3), rtol=1e-6)
    alone = by_group(self.REWARDS, self.IDS, pkpo, k=3)
    np.testing.assert_array_equal(np.asarray(alone)[[3, 6]], 0)
    assert np.all(np.asarray(alone)[[0, 2, 5]] != 0)

  @pytest.mark.parametrize('wrap', [list, np.array, jnp.array])
  def test_kinds_of_ids(self, wrap):
    numbers = [7, 3, 7, 1, 3, 7, 0, 3]
    expected = by_group(self.REWARDS, self.IDS, rloo)
    np.testing.assert_array_equal(by_group(self.REWARDS, wrap(numbers), rloo), expected)
    pairs = [('text', number) for number in numbers]
    np.testing.assert_array_equal(by_group(self.REWARDS, pairs, rloo), expected)

  @pytest.mark.parametrize('name', sorted(ADVANTAGES))
  def test_every_advantage_is_taken(self, name):
    """Ragged groups that hold k samples each equal a call per group, arguments of its own too."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(3), [6, 4, 5]))
    rewards = suited(name, rng.normal(size=15)).astype(np.float32)
    first_come = list(dict.fromkeys(ids.tolist()))
    sizes = [np.sum(ids == each) for each in first_come]
    padded = np.zeros((3, 6), np.float32)
    extra = extra_arguments(name, padded, neutral=True)
    actual = by_group(rewards, ids, ADVANTAGES[name], k=2, **extra)
    exists = np.arange(6) < np.array(sizes)[:, None]
    padded[exists] = np.concatenate([rewards[ids == each] for each in first_come])
    expected = np.zeros(15, np.float32)
    by_rows = np.asarray(ADVANTAGES[name](padded, k=2, where=exists, **extra))
    for row, each in enumerate(first_come):
      expected[ids == each] = by_rows[row, : sizes[row]]
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert np.any(expected != 0)

  def test_an_estimator_returns_one_number_a_group(self):
    """In the order in which the ids first come."""
    actual = by_group(self.REWARDS, self.IDS, max_at_k, k=1)
    np.testing.assert_allclose(actual, [2, 1, 1, 3])
    pairs = by_group(self.REWARDS, self.IDS, max_at_k, k=2)
    np.testing.assert_allclose(
      pairs[:2], [max_at_k(g, 2) for g in np.array([[1, 0, 5], [0, 2, 1]])]
    )
    np.testing.assert_array_equal(pairs[2:], 0)

  def test_a_function_of_another_shape_is_refused(self):
    with pytest.raises(FieldError, match=r'fn: expected it to return \(4, 3\) or \(4,\), got \(\)'):
      by_group(self.REWARDS, self.IDS, lambda rewards, where: jnp.sum(rewards))

  def test_sorted_groups_of_one_size_are_a_reshape(self):
    rewards = np.random.default_rng(0).normal(size=12).astype(np.float32)
    expected = rloo(rewards.reshape(3, 4)).ravel()
    np.testing.assert_array_equal(by_group(rewards, np.repeat(np.arange(3), 4), rloo), expected)
    assert not np.allclose(rloo(rewards), expected)  # What flat rewards alone would give.


@pytest.mark.parametrize('make', [jax.random.key, jax.random.PRNGKey])
def test_typed_and_raw_keys_are_taken(make):
  advantages = passk_bootstrap(np.array([0.0, 1.0, 0.0, 2.0]), k=2, key=make(0))
  assert np.any(advantages != 0)


def test_rewards_outside_a_domain():
  """Known ones raise, traced ones give False for their group; NaN and what is masked pass."""
  require = lambda rewards, where=None: groups.require_rewards(
    groups.as_group(rewards, where), lambda rewards: rewards >= 0, 'numbers >= 0'
  )
  rewards = np.array([[1.0, -0.5], [0.0, 2.0], [np.nan, 1.0]])
  with pytest.raises(FieldError, match=r'^rewards: expected numbers >= 0, got -0\.5\.'):
    require(rewards)
  np.testing.assert_array_equal(jax.jit(require)(rewards)[:, 0], [False, True, True])
  np.testing.assert_array_equal(require(rewards, rewards != -0.5)[:, 0], True)


@pytest.mark.parametrize('k', [1, np.int32(3), np.uint8(4)])
def test_integer_k_is_accepted(k):
  assert groups.check_k(k, 4) == int(k)
  assert groups.check_k(k, 4).dtype == jnp.int32


@pytest.mark.parametrize('name', ['tzsm', 'pkpo_loo_minus_one', 'grpo', 'rloo'])
def test_rewards_made_in_the_same_program_are_read_once(name):
  """Else XLA may round a reward differently for each of its readers: best != maximum."""

  def advantages(key):
    x = 0.2 + 0.1 * jax.random.normal(key, (2_000, 16))
    rewards = jnp.where((x >= 0) & (x <= 1), x**2, 0)
    return ADVANTAGES[name](rewards.reshape(-1, 4), k=4).reshape(x.shape) * (x - 0.2)

  key = jax.random.key(1)
  np.testing.assert_allclose(jax.jit(advantages)(key), advantages(key), rtol=1e-4, atol=1e-6)


def test_a_call_outside_of_jit_compiles_few_programs():
  """What the kernels share is jitted; operation by operation there were dozens for a new shape."""
  compilations = []

  def count(name, seconds, **_):
    if name.endswith('backend_compile_duration'):
      compilations.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(count)
  try:
    rewards = np.arange(3 * 23, dtype=np.float32).reshape(3, 23)
    pkpo_loo_minus_one(rewards, k=4, where=rewards > 5)
  finally:
    jax.monitoring.unregister_event_duration_listener(count)
  assert 0 < len(compilations) <= 20

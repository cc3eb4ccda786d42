"""Groups: ranks and order statistics on both ranking paths, masks, checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from advantage_cases import LARGE_N

from pkpo_jax import ADVANTAGES, groups

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

  @pytest.mark.parametrize('dtype', [np.int32, np.float32])
  def test_mask_of_another_dtype(self, dtype):
    with pytest.raises(TypeError, match='where: expected dtype bool'):
      groups.as_group(np.zeros((2, 3)), np.ones((2, 3), dtype))

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

  def test_negative_rewards_where_refused(self):
    with pytest.raises(ValueError, match=r'rewards: expected values >= 0, got -1\.0'):
      groups.require_nonnegative(groups.as_group(np.array([1.0, -1.0])))


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

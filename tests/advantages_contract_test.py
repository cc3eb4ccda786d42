"""The contract: what every entry of ADVANTAGES promises, whatever its formula."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from advantage_cases import (
  BELOW_N,
  LARGE_N,
  NEEDS_OTHERS,
  USES_K,
  allowed_ks,
  bind,
  bind_compiled,
  compiled,
  extra_arguments,
  num_traces,
  suited,
)

from pkpo_jax import ADVANTAGES, FROM_ROLLOUT, REQUIREMENTS
from pkpo_jax.errors import FieldError

N, K = 6, 3
NAMES = sorted(ADVANTAGES)
# Depend on the places of samples, not on rewards alone: sets of neighbors, sets drawn by place.
BY_PLACE = {'passk_full_sampling', 'passk_bootstrap'}
# Groups that are not independent of each other: one draw for all, a rank among all prompts.
ACROSS_GROUPS = {'passk_bootstrap', 'passk_adaptive'}
# Take a number of each sample, which tells it from its tie.
BY_SAMPLE = {'max_at_k_off_policy', 'pkpo_weighted_loo', 'maj_at_k'}
HAVE_THRESHOLD = {'passk_exceeding', 'passk_combination', 'f_grpo', 'maj_at_k'}

# What is added to A when 1 is added to all rewards (and to the threshold); binary
# rewards cannot be moved.
SHIFT = dict.fromkeys(
  [name for name in NAMES if REQUIREMENTS[name].rewards != 'binary'], lambda n, k: 0
)
SHIFT |= {
  'pkpo': lambda n, k: k,
  'max_at_k_off_policy': lambda n, k: k,
  'pkpo_loo': lambda n, k: 0 if k == 1 else -k / (n - 1),
  'reinforce': lambda n, k: 1,
}
# A(a r) = a^degree A(r) for a > 0; rs_grpo has it with beta / a.
DEGREE_0 = {'passk_analytical', 'passk_bootstrap', 'passk_full_sampling', 'grpo'}
DEGREE_0 |= {'passk_adaptive'} | HAVE_THRESHOLD
BINARY = {name for name in NAMES if REQUIREMENTS[name].rewards == 'binary'}
# Give exactly 0 to equal rewards; the others have no baseline, or the paper's, which leaves a rest.
ZERO_WITHOUT_SIGNAL = set(NAMES) - {'pkpo', 'pkpo_loo', 'reinforce', 'max_at_k_off_policy'}

every_advantage = pytest.mark.parametrize('name', NAMES)


@pytest.fixture
def rewards(request):
  """`[4, N]`: distinct, tied, binary and equal rewards, none negative, multiples of 1/8.

  In a test of one advantage they are made binary where it needs that.
  """
  rows = [[1.5, 0.25, 3, 2.125, 0.5, 4], [2, 1, 2, 0, 1, 2], [0, 1, 0, 0, 1, 0], [0.5] * N]
  name = request.node.callspec.params.get('name') if hasattr(request.node, 'callspec') else None
  rewards = np.array(rows, np.float32)
  return rewards if name is None else suited(name, rewards)


@pytest.fixture
def where(rewards):
  mask = np.ones(rewards.shape, bool)
  mask[0, 1], mask[1, :3], mask[3] = False, False, False
  return mask


@every_advantage
def test_shape_dtype_finite(name, rewards):
  for shape in ((N,), (2, 2, N)):
    some = rewards.ravel()[: np.prod(shape)].reshape(shape)
    fn = bind_compiled(name, some)
    for scale in (1, 1e30, 1e-30):
      advantages = fn(suited(name, np.float32(scale) * some), K)
      assert isinstance(advantages, jax.Array)
      assert advantages.shape == shape
      assert advantages.dtype == jnp.float32
      assert np.all(np.isfinite(advantages))


@every_advantage
@pytest.mark.parametrize('dtype', ['bool', 'int8', 'int32', 'float16', 'bfloat16', 'float64'])
def test_other_dtypes_are_promoted(name, dtype, rewards):
  """Integers are not truncated to zeros and half precision is not reduced in."""
  if dtype == 'float64':
    given = rewards.astype(np.float64)
  else:
    given = jnp.asarray(rewards).astype(dtype)
  fn = bind(name, rewards)
  advantages = fn(given, K)
  assert advantages.dtype == jnp.float32
  np.testing.assert_array_equal(advantages, fn(np.asarray(given, np.float32), K))


@every_advantage
def test_masked_samples_get_zero_and_have_no_say(name, rewards, where):
  fn = bind(name, rewards)
  advantages = np.asarray(fn(rewards, K, where))
  assert np.all(advantages[~where] == 0)
  if name not in ZERO_WITHOUT_SIGNAL:
    assert np.all(advantages[0, where[0]] != 0)
  for junk in (np.nan, np.inf, -np.inf, -7, 1e30):
    np.testing.assert_array_equal(fn(np.where(where, rewards, junk), K, where), advantages)


@pytest.mark.parametrize('name', sorted(BY_SAMPLE))
def test_masked_extra_arguments_have_no_say(name, rewards, where):
  ((argument, values),) = extra_arguments(name, rewards).items()
  values = np.asarray(values)
  fn = functools.partial(ADVANTAGES[name], rewards, k=K, where=where)
  junk = np.nan if values.dtype.kind == 'f' else 0
  poisoned = np.where(where, values, junk)
  np.testing.assert_array_equal(fn(**{argument: poisoned}), fn(**{argument: values}))


@every_advantage
def test_mask_of_ones_changes_nothing(name, rewards):
  fn = bind(name, rewards)
  expected = fn(rewards, K)
  actual = fn(rewards, K, np.ones_like(rewards, bool))
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', sorted(set(NAMES) - BY_PLACE))
def test_permuting_samples_permutes_advantages(name, rewards):
  order = np.array([3, 0, 5, 1, 4, 2])
  extra = extra_arguments(name, rewards)
  moved = {key: x[:, order] if name in BY_SAMPLE else x for key, x in extra.items()}
  expected = ADVANTAGES[name](rewards, k=K, **extra)[:, order]
  actual = ADVANTAGES[name](rewards[:, order], k=K, **moved)
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', sorted(set(NAMES) - BY_PLACE - BY_SAMPLE))
@pytest.mark.parametrize('n', [N, 40, LARGE_N])
def test_equal_rewards_get_bitwise_equal_advantages(name, n):
  rewards = suited(name, np.random.default_rng(0).integers(0, 5, (4, n)).astype(np.float32) / 3)
  fn = bind_compiled(name, rewards)
  for k in (1, K, n - 1):
    advantages = np.asarray(fn(rewards, k))
    for g, a in zip(rewards, advantages, strict=True):
      assert len(np.unique(a)) <= len(np.unique(g))
      assert all(len(np.unique(a[g == value])) == 1 for value in g)


@pytest.mark.parametrize('name', sorted(ZERO_WITHOUT_SIGNAL))
def test_equal_rewards_give_exactly_zero(name):
  for value in (0.1, 0.0, 1e30, 16777217):
    rewards = suited(name, np.full((4, N), value, np.float32))
    for k in allowed_ks(name, N):
      np.testing.assert_array_equal(bind_compiled(name, rewards, neutral=True)(rewards, k), 0)


@pytest.mark.parametrize('name', sorted(SHIFT))
def test_shift_of_rewards(name, rewards):
  extra = extra_arguments(name, rewards, neutral=True)
  shift = 5.0
  threshold = {'success_threshold': 1.0 + shift} if name in HAVE_THRESHOLD else {}
  for k in allowed_ks(name, N):
    expected = compiled(name)(rewards, k, None, extra) + shift * SHIFT[name](N, k)
    actual = ADVANTAGES[name](rewards + shift, k=jnp.int32(k), **extra, **threshold)
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6, err_msg=f'k={k}')


@pytest.mark.parametrize('name', sorted(set(NAMES) - BINARY))
def test_scale_of_rewards(name, rewards):
  extra = extra_arguments(name, rewards)
  scale = 4.0
  moved = {'success_threshold': scale} if name in HAVE_THRESHOLD else {}
  moved |= {'beta': 2.0 / scale} if name == 'rs_grpo' else {}
  for k in allowed_ks(name, N):
    expected = compiled(name)(rewards, k, None, extra)
    expected = expected * (1 if name in DEGREE_0 else scale)
    actual = ADVANTAGES[name](scale * rewards, k=jnp.int32(k), **extra, **moved)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6, err_msg=f'k={k}')


@every_advantage
def test_k_never_retraces(name, rewards):
  """One trace serves every k, in and out of range; where k is not allowed the result is 0."""
  extra, before = extra_arguments(name, rewards), num_traces[name]
  traced = bind_compiled(name, rewards)
  for k in range(1, N + 1):
    advantages = traced(rewards, jnp.int32(k))
    if k in allowed_ks(name, N):
      expected = ADVANTAGES[name](rewards, k=k, **extra)
      np.testing.assert_allclose(advantages, expected, rtol=1e-6, atol=1e-6)
    else:
      np.testing.assert_array_equal(advantages, 0)
  if name in USES_K:
    for k in (-(2**31), -1, 0, N + 1, 2**31 - 1):
      np.testing.assert_array_equal(traced(rewards, jnp.int32(k)), 0)
  assert num_traces[name] <= before + 1, 'other tests may have traced it for this shape'


@pytest.mark.parametrize('name', sorted(USES_K))
def test_known_k_out_of_range_raises(name, rewards):
  fn = bind(name, rewards)
  for k in (-1, 0, N + 1):
    with pytest.raises(ValueError, match=rf'k: expected 1 <= k <= n = {N}, got {k}\.'):
      fn(rewards, k)
  if name in BELOW_N:
    with pytest.raises(ValueError, match=rf'k: .*expected k < n = {N}, got {N}\.'):
      fn(rewards, N)
  with pytest.raises(TypeError, match='k'):
    fn(rewards, 2.0)


@pytest.mark.parametrize('name', sorted(USES_K))
def test_groups_with_too_few_samples_get_zero(name, rewards):
  """And do not touch the groups beside them."""
  where = np.arange(N) < np.array([[N], [2], [0], [1]])
  fn = bind(name, rewards, neutral=True)
  advantages = np.asarray(fn(rewards, 3, where))
  np.testing.assert_array_equal(advantages[1:], 0)
  assert np.any(advantages[0] != 0)


@every_advantage
def test_no_gradient_flows(name, rewards):
  extra = extra_arguments(name, rewards)
  fixed = {x: extra.pop(x) for x in ('key', 'answers') if x in extra}

  def total(inputs):
    advantages = ADVANTAGES[name](inputs['rewards'], k=K, **inputs['extra'], **fixed)
    return jnp.sum(advantages * jnp.arange(1, N + 1))

  gradients = jax.grad(total)({'rewards': jnp.asarray(rewards), 'extra': extra})
  for gradient in jax.tree.leaves(gradients):
    np.testing.assert_array_equal(gradient, 0)


@every_advantage
def test_vmap_equals_one_call_at_a_time(name, rewards):
  stacked = np.stack([rewards, rewards[::-1], rewards[:, ::-1]])
  fn = bind(name, rewards)
  actual = jax.vmap(lambda r: fn(r, jnp.int32(K)))(stacked)
  expected = [fn(r, K) for r in stacked]
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', sorted(set(NAMES) - ACROSS_GROUPS))
def test_groups_do_not_touch_each_other(name, rewards):
  extra = extra_arguments(name, rewards)
  together = ADVANTAGES[name](rewards, k=K, **extra)
  for row, g in enumerate(rewards):
    own = {key: x[row] for key, x in extra.items()}
    alone = compiled(name)(g, K, None, own)
    np.testing.assert_allclose(together[row], alone, rtol=1e-6, atol=1e-6)


@every_advantage
def test_integer_masks_are_those_of_bools(name, rewards, where):
  fn = bind(name, rewards)
  np.testing.assert_array_equal(fn(rewards, K, where.astype(np.int32)), fn(rewards, K, where))


@every_advantage
def test_a_reward_that_is_not_finite_makes_its_group_nan(name, rewards):
  """And leaves the others alone; a mask leaves the sample out, as if it had not been drawn."""
  fn = bind(name, rewards)
  expected = np.asarray(fn(rewards, K))
  for call in (fn, bind_compiled(name, rewards)):
    for junk in (np.nan, np.inf, -np.inf):
      given = rewards.copy()
      given[1, 2] = junk
      advantages = np.asarray(call(given, K))
      assert np.all(np.isnan(advantages[1]))
      np.testing.assert_allclose(np.delete(advantages, 1, 0), np.delete(expected, 1, 0), rtol=1e-5)
      exists = np.isfinite(given)
      masked = call(given, K, exists)
      np.testing.assert_array_equal(masked, call(np.where(exists, given, 0), K, exists))
      assert np.all(np.isfinite(masked)) and masked[1, 2] == 0


# Rewards that are refused, by domain.
OUTSIDE = {'any': (), 'nonnegative': (-1.0, -1e-30), 'binary': (-1.0, 1.001, 0.5)}


@every_advantage
def test_rewards_obey_the_requirement(name, rewards):
  """Outside of the domain known rewards raise; traced ones give exactly 0, to their group alone."""
  fn = bind(name, rewards)
  outside = OUTSIDE[REQUIREMENTS[name].rewards]
  for value in outside:
    given = rewards.copy()
    given[1, 2] = value
    with pytest.raises(FieldError, match=rf'^rewards: expected .*, got {value}\.$') as raised:
      fn(given, K)
    assert raised.value.field == 'rewards'
    advantages = np.asarray(bind_compiled(name, rewards)(given, K))
    np.testing.assert_array_equal(advantages[1], 0)
    expected = np.asarray(fn(rewards, K))
    np.testing.assert_allclose(np.delete(advantages, 1, 0), np.delete(expected, 1, 0), rtol=1e-5)
    assert np.any(expected[0] != 0)
  if not outside:
    assert np.any(fn(rewards - 2.25, K)[0] != 0)


@every_advantage
def test_samples_obey_the_requirement(name):
  """With fewer samples nothing is learned for any k and rewards; with as many something is."""
  fewest = REQUIREMENTS[name].min_samples

  def learns(n):
    rows = [[0, 1], [1, 0], [1, 1], [0, 0]] * 8  # So many that any draw of sets has signal.
    rewards = np.array([row[:n] for row in rows], np.float32)
    fn = bind(name, rewards)
    advantages = []
    for k in range(1, n + 1):
      try:
        advantages.append(fn(rewards, k))
      except FieldError:
        assert n < 2 or k == n, 'undefined'
    return bool(np.any(np.array(advantages) != 0))

  assert fewest in (1, 2)
  assert learns(2)
  assert learns(1) == (fewest == 1)


def test_requirements_are_those_of_all_advantages():
  assert REQUIREMENTS.keys() == ADVANTAGES.keys()


def test_a_name_that_is_none_lists_the_names():
  with pytest.raises(KeyError, match='expected one of .*grpo.*tzsm.* got .typo.'):
    ADVANTAGES['typo']


@every_advantage
def test_options_have_defaults(name):
  """All but what is worked out from the rollout."""
  needed = {
    field
    for field, parameter in inspect.signature(ADVANTAGES[name]).parameters.items()
    if parameter.default is parameter.empty
  }
  assert needed <= {'rewards', 'k'} | FROM_ROLLOUT


@every_advantage
def test_one_sample_a_group(name):
  """n = 1: refused if nothing is left to compare with, else the reward without a baseline, or 0."""
  rewards = suited(name, np.array([[2.0], [3.0], [2.0], [3.0]], np.float32))
  fn = bind(name, rewards, neutral=True)
  for k in (1, jnp.int32(1)):
    if name in NEEDS_OTHERS:
      with pytest.raises(ValueError, match='needs n >= 2 samples, got n = 1'):
        fn(rewards, k)
    else:
      expected = 0 if name in ZERO_WITHOUT_SIGNAL else rewards
      np.testing.assert_array_equal(fn(rewards, k), np.broadcast_to(expected, rewards.shape))


class TestMalformedInput:
  pytestmark = pytest.mark.usefixtures('no_type_checker')

  @every_advantage
  def test_mask(self, name, rewards):
    fn = bind(name, rewards)
    with pytest.raises(ValueError, match='where: expected the shape of rewards'):
      fn(rewards, K, np.ones((4, N - 1), bool))
    with pytest.raises(ValueError, match='where: expected the shape of rewards'):
      fn(rewards, K, np.ones(N, bool))
    with pytest.raises(TypeError, match='where: expected dtype bool, or integers 0 and 1, got fl'):
      fn(rewards, K, np.ones((4, N), np.float32))
    with pytest.raises(ValueError, match='where: expected True and False, or 1 and 0'):
      fn(rewards, K, np.full((4, N), 2))

  @every_advantage
  def test_rewards(self, name):
    with pytest.raises(ValueError, match=r'rewards: expected shape \[\.\.\., n\]'):
      bind(name, np.zeros((4, 1)))(np.zeros((4, 0), np.float32), 1)

  @every_advantage
  def test_ragged_rewards(self, name):
    with pytest.raises(TypeError, match='rewards: .*`where`, or `by_group` for flat rewards'):
      bind(name, np.zeros((2, 2)))([[0.0, 1.0], [1.0]], 1)

  def test_extra_arguments(self, rewards):
    with pytest.raises(ValueError, match=r'ratios: expected the shape of rewards \(4, 6\)'):
      ADVANTAGES['max_at_k_off_policy'](rewards, k=K, ratios=np.ones(N, np.float32))
    with pytest.raises(ValueError, match=r'entropy: expected one value a prompt, shape \(4,\)'):
      ADVANTAGES['passk_adaptive'](rewards, k=K, entropy=np.ones(3, np.float32))
    with pytest.raises(ValueError, match='num_groups: expected at least 1, got 0'):
      ADVANTAGES['passk_bootstrap'](rewards, k=K, key=jax.random.key(0), num_groups=0)
    with pytest.raises(ValueError, match='beta: expected a number other than 0'):
      ADVANTAGES['rs_grpo'](rewards, beta=0)

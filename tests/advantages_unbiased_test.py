"""Expected policy gradients, exactly: every outcome of a small softmax policy with its chance.

The policy draws n arms; an estimate is (1/n) sum_i A_i grad log p(x_i). Its expectation is compared
with the gradient of max@k under the categorical policy, sum_a g_(a) (F_a^k - F_{a-1}^k) with F the
cumulative probability of the arms in ascending order of reward, differentiated by hand.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from advantage_cases import BELOW_N

from pkpo_jax import ADVANTAGES, max_at_k_off_policy, rs_grpo, schedules
from pkpo_jax.tally import empty_tally

LOGITS = np.array([0.3, -0.5, 0.8, 0.1])
# Arms 1 and 3 tie; both signs; multiples of 1/64.
ARM_REWARDS = np.array([0.5, -0.75, 1.25, -0.75])
NONNEGATIVE_ARM_REWARDS = np.array([0.5, 0.0, 1.25, 0.5])
BINARY_ARM_REWARDS = np.array([0.0, 1.0, 0.0, 1.0])
ATOL = 2e-6
UNBIASED = ['pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered']


def softmax(logits):
  p = np.exp(logits - logits.max())
  return p / p.sum()


def outcomes_of(n):
  """Returns `[A^n, n]`: all ways in which n draws can fall on the A arms."""
  return np.array(list(itertools.product(range(len(LOGITS)), repeat=n)))


def expected_gradient(advantages, outcomes, logits=LOGITS, sampled_from=None):
  """Returns the expectation of (1/n) sum_i A_i grad log p(x_i), in float64.

  Args:
    advantages: `[B, n]`, one row an outcome.
    outcomes: `[B, n]` arms.
    logits: of the policy p whose gradient is taken.
    sampled_from: logits of the policy that draws; None means p.
  """
  p = softmax(logits)
  chances = softmax(logits if sampled_from is None else sampled_from)[outcomes].prod(axis=1)
  scores = np.eye(len(p))[outcomes] - p
  estimates = np.einsum('bi,bia->ba', np.asarray(advantages, np.float64), scores)
  return chances @ estimates / outcomes.shape[1]


def gradient_of_max_at_k(k, arm_rewards, logits=LOGITS):
  """Returns d max@k / d logits."""
  p, gradient = softmax(logits), np.zeros(len(logits))
  for reward in arm_rewards:
    # Arms of equal reward share one step of the distribution: spread it evenly over them.
    share = 1 / np.sum(arm_rewards == reward)
    below, up_to = arm_rewards < reward, arm_rewards <= reward
    for arms, sign in ((up_to, 1), (below, -1)):
      chance = p[arms].sum()
      gradient += sign * share * reward * k * chance ** (k - 1) * p * (arms - chance)
  return gradient


def value_of_max_at_k(k, arm_rewards, logits):
  outcomes = outcomes_of(k)
  return softmax(logits)[outcomes].prod(axis=1) @ arm_rewards[outcomes].max(axis=1)


@pytest.mark.parametrize('arm_rewards', [ARM_REWARDS, BINARY_ARM_REWARDS])
@pytest.mark.parametrize('k', [1, 2, 5])
def test_gradient_by_hand_is_the_slope_of_the_enumerated_objective(k, arm_rewards):
  step = 1e-5
  slopes = [
    value_of_max_at_k(k, arm_rewards, LOGITS + step * e)
    - value_of_max_at_k(k, arm_rewards, LOGITS - step * e)
    for e in np.eye(len(LOGITS))
  ]
  np.testing.assert_allclose(
    gradient_of_max_at_k(k, arm_rewards), np.array(slopes) / (2 * step), atol=1e-9
  )


@pytest.mark.parametrize('n', [2, 3, 5])
@pytest.mark.parametrize('name', UNBIASED)
def test_pkpo_is_unbiased_for_max_at_k(name, n):
  outcomes = outcomes_of(n)
  advantages = jax.jit(lambda rewards, k: ADVANTAGES[name](rewards, k=k))
  for arm_rewards in (ARM_REWARDS, BINARY_ARM_REWARDS):
    for k in range(1, n if name in BELOW_N else n + 1):
      actual = expected_gradient(advantages(arm_rewards[outcomes], jnp.int32(k)), outcomes)
      expected = gradient_of_max_at_k(k, arm_rewards)
      assert np.linalg.norm(expected) > 1e3 * ATOL
      np.testing.assert_allclose(actual, expected, atol=ATOL, err_msg=f'k={k}')


@pytest.mark.parametrize('n', [2, 4])
@pytest.mark.parametrize(
  'name, objective_k, factor',
  [
    ('reinforce', lambda n: 1, lambda n: 1),
    ('rloo', lambda n: 1, lambda n: 1),
    ('mean_centered', lambda n: 1, lambda n: 1 - 1 / n),
    ('tzsm', lambda n: n, lambda n: 1),
  ],
)
def test_relatives_have_their_stated_expectation(name, objective_k, factor, n):
  outcomes = outcomes_of(n)
  actual = expected_gradient(ADVANTAGES[name](ARM_REWARDS[outcomes], k=2), outcomes)
  expected = factor(n) * gradient_of_max_at_k(objective_k(n), ARM_REWARDS)
  np.testing.assert_allclose(actual, expected, atol=ATOL)


@pytest.mark.parametrize('n', [1, 2, 4])
@pytest.mark.parametrize(
  'name, arm_rewards',
  [
    ('maxrl', BINARY_ARM_REWARDS),
    ('tailrl', BINARY_ARM_REWARDS),
    ('tailrl', NONNEGATIVE_ARM_REWARDS),
  ],
)
def test_maxrl_and_tailrl_climb_the_harmonic_sum_of_max_at_k(name, arm_rewards, n):
  """Their objective is the sum over j = 1..n-1 of max@j / j."""
  outcomes = outcomes_of(n)
  actual = expected_gradient(ADVANTAGES[name](arm_rewards[outcomes]), outcomes)
  terms = [gradient_of_max_at_k(j, arm_rewards) / j for j in range(1, n)]
  np.testing.assert_allclose(actual, np.sum([np.zeros(4), *terms], axis=0), atol=ATOL)


@pytest.mark.parametrize('arm_rewards', [ARM_REWARDS, BINARY_ARM_REWARDS])
def test_analytical_times_sigma_is_shrunk_max_at_k(arm_rewards):
  """Without the division by sigma the expected gradient is (1/k)(1 - k/n) grad max@k."""
  n = 4
  outcomes = outcomes_of(n)
  rewards = arm_rewards[outcomes]
  for k in range(1, n + 1):
    sigma = np.array([[oracles.std_of_max(list(g), k)] for g in rewards])
    advantages = sigma * np.asarray(ADVANTAGES['passk_analytical'](rewards, k=jnp.int32(k)))
    expected = (1 / k) * (1 - k / n) * gradient_of_max_at_k(k, arm_rewards)
    np.testing.assert_allclose(expected_gradient(advantages, outcomes), expected, atol=ATOL)


def test_rs_grpo_is_the_gradient_of_the_risk_seeking_objective():
  """On samples in exact proportion to p it is grad (1/beta) log E[exp(beta r)].

  For finitely many draws it is biased without a closed form (a ratio of averages); a group that
  holds every arm as often as expected is the limit of many draws.
  """
  counts, beta = np.array([3, 5, 10, 2]), 1.5
  p = counts / counts.sum()
  samples = np.repeat(np.arange(4), counts)
  advantages = np.asarray(rs_grpo(ARM_REWARDS[samples], beta=beta), np.float64)
  actual = advantages @ (np.eye(4)[samples] - p) / len(samples)
  risk = np.exp(beta * ARM_REWARDS)
  np.testing.assert_allclose(actual, p * (risk / (p @ risk) - 1) / beta, atol=ATOL)


class TestKByPassRate:
  """A step chooses k by the samples of the step before it; all outcomes of both are gone through.

  Each outcome of the first step is a problem of its own in the tally, so that one call gives the k
  that follows from each.
  """

  N = 3
  IS_RIGHT = BINARY_ARM_REWARDS
  LATER_LOGITS = LOGITS + np.array([0.5, -0.2, 0.1, -0.4])  # After the update of the first step.

  def chosen_ks(self):
    """Returns `[A^N]` the k after each outcome of a step."""
    schedule, outcomes = schedules.by_pass_rate(self.N), outcomes_of(self.N)
    ids = np.arange(len(outcomes))
    tally = empty_tally(len(ids), 1, 0, schedule.memory)
    assert schedule(0, tally.pass_rates(ids)).tolist() == [self.N] * len(ids), 'nothing was seen'
    tally = tally.add(0, ids, self.IS_RIGHT[outcomes], None, [])
    return schedule(1, tally.pass_rates(ids))

  @pytest.mark.parametrize('name', ['pkpo', 'pkpo_loo_minus_one'])
  def test_unbiased_for_the_k_that_the_step_before_gave(self, name):
    ks, outcomes = self.chosen_ks(), outcomes_of(self.N)
    assert set(ks.tolist()) == {1, 2, 3}
    rewards = np.broadcast_to(self.IS_RIGHT[outcomes], (len(ks), *outcomes.shape))
    each_k = jnp.broadcast_to(ks[:, None], rewards.shape[:2])
    advantages = ADVANTAGES[name](rewards, k=each_k)
    found = [expected_gradient(a, outcomes, self.LATER_LOGITS) for a in advantages]
    expected = [gradient_of_max_at_k(int(k), self.IS_RIGHT, self.LATER_LOGITS) for k in ks]
    np.testing.assert_allclose(found, expected, atol=ATOL)
    chances = softmax(LOGITS)[outcomes].prod(axis=1)
    np.testing.assert_allclose(chances @ found, chances @ expected, atol=ATOL)

  def test_a_k_of_the_same_samples_is_biased(self):
    """What it climbs is not the mean of the gradients of the ks that it takes."""
    ks, outcomes = self.chosen_ks(), outcomes_of(self.N)
    advantages = ADVANTAGES['pkpo_loo_minus_one'](self.IS_RIGHT[outcomes], k=ks)
    found = expected_gradient(advantages, outcomes)
    chances = softmax(LOGITS)[outcomes].prod(axis=1)
    meant = chances @ [gradient_of_max_at_k(int(k), self.IS_RIGHT) for k in ks]
    assert np.linalg.norm(found - meant) > 1e3 * ATOL


class TestTraps:
  """Tempting changes to the estimators, and what they would do; shown on the oracles."""

  N = 4

  def expectation(self, advantages_of_group, arm_rewards=ARM_REWARDS):
    outcomes = outcomes_of(self.N)
    advantages = [advantages_of_group(list(arm_rewards[x])) for x in outcomes]
    return expected_gradient(np.array(advantages, np.float64), outcomes)

  @pytest.mark.parametrize('k', [1, 2, 3, 4])
  def test_centered_without_factor_shrinks_the_gradient(self, k):
    actual = self.expectation(lambda g: oracles.mean_centered(oracles.pkpo(g, k)))
    expected = (1 - k / self.N) * gradient_of_max_at_k(k, ARM_REWARDS)
    np.testing.assert_allclose(actual, expected, atol=1e-12)

  @pytest.mark.parametrize('k', [1, 2, 3])
  def test_plain_leave_one_out_mean_of_s_is_biased(self, k):
    """The others' s_j hold sample i: the gradient shrinks by (n-k)/(n-1), right only at k = 1."""
    actual = self.expectation(lambda g: oracles.rloo(oracles.pkpo(g, k)))
    true_gradient = gradient_of_max_at_k(k, ARM_REWARDS)
    np.testing.assert_allclose(actual, (self.N - k) / (self.N - 1) * true_gradient, atol=1e-12)
    is_biased = np.linalg.norm(actual - true_gradient) > 0.1 * np.linalg.norm(true_gradient)
    assert is_biased == (k > 1)

  @pytest.mark.parametrize('k', [2, 3, 4])
  def test_recentered_loo_minus_one_mixes_two_objectives(self, k):
    """It climbs (1 - k/n) max@k + (k/n) max@(k-1) instead of max@k."""
    loo_minus_one = oracles.pkpo_loo_minus_one
    actual = self.expectation(lambda g: oracles.mean_centered(loo_minus_one(g, k)))
    share = k / self.N
    mixed = (1 - share) * gradient_of_max_at_k(k, ARM_REWARDS)
    mixed += share * gradient_of_max_at_k(k - 1, ARM_REWARDS)
    np.testing.assert_allclose(actual, mixed, atol=1e-12)

  def test_gap_formula_of_loo_minus_one_is_biased_at_k_1(self):
    """sum_{t<i} v_{t+1} D_t at k = 1 is (g_i - min g)/n, and the minimum holds sample i."""
    actual = self.expectation(lambda g: [x - min(g) for x in g])
    true_gradient = gradient_of_max_at_k(1, ARM_REWARDS)
    assert np.linalg.norm(actual - true_gradient) > 0.1 * np.linalg.norm(true_gradient)

  @pytest.mark.parametrize('k', [2, 3])
  def test_z_scored_loo_minus_one_points_elsewhere(self, k):
    actual = self.expectation(lambda g: oracles.grpo(oracles.pkpo_loo_minus_one(g, k)))
    true_gradient = gradient_of_max_at_k(k, ARM_REWARDS)
    cosine = actual @ true_gradient / np.linalg.norm(actual) / np.linalg.norm(true_gradient)
    assert cosine < 0.999


class TestOffPolicy:
  """Samples of an old policy; the gradient of max@k under the new one, first order in the ratio."""

  N = 4
  DIRECTION = np.array([1.0, -0.5, 0.25, -1.25])

  def bias(self, k, step, *, corrected=True):
    outcomes = outcomes_of(self.N)
    new = LOGITS + step * self.DIRECTION
    ratios = (softmax(new) / softmax(LOGITS))[outcomes]
    advantages = max_at_k_off_policy(
      ARM_REWARDS[outcomes].astype(np.float32),
      k=jnp.int32(k),
      ratios=(ratios if corrected else np.ones_like(ratios)).astype(np.float32),
    )
    actual = expected_gradient(advantages, outcomes, new, sampled_from=LOGITS)
    return np.linalg.norm(actual - gradient_of_max_at_k(k, ARM_REWARDS, new))

  @pytest.mark.parametrize('k', [1, 2, 3, 4])
  def test_unbiased_on_policy(self, k):
    assert self.bias(k, 0.0) < ATOL

  def test_exact_at_k_1(self):
    """One ratio a subset: the first order is the whole importance weight."""
    assert self.bias(1, 0.5) < ATOL

  @pytest.mark.parametrize('k', [2, 3, 4])
  def test_bias_falls_with_the_square_of_the_step(self, k):
    """Halving the policies' distance divides the bias by 4, and by 2 without the correction."""
    ratio = self.bias(k, 0.1) / self.bias(k, 0.05)
    uncorrected = self.bias(k, 0.1, corrected=False) / self.bias(k, 0.05, corrected=False)
    assert 3.5 < ratio < 4.5
    assert 1.7 < uncorrected < 2.3

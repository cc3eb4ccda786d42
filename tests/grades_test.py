"""Grades: from verdicts, in pieces, with samples that were not judged; what is made of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from pkpo_jax.advantages import ADVANTAGES
from pkpo_jax.curves import curve, group_metrics
from pkpo_jax.evaluation.statistics import majority_votes
from pkpo_jax.run import make_run
from pkpo_jax.tasks.grades import (
  KINDS,
  Grades,
  Verdict,
  check_finite,
  concatenate,
  grades_of,
  outcomes_of,
)

UNJUDGED = Verdict('unjudged')
# A judge that failed says nothing about the sample: neither a success nor a failure.
EXAMPLE = [Verdict('right', '1'), Verdict('wrong', '2'), UNJUDGED, Verdict('wrong', '3')]


def random_grades(rng, num_prompts=12, num_samples=6):
  """Returns grades with anything at all where a sample was not judged."""
  where = rng.random((num_prompts, num_samples)) < 0.6
  where[0], where[1] = True, False
  rewards = rng.random(where.shape).astype(np.float32)
  successes = (rewards > 0.5).astype(np.float32)
  return Grades(np.where(where, rewards, np.nan), np.where(where, successes, 7), where)


def best_of_k(values, k):
  """Returns the mean of the best over all subsets of size k; NaN if there is none."""
  subsets = list(itertools.combinations(values, k))
  return np.mean([max(subset) for subset in subsets]) if subsets else np.nan


# Grades.


def test_grades_of_verdicts():
  scored = [Verdict('wrong', '2', 0.25), Verdict('right', '1', 1.0), Verdict('empty'), UNJUDGED]
  grades = grades_of([EXAMPLE, scored])
  assert [x.dtype for x in grades[:2]] == [np.float32] * 2
  np.testing.assert_array_equal(grades.where, [[1, 1, 0, 1], [1, 1, 1, 0]])
  assert grades.where.dtype == bool
  judged = np.where(grades.where, grades.rewards, -1)
  np.testing.assert_array_equal(judged, [[1, 0, -1, 0], [0.25, 1, 0, -1]])
  np.testing.assert_array_equal(grades.successes, [[1, 0, 0, 0], [0, 1, 0, 0]])
  assert grades.verdicts == [EXAMPLE, scored]
  # Where all were judged, there is no mask.
  assert grades_of([EXAMPLE[:2], scored[:2]]).where is None


@pytest.mark.parametrize('kind', KINDS)
def test_only_the_judges_failure_is_no_verdict(kind):
  """What a completion does by itself, such as to hang, counts against it."""
  (rewards,), (successes,), where, _ = grades_of([[Verdict(kind), Verdict('right')]])
  assert rewards.tolist() == successes.tolist() == [kind == 'right', 1]
  assert (where is None) == (kind != 'unjudged')


def test_pieces_are_joined():
  whole = [EXAMPLE, [Verdict('wrong', '4')] * 4, [UNJUDGED] * 4, [Verdict('right', '5')] * 4]
  parts = [grades_of(whole[:1]), grades_of(whole[1:2]), grades_of(whole[2:])]
  assert parts[1].where is None
  joined, expected = concatenate(parts), grades_of(whole)
  for values, others in zip(joined[:3], expected[:3], strict=True):
    np.testing.assert_array_equal(values, others)
    assert values.dtype == others.dtype
  assert joined.verdicts == whole


def test_pieces_without_masks_successes_or_verdicts_are_joined():
  """Each of those stays None; rewards may be on the device."""
  joined = concatenate([Grades(jnp.zeros((2, 3))), Grades(jnp.ones((1, 3)))])
  np.testing.assert_array_equal(joined.rewards, [[0] * 3, [0] * 3, [1] * 3])
  assert joined[1:] == (None, None, None)
  right = grades_of([[Verdict('right')] * 2])
  assert concatenate([right, right]).where is None
  assert concatenate([right]) is right


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_rewards_have_to_be_finite_where_a_sample_was_judged(bad):
  rewards = np.zeros((2, 3), np.float32)
  rewards[1, 2] = bad
  where = np.ones((2, 3), bool)
  message = f'rewards: expected finite numbers, got {bad} for sample 2 of prompt 40 at step 9'
  for mask in (None, where, jnp.asarray(where)):
    with pytest.raises(FloatingPointError, match=message):
      check_finite(Grades(rewards, where=mask), np.array([30, 40]), 9)
  where[1, 2] = False
  check_finite(Grades(rewards, where=where), np.array([30, 40]), 9)
  check_finite(Grades(jnp.asarray(rewards), where=jnp.asarray(where)), jnp.array([30, 40]), 9)


# Advantages.


def test_a_judges_failure_leaves_the_group():
  """Not a wrong answer: that would give -1/3 in its place and 2/3 in that of the others."""
  grades = grades_of([EXAMPLE])
  expected = [[1, -0.5, 0, -0.5]]
  advantages = ADVANTAGES['rloo'](grades.rewards, k=1, where=grades.where)
  np.testing.assert_allclose(advantages, expected, atol=1e-7)
  config = default.get_config()
  config.advantage.name, config.advantage.k, config.rollout.num_samples = 'rloo', 1, 4
  advantage_fn = jax.jit(make_run(config).advantage_fn)
  for filler in (0, 1, np.nan):
    rewards = np.where(grades.where, grades.rewards, filler).astype(np.float32)
    found = advantage_fn(None, None, rewards, grades.where, 1, jax.random.key(0))
    np.testing.assert_allclose(found, expected, atol=1e-7)


# Curves and metrics.

KS = (1, 2, 4, 6)


def test_curves_are_those_of_the_judged_samples():
  """NaN for a problem with fewer than k of them."""
  grades = random_grades(np.random.default_rng(0))
  for name, values in outcomes_of(grades, ('pass@k', 'max@k')).items():
    values = values.astype(np.float32)
    expected = [
      [best_of_k(row[mask], k) for k in KS] for row, mask in zip(values, grades.where, strict=True)
    ]
    assert 0 < np.isnan(expected).mean() < 1
    found = curve(values, KS, grades.where)
    np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
  judged = grades.rewards[:1].astype(np.float32)
  np.testing.assert_allclose(curve(judged, KS), curve(judged, KS, grades.where[:1]), rtol=1e-6)


def test_outcomes_are_what_an_objective_is_the_best_of():
  grades = random_grades(np.random.default_rng(1))
  assert list(outcomes_of(grades, ('pass@k', 'max@k'))) == ['pass@k', 'max@k']
  assert outcomes_of(grades, ('pass@k',))['pass@k'] is grades.successes
  assert outcomes_of(grades, ('max@k',))['max@k'] is grades.rewards


def test_metrics_of_groups_leave_out_what_was_not_judged():
  grades = random_grades(np.random.default_rng(2))
  outcomes = {
    name: values.astype(np.float32)
    for name, values in outcomes_of(grades, ('pass@k', 'max@k')).items()
  }
  rewards = grades.rewards.astype(np.float32)
  # More than there are samples is left out.
  metrics = group_metrics(outcomes, rewards, grades.where, np.int32(3), (*KS, 7))
  names = [f'{name}@{k}' for name in ('pass', 'max') for k in KS]
  assert metrics.keys() == {'reward_mean', 'k', 'masked_group_share', *names}
  assert metrics['k'] == 3
  assert metrics['reward_mean'] == pytest.approx(np.nanmean(rewards), rel=1e-6)
  assert metrics['masked_group_share'] == pytest.approx(1 - grades.where.all(axis=1).mean())
  for name, values in outcomes.items():
    for k in KS:
      best = [best_of_k(row[mask], k) for row, mask in zip(values, grades.where, strict=True)]
      assert metrics[name.replace('k', str(k))] == pytest.approx(np.nanmean(best), rel=1e-5)


def test_metrics_of_groups_that_are_all_judged():
  rewards = np.float32([[0, 1, 0], [1, 1, 1]])
  metrics = group_metrics({'pass@k': rewards}, rewards, None, np.int32(1), (1, 2, 3))
  expected = {'pass@1': 2 / 3, 'pass@2': 5 / 6, 'pass@3': 1, 'reward_mean': 2 / 3, 'k': 1}
  assert metrics == pytest.approx(expected | {'masked_group_share': 0}, rel=1e-6)


def test_a_metric_that_no_group_can_give_is_nan():
  where = np.array([[True, True, False], [True, False, False]])
  rewards = np.where(where, 1, np.nan).astype(np.float32)
  metrics = group_metrics({'pass@k': rewards}, rewards, where, np.int32(1), (1, 2, 3))
  assert metrics['pass@1'] == metrics['pass@2'] == 1
  assert np.isnan(metrics['pass@3'])
  assert metrics['masked_group_share'] == 1


# Majority votes.


def majority_share(verdicts, k):
  """Returns the chance that the vote of k of the verdicts is right, over all subsets."""
  shares = []
  for subset in itertools.combinations(verdicts, k):
    votes = [verdict.answer for verdict in subset if verdict.answer is not None]
    if not votes:
      shares.append(0)
      continue
    most = max(map(votes.count, votes))
    winners = {answer for answer in votes if votes.count(answer) == most}
    right = {verdict.answer for verdict in subset if verdict.is_success}
    shares.append(len(winners & right) / len(winners))
  return np.mean(shares) if shares else np.nan


def test_majority_votes_are_those_of_the_judged_samples():
  rng = np.random.default_rng(0)
  choices = [Verdict('right', '1'), Verdict('wrong', '2'), Verdict('wrong', '3')]
  choices += [Verdict('empty'), UNJUDGED]
  verdicts = [[choices[i] for i in row] for row in rng.integers(0, len(choices), (20, 6))]
  verdicts += [[UNJUDGED] * 6, [choices[0]] * 6]
  expected = [
    [majority_share([verdict for verdict in group if verdict.is_judged], k) for k in KS]
    for group in verdicts
  ]
  assert 0 < np.isnan(expected).mean() < 1
  np.testing.assert_allclose(majority_votes(verdicts, KS), expected, rtol=1e-10)


def test_an_answer_that_cannot_be_compared_leaves_no_majority():
  """Where it was judged; what the judge failed on is not compared."""
  found = majority_votes([[Verdict('wrong'), *EXAMPLE[:1]], [UNJUDGED, *EXAMPLE[:1]]], (1, 2))
  np.testing.assert_array_equal(found, [[np.nan, np.nan], [1, np.nan]])
  assert majority_votes(None, (1,)) is None

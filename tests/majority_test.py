"""The vote of k: exact unbiasedness, large groups beside the estimate, what it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from advantages_unbiased_test import LOGITS, expected_gradient, outcomes_of, softmax

from pkpo_jax import maj_at_k, votes
from pkpo_jax.errors import FieldError
from pkpo_jax.tasks.grades import Verdict, answer_ids

advantages_of = jax.jit(lambda rewards, k, answers: maj_at_k(rewards, k=k, answers=answers))
# Arms 0 and 2 give one answer, 1 another that is right, 3 none.
ARM_ANSWERS = np.array([0, 1, 0, -1])
ARM_REWARDS = np.array([0.0, 1.0, 0.0, 0.0], np.float32)


def vote(arms):
  """Returns the share of right answers among those with the most votes."""
  votes = [a for a in ARM_ANSWERS[list(arms)] if a >= 0]
  most = [a for a in set(votes) if votes.count(a) == max(map(votes.count, votes))]
  return most.count(1) / len(most) if most else 0.0


@pytest.mark.parametrize('n', [2, 3, 5])
def test_is_unbiased_for_the_vote(n):
  outcomes, p = outcomes_of(n), softmax(LOGITS)
  for k in range(1, n):
    draws = np.array(list(itertools.product(range(len(p)), repeat=k)))
    values = p[draws].prod(axis=1) * [vote(arms) for arms in draws]
    expected = values @ (np.eye(len(p))[draws] - p).sum(axis=1)
    advantages = advantages_of(ARM_REWARDS[outcomes], jnp.int32(k), ARM_ANSWERS[outcomes])
    np.testing.assert_allclose(expected_gradient(advantages, outcomes), expected, atol=4e-6)
    assert np.linalg.norm(expected) > 1e-2


@pytest.mark.parametrize('n', [16, 64])
def test_is_what_a_sample_changes_in_the_estimate(n):
  answers = np.random.default_rng(n).integers(-1, 5, (1, n))
  answers[answers == 4] = 0
  # The estimate is the same without any sample of an answer.
  firsts = [int(np.argmax(answers[0] == a)) for a in answers[0]]
  is_right = answers == 0

  def estimate(k, kept):
    given = [[None if a < 0 else a for a in row] for row in answers[:, kept]]
    return votes.maj_at_k(given, is_right[:, kept], [k])[:, 0]

  everyone = np.arange(n)
  for k in (1, n // 8, n // 2):
    without_first = {i: estimate(k, np.delete(everyone, i)) for i in set(firsts)}
    without = np.stack([without_first[i] for i in firsts], axis=1)
    expected = n * (estimate(k, everyone)[:, None] - without)
    actual = advantages_of(is_right.astype(np.float32), jnp.int32(k), answers)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < 2e-5, (k, error)
    np.testing.assert_allclose(np.sum(actual, axis=1), 0, atol=1e-5 * n * np.abs(expected).max())


def test_out_of_range(no_type_checker):
  del no_type_checker
  rewards = np.zeros((2, 3), np.float32)
  with pytest.raises(FieldError, match=r'answers: expected shape \(2, 3\), got \(3,\)'):
    maj_at_k(rewards, k=2, answers=np.zeros(3, np.int32))
  with pytest.raises(FieldError, match='answers: expected integers, got'):
    maj_at_k(rewards, k=2, answers=rewards)
  with pytest.raises(FieldError, match='rewards: expected at most 64 samples a group, got 65'):
    maj_at_k(np.zeros(65), k=2, answers=np.zeros(65, np.int32))


def test_answers_of_verdicts():
  right, wrong = Verdict('right', '7'), Verdict('wrong', '8')
  group = [wrong, right, Verdict('empty'), wrong, Verdict('wrong'), right, Verdict('timeout', '7')]
  np.testing.assert_array_equal(answer_ids([group]), [[0, 1, -1, 0, 4, 1, -1]])


def test_training_for_the_vote_leaves_a_policy_that_is_not_certain():
  """Exact ascent on the mean advantage: the vote is won, and then pass@1 has no more weight."""
  n, p = 16, {}
  for name, k in (('vote', 11), ('pass@1', 1)):
    logits = jnp.zeros(4)
    rng = np.random.default_rng(0)
    for _ in range(100):
      chances = np.asarray(jax.nn.softmax(logits), np.float64)
      arms = rng.choice(4, (8, n), p=chances / chances.sum())
      advantages = advantages_of(ARM_REWARDS[arms], jnp.int32(k), arms)
      scores = np.eye(4)[arms] - chances
      logits += 0.3 * np.einsum('pn,pna->a', advantages, scores) / arms.size
    p[name] = float(jax.nn.softmax(logits)[1])
  assert 0.45 < p['vote'] < p['pass@1'] - 0.05

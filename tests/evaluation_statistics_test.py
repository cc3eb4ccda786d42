"""Statistics of an evaluation by their definitions: majority votes, diversity, lengths."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from pkpo_jax import votes
from pkpo_jax.evaluation import statistics as answers
from pkpo_jax.tasks.grades import Grades, Verdict, grades_of
from pkpo_jax.tasks.text import is_truncated
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Rollout


def majority_by_enumeration(group, is_right, k):
  """Returns maj@k as a fraction: the mean over all k-subsets of the right choices' share."""
  right = {answer for answer, one in zip(group, is_right, strict=True) if one}
  shares = []
  for subset in itertools.combinations(group, k):
    votes = Counter(answer for answer in subset if answer is not None).most_common()
    winners = [answer for answer, count in votes if count == votes[0][1]]
    shares.append(Fraction(len(right & set(winners)), len(winners)) if winners else Fraction(0))
  return sum(shares) / len(shares)


def test_maj_at_k_is_the_mean_over_all_subsets():
  rng = np.random.default_rng(0)
  for num_samples in range(1, 10):
    ks = range(1, num_samples + 1)
    groups, rights = [], []
    for _ in range(12):
      drawn = rng.integers(0, rng.integers(1, num_samples + 2), num_samples)
      right = set(rng.integers(1, 4, rng.integers(0, 3)).tolist())
      groups.append([None if x == 0 else f'answer {x}' for x in drawn])
      rights.append([int(x) in right for x in drawn])
    found = votes.maj_at_k(groups, np.asarray(rights), ks)
    for group, right, row in zip(groups, rights, found, strict=True):
      expected = [float(majority_by_enumeration(group, right, k)) for k in ks]
      np.testing.assert_allclose(row, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize('num_answers', [1, 2, 3, 5])
def test_maj_at_k_of_answers_that_are_equally_frequent(num_answers):
  """By symmetry each wins as often, for any k that cannot miss all votes."""
  count = 255 // num_answers
  group = [f'answer {i}' for i in range(num_answers) for _ in range(count)]
  group += [None] * (256 - len(group))
  is_right = np.asarray([[answer == 'answer 0' for answer in group]])
  found = votes.maj_at_k([group], is_right, [3, 17, 128, 255, 256])
  np.testing.assert_allclose(found[0], 1 / num_answers, rtol=1e-11)


def test_maj_at_k_of_as_many_samples_as_it_takes():
  group = ['a'] * 400 + ['b'] * 600 + [None] * 24
  is_right = np.asarray([[answer == 'a' for answer in group]])
  found = votes.maj_at_k([group], is_right, [1, 1023, 1024])
  np.testing.assert_allclose(found[0], [400 / 1024, 0, 0], rtol=1e-12)
  with pytest.raises(ValueError, match='answers: expected at most 1024 samples, got 1025'):
    votes.maj_at_k([[*group, 'a']], np.ones((1, 1025), bool), [1])
  verdicts = [[Verdict('right', 'a')] * 1025]
  assert answers.majority_votes(verdicts, [1]) is None
  assert answers.majority_votes(None, [1]) is None


@pytest.mark.parametrize('k', [0, 3])
def test_maj_at_k_takes_no_k_beyond_n(k):
  with pytest.raises(ValueError, match=f'ks: expected 1 <= k <= N = 2, got {k}'):
    votes.maj_at_k([['a', 'b']], np.asarray([[True, False]]), [1, k])


def test_answers_that_cannot_be_compared_have_no_majority():
  verdicts = [
    [Verdict('right', 'a'), Verdict('malformed')],
    [Verdict('right'), Verdict('wrong', 'b')],
    [Verdict('empty'), Verdict('overlong')],
  ]
  found = answers.majority_votes(verdicts, [1, 2])
  np.testing.assert_array_equal(found, [[0.5, 1], [np.nan, np.nan], [0, 0]])


def test_answer_diversity():
  contents = ['aabbc', 'aaaaa', 'abcde', 'abcde']
  is_right = np.asarray([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
  found = votes.answer_diversity(contents, is_right)
  np.testing.assert_array_equal(found, [3 / 4, 1 / 4, 1, np.nan])


def make_rollout(texts, length):
  """Returns a rollout of texts `[P][N]` in which '.' stands for a stop token."""
  stop = CharacterTokenizer().stop_ids[0]
  shape = len(texts), len(texts[0]), length
  tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
  for p, i in np.ndindex(shape[:2]):
    body = texts[p][i]
    ids = [stop if c == '.' else CharacterTokenizer().encode(c)[0] for c in body]
    tokens[p, i, : len(ids)], mask[p, i, : len(ids)] = ids, True
  prompts = np.zeros((len(texts), 1), np.int32)
  log_probs = np.zeros(shape, np.float32)
  return Rollout(prompts, np.ones(prompts.shape, bool), tokens, mask, log_probs)


def test_statistics_of_samples():
  rollout = make_rollout([['ab.', 'abc', 'a.', 'a .'], ['.', '.', 'ab.', 'ab.']], length=3)
  verdicts = [
    # The third and the fourth are different texts, but one answer; the second has none.
    [Verdict('right', 'ab'), Verdict('overlong'), Verdict('wrong', 'a'), Verdict('wrong', 'a')],
    [Verdict('empty'), Verdict('empty'), Verdict('right', 'ab'), Verdict('right', 'ab')],
  ]
  rewards = np.asarray([[1, 0, 0, 0], [0, 0, 1, 1]], np.float32)
  is_cut = is_truncated(CharacterTokenizer(), rollout.completions, rollout.completion_mask)
  found = answers.sample_statistics(rollout, grades_of(verdicts), is_cut)
  expected = {
    'completion_tokens': [11 / 4, 2],
    'truncation_share': [1 / 4, 0],
    'answer_diversity': [2 / 3, 1 / 2],
    'verdict_right': [1 / 4, 1 / 2],
    'verdict_wrong': [1 / 2, 0],
    'verdict_empty': [0, 1 / 2],
    'verdict_malformed': [0, 0],
    'verdict_overlong': [1 / 4, 0],
    'verdict_hostile': [0, 0],
    'verdict_timeout': [0, 0],
    'verdict_crashed': [0, 0],
    'verdict_unjudged': [0, 0],
  }
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, err_msg=name)
  # Without verdicts wrong samples are compared by their tokens.
  found = answers.sample_statistics(rollout, Grades(rewards, rewards), is_cut)
  np.testing.assert_allclose(found['answer_diversity'], [1, 1 / 2])
  assert found.keys() == {'completion_tokens', 'truncation_share', 'answer_diversity'}
  found = answers.sample_statistics(rollout, Grades(rewards), None)
  assert found.keys() == {'completion_tokens'}


# A whole evaluation.

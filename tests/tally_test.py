"""What a run has seen so far, against a plain recomputation from all its steps."""

import numpy as np
import pytest

from pkpo_jax.tally import empty_tally

NUM_PROBLEMS, WINDOW, NAMES = 11, 3, ('pass@1', 'pass@4')


def _steps(num_steps=8, seed=0):
  """Yields the ids, rewards and values of each step."""
  rng = np.random.default_rng(seed)
  for _ in range(num_steps):
    rewards = (rng.random((4, 5)) < 0.15).astype(np.float32)
    yield rng.choice(NUM_PROBLEMS, 4, replace=False), rewards, rng.random(2).tolist()


def test_metrics_are_those_of_all_steps_and_of_the_last():
  tally, solved, values = empty_tally(NUM_PROBLEMS, WINDOW, 2), set(), []
  for step, (ids, rewards, found) in enumerate(_steps()):
    tally = tally.add(step, ids, rewards, None, found)
    solved |= {int(i) for i, group in zip(ids, rewards, strict=True) if group.max() == 1}
    values.append(found)
    means = np.mean(values[-WINDOW:], axis=0)
    assert tally.metrics(NAMES) == pytest.approx(
      {
        'pass@1_rolling': means[0],
        'pass@4_rolling': means[1],
        'cumulative_solve_rate': len(solved) / NUM_PROBLEMS,
      }
    )
  assert 0 < len(solved) < NUM_PROBLEMS


def test_without_numbered_problems_there_is_no_solve_rate():
  (ids, rewards, values), *_ = _steps()
  tally = empty_tally(None, WINDOW, 2).add(0, ids + 10**6, rewards, None, values)
  assert tally.metrics(NAMES).keys() == {'pass@1_rolling', 'pass@4_rolling'}


def test_a_step_changes_no_older_tally():
  """Which may be on its way into a checkpoint."""
  tally = empty_tally(NUM_PROBLEMS, WINDOW, 2, memory=3.0)
  contents = lambda tally: [x.tobytes() for x in (tally.solved, tally.recent, tally.counts)]
  for step, (ids, rewards, values) in enumerate(_steps()):
    before = contents(tally)
    new = tally.add(step, ids, rewards, None, values)
    assert contents(tally) == before and contents(new) != before
    tally = new


@pytest.mark.parametrize('memory', [1.0, 2.0, 3.5])
def test_pass_rates_are_of_visits_with_falling_weights(memory):
  """A visit counts (1 - 1 / memory)^age, its age in visits of the same problem."""
  rng = np.random.default_rng(1)
  tally, visits = empty_tally(NUM_PROBLEMS, WINDOW, 2, memory), {i: [] for i in range(NUM_PROBLEMS)}
  num_known = num_unjudged = 0
  for step, (ids, rewards, values) in enumerate(_steps(12)):
    ids = np.append(ids[:3], ids[0])  # A problem twice in a step is visited once.
    where = rng.random(rewards.shape) < 0.8
    where[1] &= step % 3 > 0
    found = tally.pass_rates(np.arange(NUM_PROBLEMS))
    for problem, seen in visits.items():
      weights = [(1 - 1 / memory) ** age for age in range(len(seen))][::-1]
      right, judged = (sum(w * v[i] for w, v in zip(weights, seen, strict=True)) for i in (0, 1))
      num_known += judged > 0
      expected = right / judged if judged else np.nan
      np.testing.assert_allclose(found[problem], expected, rtol=1e-5)
    tally = tally.add(step, ids, np.where(where, rewards, 1), where, values)
    for problem in set(ids.tolist()):
      is_of = ids == problem
      num_judged = where[is_of].sum()
      if num_judged:
        visits[problem].append((rewards[is_of][where[is_of]].sum(), num_judged))
      num_unjudged += not num_judged
  assert num_known > 50 and num_unjudged > 1 and max(map(len, visits.values())) > 3


def test_an_unjudged_sample_solves_nothing():
  tally = empty_tally(NUM_PROBLEMS, WINDOW, 2, memory=2.0)
  where = np.array([[True, False], [False, False], [True, True]])
  tally = tally.add(0, np.array([3, 4, 5]), np.array([[0, 1], [1, 1], [0, 1]]), where, [0.0, 0.0])
  assert np.flatnonzero(tally.solved).tolist() == [5]
  np.testing.assert_array_equal(tally.pass_rates(np.arange(3, 7)), [0, np.nan, 0.5, np.nan])


def test_pass_rates_are_kept_only_where_they_are_wanted():
  for num_problems, memory in ((NUM_PROBLEMS, None), (None, 2.0)):
    tally = empty_tally(num_problems, WINDOW, 2, memory)
    assert tally.pass_rates(np.arange(3)) is None and tally.counts is None

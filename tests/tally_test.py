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
    tally = tally.add(step, ids, rewards, found)
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
  tally = empty_tally(None, WINDOW, 2).add(0, ids + 10**6, rewards, values)
  assert tally.metrics(NAMES).keys() == {'pass@1_rolling', 'pass@4_rolling'}


def test_a_step_changes_no_older_tally():
  """Which may be on its way into a checkpoint."""
  tally = empty_tally(NUM_PROBLEMS, WINDOW, 2)
  for step, (ids, rewards, values) in enumerate(_steps()):
    before = tally.solved.tobytes(), tally.recent.tobytes()
    new = tally.add(step, ids, rewards, values)
    assert (tally.solved.tobytes(), tally.recent.tobytes()) == before
    tally = new

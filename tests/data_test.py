"""The order of a finite task's problems."""

import jax
import numpy as np
import pytest

from pkpo_jax.data.pipeline import epoch_begun, problem_ids

NUM_PROBLEMS = 10


def _ids(num_steps, num_prompts, seed=0, first=0):
  key = jax.random.key(seed)
  steps = range(first, first + num_steps)
  return np.concatenate([problem_ids(NUM_PROBLEMS, step, num_prompts, key) for step in steps])


@pytest.mark.parametrize('num_prompts', [1, 4, 10, 25])
def test_every_epoch_has_every_problem_once_in_another_order(num_prompts):
  """Whether or not steps end where epochs do."""
  num_epochs = 10
  ids = _ids(num_epochs * NUM_PROBLEMS // num_prompts, num_prompts)
  epochs = ids.reshape(num_epochs, NUM_PROBLEMS)
  for epoch in epochs:
    assert sorted(epoch) == list(range(NUM_PROBLEMS))
  assert len({tuple(epoch) for epoch in epochs}) == num_epochs  # Of 3.6 million orders.


def test_the_order_is_that_of_the_key():
  assert np.array_equal(_ids(20, 4), _ids(20, 4))
  assert not np.array_equal(_ids(20, 4), _ids(20, 4, seed=1))


def test_the_number_of_prompts_does_not_change_the_order():
  assert np.array_equal(_ids(20, 4), _ids(8, 10))


def test_any_step_can_be_asked_for_first():
  """A resumed run begins in the middle of an epoch."""
  assert np.array_equal(_ids(8, 3, first=12), _ids(20, 3)[36:])


@pytest.mark.parametrize('num_prompts', [1, 3, 4, 10, 25])
def test_an_epoch_begins_in_the_step_that_has_its_first_problem(num_prompts):
  """Of several epochs that begin in a step, the last one counts."""
  for step in range(30):
    positions = range(step * num_prompts, (step + 1) * num_prompts)
    begun = [i // NUM_PROBLEMS for i in positions if i % NUM_PROBLEMS == 0]
    assert epoch_begun(step, num_prompts, NUM_PROBLEMS) == (begun[-1] if begun else None)

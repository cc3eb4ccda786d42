"""The order of a finite task's problems; the prompts of evaluations."""

import jax
import numpy as np
import pytest

from pkpo_jax.data.pipeline import held_out_prompts, make_draw_prompts
from pkpo_jax.tasks import FiniteTask, HiddenAnswer
from pkpo_jax.types import Prompts

NUM_PROBLEMS, NUM_HELD_OUT = 10, 6


class Numbers:
  """A finite task whose problems are their own ids."""

  is_binary = True
  num_problems, num_held_out = NUM_PROBLEMS, NUM_HELD_OUT

  def rewards(self, prompts, rollout, key):
    raise NotImplementedError

  def prompts_of(self, ids):
    return Prompts(ids=ids.astype(np.int32), tokens=ids[:, None], hidden=())


def _ids(num_steps, num_prompts, seed=0, first=0):
  draw = make_draw_prompts(Numbers(), num_prompts, jax.random.key(seed))
  steps = range(first, first + num_steps)
  return np.concatenate([draw(step, jax.random.key(step)).ids for step in steps])


def test_numbers_is_a_finite_task():
  assert isinstance(Numbers(), FiniteTask)


@pytest.mark.parametrize('num_prompts', [1, 4, 10, 25])
def test_every_epoch_has_every_problem_once_in_another_order(num_prompts):
  """Whether or not steps end where epochs do."""
  num_epochs = 10
  ids = _ids(num_epochs * NUM_PROBLEMS // num_prompts, num_prompts)
  epochs = ids.reshape(num_epochs, NUM_PROBLEMS)
  for epoch in epochs:
    assert sorted(epoch) == list(range(NUM_PROBLEMS))
  assert len({tuple(epoch) for epoch in epochs}) == num_epochs  # Of 3.6 million orders.


def test_the_order_is_that_of_the_seed():
  assert np.array_equal(_ids(20, 4), _ids(20, 4))
  assert not np.array_equal(_ids(20, 4), _ids(20, 4, seed=1))


def test_the_number_of_prompts_does_not_change_the_order():
  assert np.array_equal(_ids(20, 4), _ids(8, 10))


def test_any_step_can_be_asked_for_first():
  """A resumed run begins in the middle of an epoch."""
  assert np.array_equal(_ids(8, 3, first=12), _ids(20, 3)[36:])


def test_processes_share_the_prompts_of_a_step():
  key = jax.random.key(0)
  whole = make_draw_prompts(Numbers(), 6, key)
  parts = [make_draw_prompts(Numbers(), 6, key, i, num_processes=3) for i in range(3)]
  for step in range(5):
    ids = [part(step, key).ids for part in parts]
    assert [len(one) for one in ids] == [2, 2, 2]
    assert np.array_equal(np.concatenate(ids), whole(step, key).ids)


def test_other_tasks_draw_from_the_step_and_its_key():
  task = HiddenAnswer(num_contexts=4, num_arms=8, exponent=1.0)
  draw = make_draw_prompts(task, 5, jax.random.key(0))
  key = jax.random.key(3)
  drawn, expected = draw(7, key), task.prompts(7, 5, key)
  assert jax.tree.all(jax.tree.map(np.array_equal, drawn, expected))


def test_evaluation_is_on_problems_held_out():
  for step in range(2):
    found = held_out_prompts(Numbers(), step, 4, jax.random.key(step))
    assert found.ids.tolist() == [10, 11, 12, 13]
  with pytest.raises(ValueError, match='eval.num_prompts: expected at most .* = 6, got 7'):
    held_out_prompts(Numbers(), 0, 7, jax.random.key(0))

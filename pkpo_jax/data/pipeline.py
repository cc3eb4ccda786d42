"""Which prompts a step and an evaluation get."""

from collections.abc import Callable

import grain
import jax
import numpy as np

from pkpo_jax.errors import expect
from pkpo_jax.tasks import FiniteTask, Task
from pkpo_jax.types import Prompts
from pkpo_jax.typing import Key

# fn(step, key) -> the prompts of a training step; `key` is the step's own.
DrawPrompts = Callable[[int, Key], Prompts]


def make_draw_prompts(
  task: Task | FiniteTask,
  num_prompts: int,
  key: Key,
  process_index: int = 0,
  num_processes: int = 1,
) -> DrawPrompts:
  """Returns fn(step, key) -> the prompts of a training step, the same for the same arguments.

  A finite task goes through all its problems, each epoch in another order, before one comes
  again: step s begins at position s * num_prompts of that endless list, which is all there is to
  save of it.

  Args:
    task: the task.
    num_prompts: prompts of a step, over all processes.
    key: of the order of a finite task's problems, the same for the whole run.
    process_index: which of the processes this is; a finite task's prompts of a step are split
      into as many parts, one after another.
    num_processes: how many there are; num_prompts is a multiple of it.
  """
  if not isinstance(task, FiniteTask):
    return lambda step, step_key: task.prompts(step, num_prompts, step_key)
  order = problem_order(task.num_problems, key)
  size = num_prompts // num_processes

  def draw(step, step_key):
    del step_key
    first = step * num_prompts + process_index * size
    return task.prompts_of(np.asarray([order[first + i] for i in range(size)]))

  return draw


def problem_order(num_problems: int, key: Key) -> grain.MapDataset[int]:
  """Returns the endless list of problems' ids: one random order of all of them after another."""
  # The shuffle takes 32 bits.
  (seed,) = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist()).generate_state(1)
  return grain.MapDataset.range(num_problems).seed(int(seed)).shuffle().repeat()


def epoch_begun(step: int, num_prompts: int, num_problems: int) -> int | None:
  """Returns the last epoch, counted from 0, that begins in a step; None if none does.

  >>> [epoch_begun(step, num_prompts=4, num_problems=10) for step in range(6)]
  [0, None, 1, None, None, 2]
  """
  epoch = ((step + 1) * num_prompts - 1) // num_problems
  return epoch if epoch * num_problems >= step * num_prompts else None


def held_out_prompts(task: Task | FiniteTask, step: int, num_prompts: int, key: Key) -> Prompts:
  """Returns the prompts to evaluate on: the first of those held out; drawn, if there are none.

  Raises:
    ValueError: if fewer are held out.
  """
  if not isinstance(task, FiniteTask):
    return task.prompts(step, num_prompts, key)
  check_held_out(task, num_prompts)
  return task.prompts_of(task.num_problems + np.arange(num_prompts))


def check_held_out(task: FiniteTask, num_prompts: int) -> None:
  """Raises ValueError if fewer than `num_prompts` problems are held out."""
  expect(
    num_prompts <= task.num_held_out,
    'eval.num_prompts',
    f'at most task.num_held_out = {task.num_held_out}',
    num_prompts,
  )

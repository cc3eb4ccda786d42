"""Which prompts a step and an evaluation get."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from pkpo_jax.settings import expect
from pkpo_jax.tasks import FiniteTask, Task
from pkpo_jax.types import Prompts
from pkpo_jax.typing import Key

# fn(step, key) -> the prompts of a training step; `key` is the step's own.
DrawPrompts = Callable[[int, Key], Prompts]


def make_draw_prompts(task: Task | FiniteTask, num_prompts: int, key: Key) -> DrawPrompts:
  """Returns fn(step, key) -> the prompts of a training step, the same for the same arguments.

  A finite task goes through all its problems, each epoch in another order, before one comes
  again: step s begins at position s * num_prompts of that endless list.

  Args:
    task: the task.
    num_prompts: prompts of a step.
    key: of the order of a finite task's problems, the same for the whole run.
  """
  if not isinstance(task, FiniteTask):
    return lambda step, step_key: task.prompts(step, num_prompts, step_key)
  seed = np.asarray(jax.random.key_data(key)).tolist()

  @functools.lru_cache(maxsize=2)
  def order(epoch):
    return np.random.default_rng([*seed, epoch]).permutation(task.num_problems)

  def draw(step, step_key):
    del step_key
    epochs, places = np.divmod(step * num_prompts + np.arange(num_prompts), task.num_problems)
    ids = [order(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)]
    return task.prompts_of(np.asarray(ids))

  return draw


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

"""The order in which a finite set of problems is gone through."""

import functools

import grain
import jax
import numpy as np

from pkpo_jax.typing import Key


def problem_ids(num_problems: int, step: int, num_prompts: int, key: Key) -> np.ndarray:
  """Returns the ids `[P]` of a training step's problems; the same for the same arguments.

  All problems come, each epoch in another order, before one comes again: step s begins at position
  s * num_prompts of that endless list, which is all there is to save of it.

  Args:
    num_problems: ids are 0 to num_problems - 1.
    step: the step, from 0 on.
    num_prompts: prompts of a step.
    key: of the order, the same for the whole run.
  """
  # The shuffle takes 32 bits.
  (seed,) = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist()).generate_state(1)
  order = _problem_order(num_problems, int(seed))
  return np.asarray([order[step * num_prompts + i] for i in range(num_prompts)])


@functools.lru_cache(maxsize=4)
def _problem_order(num_problems: int, seed: int) -> grain.MapDataset[int]:
  """Returns the endless list of problems' ids: one random order of all of them after another."""
  return grain.MapDataset.range(num_problems).seed(seed).shuffle().repeat()


def epoch_begun(step: int, num_prompts: int, num_problems: int) -> int | None:
  """Returns the last epoch, counted from 0, that begins in a step; None if none does.

  >>> [epoch_begun(step, num_prompts=4, num_problems=10) for step in range(6)]
  [0, None, 1, None, None, 2]
  """
  epoch = ((step + 1) * num_prompts - 1) // num_problems
  return epoch if epoch * num_problems >= step * num_prompts else None

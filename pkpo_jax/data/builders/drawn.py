"""Splits of problems that are drawn at random."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pkpo_jax.data.base import Record
from pkpo_jax.data.sources import progress
from pkpo_jax.tasks.text import distinct_problems


def drawn_splits(
  draw: Callable[[np.random.Generator], Any],
  record: Callable[[Any], Record],
  seed: int,
  num_train: int,
  num_held_out: int,
) -> dict[str, list[Record]]:
  """Returns 'train' and 'held_out', the problems that the task with these fields has.

  Args:
    draw: returns a problem, None for one that is not to be used.
    record: returns the record of a problem, but for its id.
    seed: of the draws.
    num_train: problems to train on.
    num_held_out: problems to hold out.
  """
  with progress(None, 'drawing problems', 'draws') as bar:

    def counted(rng):
      bar.update()
      return draw(rng)

    problems = distinct_problems(counted, seed, num_train, num_held_out)
  splits = {'train': problems[:num_train], 'held_out': problems[num_train:]}
  return {
    split: [{'id': f'{split}/{i}'} | record(problem) for i, problem in enumerate(found)]
    for split, found in splits.items()
  }

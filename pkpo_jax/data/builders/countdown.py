"""Countdown problems, as the task of that name draws them."""

import dataclasses
import pathlib
from collections.abc import Mapping

from pkpo_jax.data.base import Generated, Record
from pkpo_jax.data.builders.drawn import drawn_splits
from pkpo_jax.tasks.countdown import distinct_countdowns, infix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Countdown(Generated):
  """Distinct problems; the fields are those of `pkpo_jax.tasks.countdown.CountdownTask`."""

  name = 'countdown'
  features = {'id': str, 'numbers': list[int], 'target': int, 'solution': str}
  packages = ('numpy',)
  description = 'Numbers, and a target to reach with each of them used once.'

  seed: int
  num_train: int
  num_held_out: int
  num_numbers: int
  max_number: int
  max_target: int

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, list[Record]]:
    """Returns 'train' and 'held_out'; an id is split and place: 'train/0'."""
    del files
    records = [
      {'numbers': list(x.numbers), 'target': x.target, 'solution': infix(x.solution)}
      for x in distinct_countdowns(**self.options)
    ]
    return drawn_splits(records, self.num_train)

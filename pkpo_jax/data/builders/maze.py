"""Mazes, as the task of that name draws them."""

import dataclasses
import pathlib
from collections.abc import Mapping

from pkpo_jax.data.base import Generated, Record
from pkpo_jax.data.builders.drawn import drawn_splits
from pkpo_jax.tasks.maze import distinct_mazes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maze(Generated):
  """Distinct mazes; the fields are those of `pkpo_jax.tasks.maze.MazeTask`."""

  name = 'maze'
  features = {'id': str, 'rows': list[str]}
  packages = ('numpy',)
  description = 'Mazes of characters: find a way from S to E.'
  citation = 'Chen et al. 2025, Pass@k Training, arXiv 2508.10751'

  seed: int
  num_train: int
  num_held_out: int
  size: int
  wall_share: float
  min_moves: int
  max_moves: int

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, list[Record]]:
    """Returns 'train' and 'held_out'; an id is split and place: 'train/0'."""
    del files
    mazes = distinct_mazes(**self.options)
    return drawn_splits([{'rows': list(maze)} for maze in mazes], self.num_train)

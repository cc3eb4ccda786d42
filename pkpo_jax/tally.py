"""What a run has seen so far: problems solved, their pass rates, and its last steps' pass@k."""

from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np

from pkpo_jax.types import Leaf
from pkpo_jax.typing import AnyArray


@flax.struct.dataclass
class Tally:
  """Statistics over steps, on the host; saved with the run, so that a resumed run goes on.

  Attributes:
    solved: `[num_problems]` bool, problems of which a right sample was ever drawn; None where
      problems are not numbered or rewards are not binary.
    recent: `[W, K]` float32, pass@k (max@k) of the last W steps, row step % W; NaN before.
    counts: `[num_problems, 2]` float32, right and judged samples of each problem; those of earlier
      visits have a lower weight. None where no pass rates are wanted.
    memory: visits that these remember: a new one leaves the share 1 - 1 / memory of the counts.
  """

  solved: Leaf | None
  recent: Leaf
  counts: Leaf | None = None
  memory: float | None = flax.struct.field(pytree_node=False, default=None)

  def add(
    self,
    step: int,
    ids: np.ndarray,
    outcomes: np.ndarray,
    where: np.ndarray | None,
    values: Sequence[float],
  ) -> 'Tally':
    """Returns the tally after a step.

    Args:
      step: the step.
      ids: `[P]` its problems; one may be there several times.
      outcomes: `[P, N]` 1 where a sample is right, else 0; anything where it was not judged.
      where: `[P, N]` bool, True where a sample was judged; None means everywhere.
      values: `[K]` its mean estimates of pass@k (max@k).
    """
    judged = np.ones(outcomes.shape, bool) if where is None else where
    right = judged & (outcomes > 0)
    solved, recent, counts = self.solved, self.recent.copy(), self.counts
    if solved is not None:
      solved = solved.copy()
      solved[ids[np.any(right, axis=-1)]] = True
    recent[step % len(recent)] = values
    if counts is not None:
      counts = counts.copy()
      # A visit of which nothing was judged is none.
      counts[np.unique(ids[np.any(judged, axis=-1)])] *= 1 - 1 / self.memory
      np.add.at(counts, ids, np.stack([np.sum(right, -1), np.sum(judged, -1)], -1))
    return self.replace(solved=solved, recent=recent, counts=counts)

  def pass_rates(self, ids: AnyArray) -> np.ndarray | None:
    """Returns `[P]` float32, the pass rates of problems so far, NaN where none of one was judged.

    None where they are not kept.
    """
    if self.counts is None:
      return None
    right, judged = self.counts[np.asarray(ids)].T
    unknown = np.full(len(ids), np.nan, np.float32)
    return np.divide(right, judged, out=unknown, where=judged > 0)

  def metrics(self, names: Sequence[str]) -> Mapping[str, float]:
    """Returns cumulative_solve_rate and, for each of the K `names`, name_rolling."""
    found = {
      f'{name}_rolling': float(value)
      for name, value in zip(names, np.nanmean(self.recent, axis=0), strict=True)
    }
    if self.solved is not None:
      found['cumulative_solve_rate'] = float(np.mean(self.solved))
    return found


def empty_tally(
  num_problems: int | None, window: int, num_ks: int, memory: float | None = None
) -> Tally:
  """Returns the tally before the first step.

  Args:
    num_problems: None keeps neither `solved` nor `counts`.
    window: W.
    num_ks: K.
    memory: of the pass rates, in visits; None keeps no `counts`.
  """
  recent = np.full((window, num_ks), np.nan, np.float32)
  if num_problems is None:
    return Tally(None, recent)
  counts = None if memory is None else np.zeros((num_problems, 2), np.float32)
  return Tally(np.zeros(num_problems, bool), recent, counts, memory)

"""What a run has seen so far: which problems it has solved, and its last steps' pass@k."""

from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np

from pkpo_jax.types import Leaf


@flax.struct.dataclass
class Tally:
  """Statistics over steps, on the host; saved with the run, so that a resumed run goes on.

  Attributes:
    solved: `[num_problems]` bool, problems of which a right sample was ever drawn; None where
      problems are not numbered or rewards are not binary.
    recent: `[W, K]` float32, pass@k (max@k) of the last W steps, row step % W; NaN before.
  """

  solved: Leaf | None
  recent: Leaf

  def add(
    self, step: int, ids: np.ndarray, outcomes: np.ndarray, values: Sequence[float]
  ) -> 'Tally':
    """Returns the tally after a step.

    Args:
      step: the step.
      ids: `[P]` its problems.
      outcomes: `[P, N]` 1 where a sample is right, else 0.
      values: `[K]` its mean estimates of pass@k (max@k).
    """
    solved, recent = self.solved, self.recent.copy()
    if solved is not None:
      solved = solved.copy()
      solved[ids[np.any(outcomes > 0, axis=-1)]] = True
    recent[step % len(recent)] = values
    return Tally(solved, recent)

  def metrics(self, names: Sequence[str]) -> Mapping[str, float]:
    """Returns cumulative_solve_rate and, for each of the K `names`, name_rolling."""
    found = {
      f'{name}_rolling': float(value)
      for name, value in zip(names, np.nanmean(self.recent, axis=0), strict=True)
    }
    if self.solved is not None:
      found['cumulative_solve_rate'] = float(np.mean(self.solved))
    return found


def empty_tally(num_problems: int | None, window: int, num_ks: int) -> Tally:
  """Returns the tally before the first step; num_problems None keeps no `solved`."""
  solved = None if num_problems is None else np.zeros(num_problems, bool)
  return Tally(solved, np.full((window, num_ks), np.nan, np.float32))

"""Verifiers: pure functions that judge the text of a completion."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# In this order: the only kind that earns a reward, a proper answer that is wrong, and what keeps a
# completion from being an answer.
KINDS = ('right', 'wrong', 'empty', 'malformed', 'overlong', 'hostile')


class Verdict(NamedTuple):
  """What a verifier says of one completion.

  Attributes:
    kind: one of KINDS.
    answer: the answer in the form in which two of them are compared; None where there is none.
  """

  kind: str
  answer: str | None = None

  @property
  def reward(self) -> float:
    """1 for a right answer, else 0."""
    return float(self.kind == 'right')


def rewards_of(verdicts: Sequence[Sequence[Verdict]]) -> Float[np.ndarray, 'P N']:
  """Returns the rewards of verdicts `[P][N]`."""
  return np.asarray([[verdict.reward for verdict in group] for group in verdicts], np.float32)

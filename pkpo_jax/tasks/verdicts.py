"""Verifiers: pure functions that judge the text of a completion."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# In this order: the only kind that is a success, a proper answer that is wrong, what keeps a
# completion from being an answer, and how judging it can end without one: at its deadline, or with
# the process that judged it (out of memory, say).
KINDS = ('right', 'wrong', 'empty', 'malformed', 'overlong', 'hostile', 'timeout', 'crashed')


class Verdict(NamedTuple):
  """What a verifier says of one completion.

  Attributes:
    kind: one of KINDS.
    answer: the answer in the form in which two of them are compared; None where there is none.
    score: a shaped reward in [0, 1], such as the share of tests passed; None where there is none.
  """

  kind: str
  answer: str | None = None
  score: float | None = None

  @property
  def is_success(self) -> bool:
    """Whether the answer is right, all of it."""
    return self.kind == 'right'

  @property
  def reward(self) -> float:
    """The score; without one, 1 for a right answer, else 0."""
    return float(self.is_success) if self.score is None else self.score


def successes_of(verdicts: Sequence[Sequence[Verdict]]) -> Float[np.ndarray, 'P N']:
  """Returns 1 for each right completion, else 0, from verdicts `[P][N]`."""
  return np.asarray([[verdict.is_success for verdict in group] for group in verdicts], np.float32)


def rewards_of(verdicts: Sequence[Sequence[Verdict]]) -> Float[np.ndarray, 'P N']:
  """Returns the rewards of verdicts `[P][N]`."""
  return np.asarray([[verdict.reward for verdict in group] for group in verdicts], np.float32)

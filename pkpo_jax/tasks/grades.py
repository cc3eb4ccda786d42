"""What a task says of samples: verdicts on single completions, and grades of whole groups."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# In this order: the only kind that is a success; a proper answer that is wrong; what keeps a
# completion from being an answer; how a completion that runs can end without one; and 'unjudged',
# where it is the judge that failed, which says nothing about the completion.
KINDS = (
  *('right', 'wrong', 'empty', 'malformed', 'overlong', 'hostile', 'timeout', 'crashed'),
  'unjudged',
)


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
  def is_judged(self) -> bool:
    """Whether the judge came to a verdict."""
    return self.kind != 'unjudged'

  @property
  def reward(self) -> float:
    """The score; without one, 1 for a right answer, else 0."""
    return float(self.is_success) if self.score is None else self.score


class Grades(NamedTuple):
  """What a task says of the N samples of each of P prompts.

  Attributes:
    rewards: `[P, N]` float32, what is trained on; anything where a sample was not judged.
    successes: `[P, N]` float32, 1 where a sample is right, else 0; the rewards themselves where
      these are 0 or 1, None where samples are not right or wrong.
    where: `[P, N]` bool, True where a sample was judged; None means everywhere. A sample that was
      not is no member of its group, in advantages, metrics and evaluation.
    verdicts: `[P][N]` from a task with a verifier, else None.
  """

  rewards: Any
  successes: Any = None
  where: Any = None
  verdicts: list[list[Verdict]] | None = None


def grades_of(verdicts: Sequence[Sequence[Verdict]]) -> Grades:
  """Returns the grades that verdicts `[P][N]` give."""
  array = lambda get, dtype: np.asarray([[get(x) for x in group] for group in verdicts], dtype)
  where = array(lambda verdict: verdict.is_judged, bool)
  return Grades(
    rewards=array(lambda verdict: verdict.reward, np.float32),
    successes=array(lambda verdict: verdict.is_success, np.float32),
    where=None if where.all() else where,
    verdicts=[list(group) for group in verdicts],
  )


def outcomes_of(grades: Grades, objectives: Sequence[str]) -> dict[str, Any]:
  """Returns for each of a task's objectives the `[P, N]` numbers whose best of k it is about."""
  outcomes = {'pass@k': grades.successes, 'max@k': grades.rewards}
  return {name: outcomes[name] for name in objectives}


def answer_ids(verdicts: Sequence[Sequence[Verdict]]) -> np.ndarray:
  """Returns `[P, N]` int32: for each sample the first of its group with the same answer.

  It is -1 for what is no proper answer. An answer without a form that can be compared is like no
  other.
  """
  ids = np.full((len(verdicts), len(verdicts[0])), -1, np.int32)
  for row, group in zip(ids, verdicts, strict=True):
    first = {}
    for i, verdict in enumerate(group):
      if verdict.kind in ('right', 'wrong'):
        row[i] = i if verdict.answer is None else first.setdefault(verdict.answer, i)
  return ids


def check_finite(grades: Grades, prompt_ids: Any, step: int) -> None:
  """Raises FloatingPointError, naming the prompt, if a judged reward is NaN or infinite.

  Args:
    grades: of `[P, N]` samples; waited for.
    prompt_ids: `[P]`.
    step: the training step, for the message.
  """
  rewards = np.asarray(grades.rewards)
  is_bad = ~np.isfinite(rewards)
  if grades.where is not None:
    is_bad &= np.asarray(grades.where)
  if is_bad.any():
    p, i = np.argwhere(is_bad)[0]
    raise FloatingPointError(
      f'rewards: expected finite numbers, got {rewards[p, i]} for sample {i} of prompt '
      f'{np.asarray(prompt_ids)[p]} at step {step}.'
    )


def concatenate(parts: Sequence[Grades]) -> Grades:
  """Returns the grades of several pieces of a batch as one."""
  if len(parts) == 1:
    return parts[0]
  rewards, successes, wheres, verdicts = zip(*parts, strict=True)
  join = lambda arrays: None if arrays[0] is None else np.concatenate(arrays)
  where = None
  if any(x is not None for x in wheres):
    masks = [
      np.ones(np.shape(x), bool) if mask is None else mask
      for x, mask in zip(rewards, wheres, strict=True)
    ]
    where = np.concatenate(masks)
  is_judged_in_text = verdicts[0] is not None
  return Grades(
    join(rewards), join(successes), where, sum(verdicts, []) if is_judged_in_text else None
  )

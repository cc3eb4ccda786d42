"""Judges answers to puzzles of reasoning-gym, by the package's own scorers."""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from pkpo_jax.errors import expect
from pkpo_jax.tasks.countdown import verify_countdown
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.workers.pool import Reply, WorkerPool

MAX_LENGTH = 2**15  # Characters of a completion.
_COUNTDOWN = 'countdown'
_EVALUATED = 'its scorer evaluates answers as Python'
_WITHOUT_ANSWER = 'its entries come without an answer'
_TUPLES = 'its scorer compares tuples, which are lists once they were stored'
# Data sets that cannot be used, and why. The scorer of countdown evaluates answers, too; another
# verifier stands in for it.
REFUSED = {
  'binary_matrix': _EVALUATED,
  'intermediate_integration': _EVALUATED,
  'n_queens': _EVALUATED,
  'polynomial_multiplication': _EVALUATED,
  'puzzle24': _EVALUATED,
  'simple_integration': _EVALUATED,
  'spiral_matrix': _EVALUATED,
  'string_insertion': _EVALUATED,
  'complex_arithmetic': "its scorer takes 'nan' for right",
  'game_of_life_halting': 'its scorer takes any text for right',
  'number_sorting': 'its scorer takes a list of NaN for right',
  'boxnet': _WITHOUT_ANSWER,
  'graph_color': _WITHOUT_ANSWER,
  'propositional_logic': _WITHOUT_ANSWER,
  'rubiks_cube': _WITHOUT_ANSWER,
  'rush_hour': _WITHOUT_ANSWER,
  'arc_agi': _TUPLES,
  'rearc': _TUPLES,
  'composite': 'it is made of other data sets, which can be named themselves',
}
# Each a data set, an entry and an answer; and what the worker has to say.
_CHECKS = [
  (['gcd', '{"answer": "6"}', '6'], True),
  (['gcd', '{"answer": "6"}', '60'], False),
  (['prime_factorization', '{"answer": "2 × 3"}', 'six'], None),
]


class Puzzle(NamedTuple):
  """An entry of a data set of reasoning-gym.

  Attributes:
    dataset: name of the data set.
    question: the question.
    answer: one that is right.
    entry: all there is, as JSON.
  """

  dataset: str
  question: str
  answer: str
  entry: str


def answer_of(completion: str) -> str:
  """Returns what stands before the last </answer> and after the <answer> ahead of it, else all.

  White space around it is left out.

  >>> answer_of('2 or 3? <answer>2</answer>, no, <answer> 3 </answer>.'), answer_of(' 3<answer>')
  ('3', '3<answer>')
  """
  before, _, _ = completion.rpartition('</answer>')
  _, tag, answer = before.rpartition('<answer>')
  return (answer if tag else completion).strip()


class PuzzleVerifier:
  """Scores the answers in completions, in worker processes, as scorers may be slow, hang or raise.

  An answer is right if its score is exactly 1; scores for nearly right answers, and for answers at
  all, count for nothing. Some scorers are lenient: `gsm_symbolic` reads the first number and not
  its sign, `word_sorting` and `letter_jumble` overlook words that follow, `pool_matrix` an error of
  1 %, and several overlook text that they do not know.

  Verdicts: 'overlong', above MAX_LENGTH; 'empty'; 'malformed' if the scorer raises; 'unjudged' if
  it did not come to an end, at the deadline or with its worker, as that says nothing of the answer.
  Answers are compared by their text. Those to `countdown` are judged by `verify_countdown`, in this
  process.
  """

  def __init__(self, num_workers: int, deadline_s: float):
    """Starts nothing yet.

    Args:
      num_workers: processes.
      deadline_s: seconds for one answer; nearly all take milliseconds, the first ones of a process
        up to a second.
    """
    worker = pathlib.Path(__file__).with_name('worker.py')
    self._pool = WorkerPool(
      worker, num_workers, deadline_s, items_per_worker=5000, checks=_CHECKS, memory_mib=2048
    )

  def close(self) -> None:
    """Ends the worker processes; they start again when there is work."""
    self._pool.close()

  def verify_batch(self, puzzles: Sequence[Puzzle], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdicts on completions, one for each puzzle.

    Raises:
      ValueError: if a puzzle is of a data set that is refused.
      RuntimeError: if the workers do not work.
    """
    check_names(list(dict.fromkeys(puzzle.dataset for puzzle in puzzles)))
    answers = [answer_of(completion) for completion in completions]
    lengths = map(len, completions)
    verdicts = list(map(_without_scorer, puzzles, answers, lengths))
    waiting = [i for i, verdict in enumerate(verdicts) if verdict is None]
    # Samples of one problem often agree; what is equal is scored once.
    items = {i: (puzzles[i].dataset, puzzles[i].entry, answers[i]) for i in waiting}
    asked = list(dict.fromkeys(items.values()))
    replies = dict(zip(asked, self._pool.map(list(map(list, asked))), strict=True))
    for i, item in items.items():
      verdicts[i] = _verdict(replies[item], answers[i])
    return verdicts


def check_names(names: Sequence[str]) -> None:
  """Raises ValueError if one of the data sets is refused, and says why."""
  for name in names:
    usable = f'no {name}, as {REFUSED.get(name)}'
    expect(name not in REFUSED, 'names', usable, names)


def _without_scorer(puzzle: Puzzle, answer: str, length: int) -> Verdict | None:
  """Returns the verdict where no scorer is asked, else None."""
  if length > MAX_LENGTH:
    return Verdict('overlong')
  if not answer:
    return Verdict('empty')
  if puzzle.dataset == _COUNTDOWN:
    problem = json.loads(puzzle.entry)['metadata']
    return verify_countdown(problem['numbers'], problem['target'], answer)
  return None


def _verdict(reply: Reply, answer: str) -> Verdict:
  if reply.status != 'done':
    return Verdict('unjudged')
  if reply.value is None:
    return Verdict('malformed')
  return Verdict('right' if reply.value else 'wrong', answer)

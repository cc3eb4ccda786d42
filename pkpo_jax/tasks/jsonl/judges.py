"""What judges answers to the user's own problems: text, mathematics, unit tests, a function."""

import abc
import ast
import builtins
import importlib.metadata
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from pkpo_jax import own_code
from pkpo_jax.data.base import Record
from pkpo_jax.data.remembered import remembered
from pkpo_jax.errors import DataError, FieldError, expect
from pkpo_jax.tasks.code.programs import (
  UnitTests,
  extract_code,
  mbpp_tests,
  names_defined,
  names_used,
  unsupported,
)
from pkpo_jax.tasks.code.verifier import CodeItem, CodeVerifier
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.math.verifier import MathVerifier, marked_answer
from pkpo_jax.workers.pool import WorkerPool

_ITEMS_PER_WORKER = 10_000
_LETTER = re.compile(r'\s*\(?([A-Za-z])[).]?\s*')


class Judge(abc.ABC):
  """Judges completions of problems, which are records of `JsonlProblemsData`."""

  def unusable(self, records: Sequence[Record]) -> dict[str, str]:
    """Returns why problems cannot be judged, by their ids.

    Raises:
      DataError: if an answer is not of the kind that this judge takes, which is a mistake.
    """
    for record in records:
      if record['tests']:
        problem = 'expected a text or a number as the answer, got a list'
        raise DataError(f'problem {record["id"]}: {problem} {record["tests"]!r:.100}.')
    return {}

  @abc.abstractmethod
  def verify_batch(self, problems: Sequence[Record], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdict on each completion, in order."""

  @abc.abstractmethod
  def close(self) -> None:
    """Ends the worker processes; they start again when there is work."""


class MathJudge(Judge):
  """Compares final answers by their value, as `MathVerifier` does.

  The right answer may be a whole solution, with its final answer in a box or behind ####.
  """

  def __init__(self, verifier: MathVerifier, memory: pathlib.Path, deadline_s: float):
    """Takes the verifier, and a file that remembers which right answers it cannot use."""
    self._verifier, self._memory, self._deadline_s = verifier, memory, deadline_s

  def close(self) -> None:
    """Ends the worker processes; they start again when there is work."""
    self._verifier.close()

  def unusable(self, records: Sequence[Record]) -> dict[str, str]:
    """Returns the problems whose answers math-verify cannot use; looks for them once."""
    super().unusable(records)
    answers = sorted({_final(record) for record in records})
    about = [importlib.metadata.version('math-verify'), self._deadline_s, answers]
    bad = set(remembered(self._memory, about, lambda: self._verifier.check_gold(answers)))
    return {
      record['id']: f'math-verify cannot use the answer {_final(record)!r:.100}'
      for record in records
      if _final(record) in bad
    }

  def verify_batch(self, problems: Sequence[Record], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdicts of `MathVerifier`."""
    answers = map(_final, problems)
    return self._verifier.verify_batch(list(zip(answers, completions, strict=True)))


def _final(record: Record) -> str:
  return (marked_answer(record['answer']) or record['answer']).strip()


class CodeJudge(Judge):
  """Runs unit tests, as `CodeVerifier` does."""

  def __init__(self, verifier: CodeVerifier, memory: pathlib.Path, limits: Sequence[Any]):
    """Takes the verifier, a file that remembers which references fail, and what that depends on."""
    self._verifier, self._memory, self._limits = verifier, memory, limits

  def close(self) -> None:
    """Ends the worker processes; they start again when there is work."""
    self._verifier.close()

  def unusable(self, records: Sequence[Record]) -> dict[str, str]:
    """Returns the problems whose tests cannot run apart from the code, or fail the reference."""
    found = {}
    for record in records:
      tests, setup, reference = _parts(record)
      reason = unsupported(tests, setup, reference) if tests else 'there is no assert statement'
      if reason:
        found[record['id']] = reason
    rest = [x for x in records if x['id'] not in found and x['solution']]
    about = [
      [*self._limits, sys.version],
      [[x['solution'], *x['tests'], x['answer']] for x in rest],
    ]
    return found | remembered(self._memory, about, lambda: self._failing(rest))

  def _failing(self, records: Sequence[Record]) -> dict[str, str]:
    """Returns references that are not judged right, and how they are judged, by ids."""
    solutions = [record['solution'] for record in records]
    failing = {}
    for record, verdict in zip(records, self.verify_batch(records, solutions), strict=True):
      if verdict.kind in ('timeout', 'crashed', 'unjudged'):  # The machine may have been busy.
        (verdict,) = self.verify_batch([record], [record['solution']])
      if not verdict.is_success:
        failing[record['id']] = f'the solution is judged {verdict.kind}'
    return failing

  def verify_batch(self, problems: Sequence[Record], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdicts of `CodeVerifier`."""
    tests = map(_unit_tests, problems)
    return self._verifier.verify_batch(
      [CodeItem(*each) for each in zip(completions, tests, strict=True)]
    )


def _unit_tests(record: Record) -> UnitTests:
  return mbpp_tests(*_parts(record))


def _parts(record: Record) -> tuple[list[str], str, str]:
  """Returns the assert statements, what runs before them, and code that defines what they call.

  Statements of the tests that assert nothing are the set-up. Without a reference, all names that
  the tests use and nobody defines are functions to write.
  """
  source = '\n'.join(record['tests'] or [record['answer']])
  try:
    statements = ast.parse(source).body
  except SyntaxError as error:
    raise DataError(f'problem {record["id"]}: expected Python as tests: {error}.') from error
  is_test = lambda statement: isinstance(statement, ast.Assert)
  tests = [ast.unparse(x) for x in statements if is_test(x)]
  setup = '\n'.join(ast.unparse(x) for x in statements if not is_test(x))
  if record['solution']:
    return tests, setup, extract_code(record['solution']) or record['solution']
  known = set(dir(builtins)) | names_defined(setup)
  unknown = sorted(set().union(*map(names_used, tests)) - known)
  return tests, setup, '\n'.join(f'def {name}(*args, **kwargs): ...' for name in unknown)


class TextJudge(Judge):
  r"""Judges completions in worker processes, as patterns and functions may hang or crash.

  The answer in a completion is what `answer_pattern` finds last (its first group that matches, or
  all of it); without a pattern what is in \boxed{}, or follows ####; else the whole text.

  exact: the answer is the right one, but for the amount of white space. regex: the problem's
  answer, a regular expression, matches all of the found one, but for white space around it. choice:
  the letter is the right one; in a whole text it is the last behind the word answer, or in
  brackets. path/to/file.py:function: what function(row, completion) returns for the problem's row,
  a dict: True or False; a reward in [0, 1], of which 1 alone is a success; or a dict of reward,
  and if it likes success (True or False) and answer (for votes).

  Verdicts: 'right', 'wrong'; 'malformed' where there is no answer; 'empty'; 'unjudged' where a
  worker did not come to an end in time, or came to one, twice, as both are the judge's.
  """

  def __init__(
    self, verifier: str, answer_pattern: str | None, num_workers: int, deadline_s: float
  ):
    """Starts nothing yet.

    Args:
      verifier: 'exact', 'regex', 'choice', or path/to/file.py:function.
      answer_pattern: a regular expression, or None.
      num_workers: processes.
      deadline_s: seconds for one completion.

    Raises:
      FieldError: if the pattern is none, or there is no such function.
    """
    if answer_pattern is not None:
      try:
        re.compile(answer_pattern)
      except re.error as error:
        problem = f'expected a regular expression, got {answer_pattern!r}: {error}.'
        raise FieldError('answer_pattern', problem) from error
    self._kind, self._takes_rows = verifier, own_code.is_own(verifier)
    if self._takes_rows:
      function = own_code.load('verifier', verifier)
      expect(callable(function), 'verifier', f'a function in {own_code.EXPECTED}', verifier)
      path = own_code.path_of('verifier', verifier).resolve()
      verifier = f'{path}:{verifier.rpartition(":")[2]}'
    self._pool = WorkerPool(
      pathlib.Path(__file__).with_name('worker.py'),
      num_workers,
      deadline_s,
      _ITEMS_PER_WORKER,
      checks=[(None, 'ready')],
      arguments=(verifier, answer_pattern or ''),
    )

  def close(self) -> None:
    """Ends the worker processes; they start again when there is work."""
    self._pool.close()

  def unusable(self, records: Sequence[Record]) -> dict[str, str]:
    """Returns none, or raises DataError naming a problem whose answer no completion can have."""
    if self._takes_rows:
      return {}
    super().unusable(records)
    for record in records:
      where, answer = f'problem {record["id"]}', record['answer']
      if self._kind == 'regex':
        try:
          re.compile(answer)
        except re.error as error:
          problem = f'expected a regular expression as the answer, got {answer!r:.100}: {error}'
          raise DataError(f'{where}: {problem}.') from error
      elif self._kind == 'choice' and not _LETTER.fullmatch(answer):
        raise DataError(f'{where}: expected a letter as the answer, got {answer!r:.100}.')
    return {}

  def verify_batch(self, problems: Sequence[Record], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdict on each completion, in order.

    Raises:
      RuntimeError: if the function raises, with its traceback, or returns what is no verdict.
    """
    items = [
      {'row': problem['row'], 'completion': completion}
      if self._takes_rows
      else {
        'answer': self._right_answer(problem),
        'completion': completion,
        'marked': marked_answer(completion),
      }
      for problem, completion in zip(problems, completions, strict=True)
      if completion.strip()
    ]
    replies = iter(self._pool.map(items))
    verdicts = []
    for completion in completions:
      reply = next(replies) if completion.strip() else None
      if reply is None:
        verdicts.append(Verdict('empty'))
      else:
        verdicts.append(Verdict(*reply.value) if reply.status == 'done' else Verdict('unjudged'))
    return verdicts

  def _right_answer(self, problem: Record) -> str:
    answer = problem['answer']
    return _LETTER.fullmatch(answer)[1].upper() if self._kind == 'choice' else answer

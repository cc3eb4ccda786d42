"""Compares answers to mathematical problems: the worker of `math_answers.py`, imported by nobody.

math-verify's own time limits are off, and the pool kills instead. They are of whole seconds, by
signal.alarm, which would undo the alarm of `worker_main.py` and cannot interrupt a power of huge
numbers; and they end in an exception that code in between may catch.
"""

import functools
import importlib.util
import logging
from pathlib import Path

import math_verify
from math_verify.grader import is_assignment_relation, take_last_relation

_SPEC = importlib.util.spec_from_file_location('exact', Path(__file__).with_name('exact.py'))
exact = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(exact)

MAX_VOTE_LENGTH = 200
# All of a text in a box is the answer; in prose it has to be found, and no box is left.
BOXED = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
PROSE = [
  math_verify.LatexExtractionConfig(boxed_match_priority=-1),
  math_verify.ExprExtractionConfig(),
]


def make_handler():
  """Returns `compare`."""
  logging.disable(logging.CRITICAL)  # math-verify warns that its time limits are off.
  return compare


def compare(item):
  """Compares an answer with the right one.

  Args:
    item: the right answer in LaTeX; the text with the answer, None to look at the right answer
      alone; whether that text is prose.

  Returns:
    A kind of verdict and the answer as votes compare it: the right answer's own text, or a string
    of the expression. Without a text: whether the right answer can be parsed and equals itself.
  """
  gold, text, is_prose = item
  expected = parse_gold(gold)
  if text is None:
    return bool(expected) and verify(expected, expected)
  if not expected:
    raise ValueError(f'gold: expected LaTeX that math-verify can parse, got {gold!r}.')
  try:
    found = parse(text, PROSE) if is_prose else parse(f'\\boxed{{{text}}}', BOXED)
    if not found:
      return ['malformed', None]
    return ['right', gold] if is_equal(gold, text, expected, found) else ['wrong', vote(found[0])]
  except RecursionError:
    return ['malformed', None]


def parse(text, config):
  """Returns a list of one SymPy expression, or of none."""
  text = exact.normalized(text)
  return math_verify.parse(text, config, fallback_mode='no_fallback', parsing_timeout=None)


@functools.lru_cache  # The samples of a problem share it.
def parse_gold(gold):
  """Returns what `parse` does for a right answer."""
  return parse(f'\\boxed{{{gold}}}', BOXED)


def verify(expected, found):
  """Returns whether they are equal; math-verify treats the two differently."""
  return math_verify.verify(expected, found, timeout_seconds=None)


def is_equal(gold, text, expected, found):
  """Returns whether two answers are equal: math-verify's word, but where numbers tell exactly."""
  if verify(expected, found):
    return not exact.differs(gold, text, expected[0], found[0])
  return exact.is_same_set(expected[0], found[0])


def vote(expression):
  """Returns a string that is mostly the same for equal values: 0.5, 1/2 and x = 1/2."""
  if is_assignment_relation(expression):
    expression = take_last_relation(expression).rhs
  if getattr(expression, 'is_number', False):
    expression = expression.evalf(12, chop=True)
  return str(expression)[:MAX_VOTE_LENGTH]

"""Countdown: reach a target with given numbers, each used once."""

import ast
import dataclasses
import operator
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from pkpo_jax.data.base import Generated, Record
from pkpo_jax.data.drawn import drawn_splits
from pkpo_jax.errors import expect
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import TextProblems, distinct_problems
from pkpo_jax.tokenizers import Tokenizer

MAX_LENGTH = 128  # Characters; keeps parsing quick and its nesting far below what Python refuses.
OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul, '/': operator.truediv}
_CHARACTERS = frozenset('0123456789+-*/() ')
_BINARY = dict(zip((ast.Add, ast.Sub, ast.Mult, ast.Div), OPERATORS.values(), strict=True))
_WHITELIST = {ast.Expression, ast.BinOp, ast.UnaryOp, ast.USub, ast.Constant, *_BINARY}


def verify_countdown(numbers: Sequence[int], target: int, completion: str) -> Verdict:
  """Returns whether the expression uses each number exactly once and has the target's value.

  Expressions are made of whole numbers, + - * /, parentheses and white space; a minus may stand in
  front of a term. They are parsed as Python, never run: what Python cannot parse is malformed, what
  it can and is more than such an expression (a name, a call, a power, 0x10) is hostile. Values are
  exact fractions; a division by zero is wrong. Answers are compared by their text without spaces.

  Args:
    numbers: what to use, positive.
    target: the value to reach.
    completion: the expression. More than MAX_LENGTH characters are overlong.

  >>> verify_countdown([3, 5, 7], 22, '3 * 5 + 7')
  Verdict(kind='right', answer='3*5+7', score=None)
  >>> [verify_countdown([3, 5, 7], 22, x).kind for x in ('15+7', '3*5+7=22', '7+eval("15")')]
  ['wrong', 'malformed', 'hostile']
  """
  if len(completion) > MAX_LENGTH:
    return Verdict('overlong')
  text = ' '.join(completion.split())
  if not text:
    return Verdict('empty')
  if not _CHARACTERS.issuperset(text):
    with warnings.catch_warnings(action='ignore'):  # Python warns of the likes of '1if 1else 2'.
      return Verdict('malformed' if _parse(text) is None else 'hostile')
  tree = _parse(text)
  if tree is None:
    return Verdict('malformed')
  nodes = list(ast.walk(tree))
  if not all(type(node) in _WHITELIST for node in nodes):
    return Verdict('hostile')
  used = [node.value for node in nodes if isinstance(node, ast.Constant)]
  try:
    is_right = sorted(used) == sorted(numbers) and _value(tree.body) == target
  except ZeroDivisionError:
    is_right = False
  return Verdict('right' if is_right else 'wrong', text.replace(' ', ''))


def _parse(text: str) -> ast.Expression | None:
  try:
    return ast.parse(text, mode='eval')
  except (SyntaxError, ValueError, MemoryError, RecursionError):  # All that ast.parse may raise.
    return None


def _value(node: ast.expr) -> Fraction:
  """Returns the value of an expression whose nodes are all in the whitelist."""
  if isinstance(node, ast.Constant):
    return Fraction(node.value)
  if isinstance(node, ast.UnaryOp):
    return -_value(node.operand)
  return _BINARY[type(node.op)](_value(node.left), _value(node.right))


# An expression with its operators behind what they take: (3, 5, '*', 7, '+') is 3*5+7.
Postfix = tuple[int | str, ...]
_LEVELS = {'+': 0, '-': 0, '*': 1, '/': 1}


@dataclasses.dataclass(frozen=True)
class Countdown:
  """A problem; two with the same numbers and the same target are one.

  Attributes:
    numbers: what to use, ascending.
    target: the value to reach.
    solution: an expression that reaches it.
  """

  numbers: tuple[int, ...]
  target: int
  solution: Postfix = dataclasses.field(compare=False)


class CountdownTask(TextProblems):
  """Write an expression over + - * / that uses each number once and has the target's value."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    seed: int = 0,
    num_train: int = 2000,
    num_held_out: int = 256,
    num_numbers: int = 3,
    max_number: int = 20,
    max_target: int = 99,
    demonstration_noise: float = 0.3,
  ):
    """Draws distinct problems, each with a solution.

    Args:
      tokenizer: the policy's.
      seed: of the problems; the same seed gives the same held-out problems for every num_train.
      num_train: problems to train on.
      num_held_out: problems to evaluate on.
      num_numbers: numbers of a problem.
      max_number: numbers are 1 to max_number.
      max_target: targets are 1 to max_target.
      demonstration_noise: chance that an operator of a demonstration is a random one, and chance
        that its numbers stand in a random order.
    """
    expect(0 <= demonstration_noise <= 1, 'demonstration_noise', 'in [0, 1]', demonstration_noise)
    problems = distinct_countdowns(
      seed, num_train, num_held_out, num_numbers, max_number, max_target
    )
    self._noise = demonstration_noise
    super().__init__(tokenizer, problems, num_held_out)

  def prompt_text(self, problem: Countdown) -> str:
    """Returns the numbers and the target: '3 5 7=22:'."""
    return f'{" ".join(map(str, problem.numbers))}={problem.target}:'

  def verify(self, problem: Countdown, completion: str) -> Verdict:
    """Returns the verdict of `verify_countdown`."""
    return verify_countdown(problem.numbers, problem.target, completion)

  def demonstrate(self, problem: Countdown, rng: np.random.Generator) -> str:
    """Returns the solution with some operators, or the order of its numbers, replaced."""
    is_noisy = lambda: rng.random() < self._noise
    choose = lambda operator: str(rng.choice(list(OPERATORS))) if is_noisy() else operator
    numbers = [symbol for symbol in problem.solution if symbol not in OPERATORS]
    numbers = iter(rng.permutation(numbers).tolist() if is_noisy() else numbers)
    return infix([choose(x) if x in OPERATORS else next(numbers) for x in problem.solution])


def distinct_countdowns(
  seed: int, num_train: int, num_held_out: int, num_numbers: int, max_number: int, max_target: int
) -> list[Countdown]:
  """Returns the problems of a `CountdownTask` with these fields, those to train on first.

  Raises:
    ValueError: if a field is out of range, or there are not so many problems.
  """
  # The longest solution fits into MAX_LENGTH twice.
  expect(2 <= num_numbers <= 6, 'num_numbers', '2 to 6', num_numbers)
  expect(1 <= max_number <= 9999, 'max_number', '1 to 9999', max_number)
  expect(max_target >= 1, 'max_target', 'at least 1', max_target)
  draw = lambda rng: draw_countdown(rng, num_numbers, max_number, max_target)
  return distinct_problems(draw, seed, num_train, num_held_out)


def draw_countdown(
  rng: np.random.Generator, num_numbers: int, max_number: int, max_target: int
) -> Countdown | None:
  """Returns a random expression as a problem, None if its value is no target."""
  numbers = rng.integers(1, max_number + 1, num_numbers).tolist()
  terms = [(Fraction(number), (number,)) for number in numbers]
  while len(terms) > 1:
    rng.shuffle(terms)
    (left, left_postfix), (right, right_postfix), *terms = terms
    operator = str(rng.choice(list(OPERATORS)))
    if operator == '/' and right == 0:
      return None
    value = OPERATORS[operator](left, right)
    terms.append((value, (*left_postfix, *right_postfix, operator)))
  ((value, solution),) = terms
  if value.denominator != 1 or not 1 <= value <= max_target:
    return None
  return Countdown(tuple(sorted(numbers)), int(value), solution)


def infix(postfix: Sequence[int | str]) -> str:
  """Returns an expression as it is usually written, with no parentheses that it can do without.

  >>> infix((3, 5, 7, '+', '*')), infix((3, 5, 7, '-', '+'))
  ('3*(5+7)', '3+5-7')
  """
  stack = []
  for symbol in postfix:
    if symbol not in OPERATORS:
      stack.append((str(symbol), 2))
      continue
    (right, right_level), (left, left_level), level = stack.pop(), stack.pop(), _LEVELS[symbol]
    if left_level < level:
      left = f'({left})'
    if right_level < level or (right_level == level and symbol in '-/'):
      right = f'({right})'
    stack.append((left + symbol + right, level))
  return stack[0][0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountdownDataset(Generated):
  """Distinct problems; the fields are those of `CountdownTask`."""

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

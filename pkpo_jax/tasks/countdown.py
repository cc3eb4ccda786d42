"""Countdown: reach a target with given numbers, each used once."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from pkpo_jax.settings import expect
from pkpo_jax.tasks.text import TextProblems, distinct_problems
from pkpo_jax.tasks.verifiers import Verdict
from pkpo_jax.tasks.verifiers.countdown import OPERATORS, verify_countdown

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
    tokenizer: dict,
    seed: int,
    num_train: int,
    num_held_out: int,
    num_numbers: int,
    max_number: int,
    max_target: int,
    demonstration_noise: float,
  ):
    """Draws distinct problems, each with a solution.

    Args:
      tokenizer: config of one of `pkpo_jax.tokenizers.TOKENIZERS`.
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
  # The longest solution fits into verifiers.countdown.MAX_LENGTH twice.
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

"""Drills: one small skill, a line to read and a line to write, after a few worked examples.

For pretrained models too small for MATH: which of these a model finds hard, and whether it does
better in many samples than in one, is in experiments/pretrained.
"""

import dataclasses
import functools
import re
import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pkpo_jax.errors import expect, require_package
from pkpo_jax.settings import lookup
from pkpo_jax.tasks.countdown import draw_countdown, infix, verify_countdown
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import TextProblems, distinct_problems
from pkpo_jax.tokenizers import Tokenizer

_NUM_ENTRIES = 2**20


@dataclasses.dataclass(frozen=True)
class Drill:
  """A problem; two with the same question are one.

  Attributes:
    question: a line.
    answer: a line; for countdown one of those that are right.
  """

  question: str
  answer: str = dataclasses.field(compare=False)


class Kind(NamedTuple):
  """A skill.

  Attributes:
    instruction: what to do with a question.
    draw: returns a problem, None for one that is not to be used.
  """

  instruction: str
  draw: Callable[[np.random.Generator], Drill | None]


def _letters(rng: np.random.Generator, length: int) -> list[str]:
  return rng.choice(list(string.ascii_lowercase), length, replace=False).tolist()


def _reverse(length: int) -> Kind:
  def draw(rng):
    letters = _letters(rng, length)
    return Drill(' '.join(letters), ' '.join(reversed(letters)))

  return Kind('Write the letters in reverse order.', draw)


def _sort_letters(rng):
  letters = _letters(rng, 4)
  return Drill(' '.join(letters), ' '.join(sorted(letters)))


def _sort_numbers(rng):
  numbers = rng.choice(np.arange(10, 100), 4, replace=False).tolist()
  return Drill(' '.join(map(str, numbers)), ' '.join(map(str, sorted(numbers))))


def _spell(rng):
  letters = _letters(rng, 5)
  return Drill(''.join(letters), ' '.join(letters))


def _largest(rng):
  numbers = rng.choice(np.arange(10, 100), 3, replace=False).tolist()
  return Drill(' '.join(map(str, numbers)), str(max(numbers)))


def _arithmetic(symbol: str, least: int, most: int) -> Kind:
  """Returns the kind of sums, differences or products of two numbers in [least, most]."""
  compute = {'+': lambda a, b: a + b, '-': lambda a, b: a - b, '*': lambda a, b: a * b}[symbol]

  def draw(rng):
    left, right = rng.integers(least, most + 1, 2).tolist()
    return Drill(f'{left} {symbol} {right}', str(compute(left, right)))

  return Kind('Write the value.', draw)


def _add_digits(rng):
  digits = rng.integers(1, 10, 3).tolist()
  return Drill(' + '.join(map(str, digits)), str(sum(digits)))


def _binary(rng):
  number = int(rng.integers(1, 1024))
  return Drill(str(number), f'{number:b}')


def _remainder(rng):
  number, divisor = int(rng.integers(10, 200)), int(rng.integers(3, 10))
  return Drill(f'{number} divided by {divisor}', str(number % divisor))


def _countdown(num_numbers: int) -> Kind:
  def draw(rng):
    problem = draw_countdown(rng, num_numbers, max_number=9, max_target=50)
    if problem is None:
      return None
    numbers = ' '.join(map(str, problem.numbers))
    return Drill(f'{numbers} makes {problem.target}', infix(problem.solution))

  return Kind('Write the target as an expression that uses each number once.', draw)


def _reasoning_gym(name: str) -> Kind:
  """Returns the kind of a data set of reasoning-gym whose questions and answers are lines."""

  @functools.cache
  def entries():
    require_package('reasoning_gym', extra='puzzles')
    import reasoning_gym  # other drills do without it

    return reasoning_gym.create_dataset(name, seed=0, size=_NUM_ENTRIES)  # Made one by one.

  def draw(rng):
    entry = entries()[int(rng.integers(_NUM_ENTRIES))]
    text = entry['question'] + entry['answer']
    is_usable = entry['answer'] and text.isascii() and '\n' not in text
    return Drill(entry['question'], entry['answer']) if is_usable else None

  return Kind('Answer the question.', draw)


KINDS = {
  'reverse_3': _reverse(3),
  'reverse_4': _reverse(4),
  'spell': Kind('Write the letters of the word.', _spell),
  'sort_letters': Kind('Write the letters in alphabetical order.', _sort_letters),
  'sort_numbers': Kind('Write the numbers from the smallest to the largest.', _sort_numbers),
  'largest': Kind('Write the largest number.', _largest),
  'add_digits': Kind('Write the value.', _add_digits),
  'add': _arithmetic('+', 10, 99),
  'subtract': _arithmetic('-', 10, 99),
  'multiply': _arithmetic('*', 2, 40),
  'remainder': Kind('Write the remainder.', _remainder),
  'binary': Kind('Write the number in binary.', _binary),
  'countdown_3': _countdown(3),
  'countdown_4': _countdown(4),
  **{
    f'gym_{name}': _reasoning_gym(name)
    for name in (
      *('basic_arithmetic', 'chain_sum', 'letter_counting', 'number_sequence'),
      *('simple_equations', 'spell_backward'),
    )
  },
}


class Drills(TextProblems):
  """Write the line that answers a line, as in the examples before it."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    kind: str = 'reverse_3',
    seed: int = 0,
    num_train: int = 500,
    num_held_out: int = 128,
    num_examples: int = 4,
    prompt_format: str = 'lines',
    max_prompt_tokens: int | None = None,
  ):
    """Draws distinct problems, some of them as examples that every prompt shows.

    Args:
      tokenizer: the policy's.
      kind: a key of KINDS.
      seed: of the problems; the same seed gives the same examples and held-out problems for every
        num_train.
      num_train: problems to train on.
      num_held_out: problems to evaluate on.
      num_examples: problems with their answers in every prompt; not among the others.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat'; see `TextProblems`.
      max_prompt_tokens: problems with longer prompts are left out; None keeps all.

    Raises:
      ValueError: if a field is out of range, or there are not so many problems.
    """
    expect(num_examples >= 0, 'num_examples', 'at least 0', num_examples)
    self._kind, self._is_countdown = lookup('kind', kind, KINDS), kind.startswith('countdown')
    drawn = distinct_problems(self._kind.draw, seed, num_train, num_examples + num_held_out)
    train, others = drawn[:num_train], drawn[num_train:]
    self._examples = [(problem.question, problem.answer) for problem in others[:num_examples]]
    super().__init__(
      tokenizer,
      train + others[num_examples:],
      num_held_out,
      prompt_format=prompt_format,
      max_prompt_tokens=max_prompt_tokens,
    )

  def prompt_text(self, problem: Drill) -> str:
    """Returns the instruction, the examples and the question."""
    return self._format.prompt(problem.question, self._kind.instruction, self._examples)

  def verify(self, problem: Drill, completion: str) -> Verdict:
    """Returns whether the text is the answer, apart from white space around it.

    In countdown every expression that `verify_countdown` accepts is right.
    """
    text = completion.strip()
    if self._is_countdown:
      *numbers, target = map(int, re.findall(r'\d+', problem.question))
      return verify_countdown(numbers, target, text)
    if not text:
      return Verdict('empty')
    return Verdict('right' if text == problem.answer else 'wrong', text)

  def demonstrate(self, problem: Drill, rng: np.random.Generator) -> str:
    """Returns the answer."""
    del rng
    return problem.answer

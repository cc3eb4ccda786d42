r"""A task of one's own in one file: add two numbers.

  python -m pkpo_jax.main --config=configs/maze_tiny.py:warm --workdir=runs/sums_warm \
    --config.task.name=examples/sums.py:Sums --config.task.largest=30
  python -m pkpo_jax.main --config=configs/maze_tiny.py --workdir=runs/sums_k8 \
    --config.task.name=examples/sums.py:Sums --config.task.largest=30 \
    --config.warm_start=runs/sums_warm --config.advantage.k=8

The first imitates `demonstrate`, so that some answers are right; the second learns from rewards.
Arguments of `__init__` but the tokenizer are fields of config.task.
"""

import numpy as np

from pkpo_jax.errors import expect
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import TextProblems, distinct_problems
from pkpo_jax.tokenizers import Tokenizer


class Sums(TextProblems):
  """Write the sum of two numbers; the reward is 1 if it is right."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    largest: int = 30,
    num_train: int = 500,
    num_held_out: int = 256,
    seed: int = 0,
  ):
    """Draws distinct pairs of numbers from 0 to `largest`."""
    expect(largest >= 1, 'largest', 'at least 1', largest)
    draw = lambda rng: tuple(rng.integers(0, largest + 1, 2).tolist())
    problems = distinct_problems(draw, seed, num_train, num_held_out)
    super().__init__(tokenizer, problems, num_held_out)

  def prompt_text(self, problem: tuple[int, int]) -> str:
    """Returns what the policy reads."""
    return '{}+{}='.format(*problem)

  def verify(self, problem: tuple[int, int], completion: str) -> Verdict:
    """Returns whether a completion is the sum; its number is the answer that votes count."""
    text = completion.strip()
    if not text.isdecimal():
      return Verdict('malformed' if text else 'empty')
    return Verdict('right' if int(text) == sum(problem) else 'wrong', answer=str(int(text)))

  def demonstrate(self, problem: tuple[int, int], rng: np.random.Generator) -> str:
    """Returns a completion to imitate: the sum, often with a wrong last digit."""
    last = sum(problem) % 10 if rng.random() < 0.3 else int(rng.integers(10))
    return str(sum(problem) // 10 * 10 + last)

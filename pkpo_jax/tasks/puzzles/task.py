"""Puzzles that the package reasoning-gym generates and scores."""

import itertools
from collections.abc import Sequence

import numpy as np

from pkpo_jax.data import datasets
from pkpo_jax.errors import expect
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.puzzles.dataset import ReasoningGym
from pkpo_jax.tasks.puzzles.verifier import Puzzle, PuzzleVerifier, check_names
from pkpo_jax.tasks.text import TextProblems
from pkpo_jax.tokenizers import Tokenizer

_INSTRUCTION = (
  'Answer the question below. Write your final answer, and nothing else, between <answer> and '
  '</answer>.'
)


class PuzzlesTask(TextProblems):
  """Answer questions of data sets of reasoning-gym, with their default settings."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    data_dir: str = 'data',
    names: tuple[str, ...] = ('spell_backward', 'gcd', 'chain_sum'),
    size: int = 2256,
    num_held_out: int = 256,
    seed: int = 0,
    num_workers: int = 2,
    deadline_s: float = 5.0,
    prompt_format: str = 'gemma_it',
    max_prompt_tokens: int | None = None,
  ):
    """Generates the puzzles, or reads those that were.

    Args:
      tokenizer: the policy's.
      data_dir: where generated puzzles are kept.
      names: of the data sets; not those of `pkpo_jax.tasks.puzzles.verifier.REFUSED`.
      size: entries of each data set. Those whose question has come before, or whose answer is
        empty, are left out, and counted in a line that is printed.
      num_held_out: puzzles of each data set to evaluate on, the first ones, whatever the size; the
        others are to train on.
      seed: of the puzzles.
      num_workers: processes that score answers.
      deadline_s: seconds for one answer.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat'; see `TextProblems`.
      max_prompt_tokens: puzzles with longer prompts are left out, too; None keeps all.
    """
    check_names(names)
    expect(num_held_out >= 1, 'num_held_out', 'at least 1', num_held_out)
    self._verifier = PuzzleVerifier(num_workers, deadline_s)
    records = datasets.load(ReasoningGym(names=names, size=size, seed=seed), data_dir)['train']
    fields = [[record[field] for field in Puzzle._fields] for record in records]
    puzzles = distinct_puzzles([Puzzle(*values) for values in fields])
    if len(puzzles) < len(records):
      print(
        f'Left out {len(records) - len(puzzles)} of {len(records)} puzzles, whose question had '
        'come before or whose answer is empty.'
      )
    train, held_out = [], []
    for name in names:
      of_name = [puzzle for puzzle in puzzles if puzzle.dataset == name]
      enough = f'more, as num_held_out = {num_held_out} and {name} has {len(of_name)} puzzles'
      expect(len(of_name) > num_held_out, 'size', enough, size)
      held_out.append(of_name[:num_held_out])
      train.append(of_name[num_held_out:])
    # An evaluation takes the first of those held out, so the data sets take turns.
    turns = [*itertools.chain(*train), *itertools.chain(*zip(*held_out, strict=True))]
    num_held_out *= len(names)
    super().__init__(tokenizer, turns, num_held_out, prompt_format, max_prompt_tokens)

  def close(self) -> None:
    """Ends the processes that score answers."""
    self._verifier.close()

  def prompt_text(self, problem: Puzzle) -> str:
    """Returns the question and how to mark the answer."""
    return self._format.prompt(problem.question, _INSTRUCTION)

  def verify_batch(self, problems: Sequence[Puzzle], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdicts of `PuzzleVerifier`."""
    return self._verifier.verify_batch(problems, completions)

  def demonstrate(self, problem: Puzzle, rng: np.random.Generator) -> str:
    """Returns the answer in its marks."""
    del rng
    return f'<answer>{problem.answer}</answer>'


def distinct_puzzles(puzzles: Sequence[Puzzle]) -> list[Puzzle]:
  """Returns the puzzles that have an answer, of those with one question the first."""
  first = {}
  for puzzle in puzzles:
    if puzzle.answer.strip():
      first.setdefault(puzzle.question, puzzle)
  return list(first.values())

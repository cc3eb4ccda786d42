"""Mazes of characters, the synthetic task of Pass@k Training (arXiv 2508.10751)."""

import dataclasses
import pathlib
from collections import deque
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from pkpo_jax.data.base import Generated, Record
from pkpo_jax.data.drawn import drawn_splits
from pkpo_jax.errors import expect
from pkpo_jax.tasks.grades import Grades, Verdict
from pkpo_jax.tasks.math.verifier import marked_answer
from pkpo_jax.tasks.text import TextProblems, distinct_problems
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key

START, END, WALL, FREE = 'S', 'E', '*', '.'
# Row and column.
MOVES = {'U': (-1, 0), 'D': (1, 0), 'L': (0, -1), 'R': (0, 1)}


def verify_maze(rows: Sequence[str], completion: str) -> Verdict:
  """Returns whether the moves lead from S to E inside the maze and through no wall.

  Only where the moves end counts: they may pass E before. White space around them is no fault,
  anything else that is no move is.

  Args:
    rows: the maze, as `pkpo_jax.tasks.maze` draws it.
    completion: a string over U, D, L, R. More moves than four times the cells are overlong.

  >>> verify_maze(['S.', '*E'], 'RD')
  Verdict(kind='right', answer='RD', score=None)
  >>> verify_maze(['S.', '*E'], 'DR').kind, verify_maze(['S.', '*E'], 'right, down').kind
  ('wrong', 'malformed')
  """
  if len(completion) > 4 * len(rows) * len(rows[0]):
    return Verdict('overlong')
  moves = completion.strip()
  if not moves:
    return Verdict('empty')
  if not set(moves) <= MOVES.keys():
    return Verdict('malformed')
  row, column = next((r, line.index(START)) for r, line in enumerate(rows) if START in line)
  for move in moves:
    row, column = row + MOVES[move][0], column + MOVES[move][1]
    if not _is_free(rows, row, column):
      return Verdict('wrong', moves)
  return Verdict('right' if rows[row][column] == END else 'wrong', moves)


def share_of_way(rows: Sequence[str], moves: str) -> float:
  """Returns how much of the way to E the moves have gone, in [0, 1].

  With d the fewest moves from a cell to E, it is 1 - d(last cell) / d(S), and 0 if that is
  negative or the moves leave the maze or enter a wall.

  Args:
    rows: the maze; E can be reached from S.
    moves: a string over U, D, L, R.

  >>> share_of_way(['S.', '*E'], 'R'), share_of_way(['S.', '*E'], 'RD')
  (0.5, 1.0)
  """
  row, column = next((r, line.index(END)) for r, line in enumerate(rows) if END in line)
  distances, queue = {(row, column): 0}, deque([(row, column)])
  while queue:
    row, column = queue.popleft()
    for down, right in MOVES.values():
      cell = row + down, column + right
      if _is_free(rows, *cell) and cell not in distances:
        distances[cell] = distances[row, column] + 1
        queue.append(cell)
  row, column = start = next((r, line.index(START)) for r, line in enumerate(rows) if START in line)
  for move in moves:
    row, column = row + MOVES[move][0], column + MOVES[move][1]
    if not _is_free(rows, row, column):
      return 0.0
  return max(0.0, 1 - distances[row, column] / distances[start])


def _is_free(rows: Sequence[str], row: int, column: int) -> bool:
  """Returns whether a cell is inside the maze and no wall."""
  is_inside = 0 <= row < len(rows) and 0 <= column < len(rows[0])
  return is_inside and rows[row][column] != WALL


Maze = tuple[str, ...]
REWARDS = ('right', 'share')
INSTRUCTION = (
  'Find a way through the maze below. Rows are lines of text; S is the start, E the end, * a wall '
  'and . a free cell. Each move, U (up), D (down), L (left) or R (right), goes to the next cell; '
  'do not leave the maze or enter a wall. Think step by step, and write the moves in their order '
  r'within \boxed{}, such as \boxed{RRDL}.'
)


class MazeTask(TextProblems):
  """Find a way from S to E: the prompt is the maze, row by row, the answer a string over UDLR."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    seed: int = 0,
    num_train: int = 2000,
    num_held_out: int = 256,
    size: int = 5,
    wall_share: float = 0.3,
    min_moves: int = 3,
    max_moves: int = 8,
    demonstration_noise: float = 0.2,
    prompt_format: str | None = None,
    reward: str = 'right',
    reward_noise: float = 0.0,
  ):
    """Draws distinct mazes.

    Args:
      tokenizer: the policy's.
      seed: of the mazes; the same seed gives the same held-out mazes for every num_train.
      num_train: mazes to train on.
      num_held_out: mazes to evaluate on.
      size: rows, and columns, of a maze.
      wall_share: chance that a cell is a wall.
      min_moves: least length of the shortest way.
      max_moves: greatest length of the shortest way.
      demonstration_noise: chance that a demonstration has a random move in place of a right one.
      prompt_format: None shows the maze alone and takes the whole answer for moves, for models
        made here; one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat', comes with an instruction,
        and the moves are in the answer's last box.
      reward: 'right', 1 for a right answer, else 0, or 'share', `share_of_way`.
      reward_noise: with reward 'right', chance that a wrong answer to a maze to train on is
        rewarded like a right one. It does not count as right.
    """
    expect(0 <= demonstration_noise <= 1, 'demonstration_noise', 'in [0, 1]', demonstration_noise)
    expect(reward in REWARDS, 'reward', f'one of {REWARDS}', reward)
    most = 1 if reward == 'right' else 0
    expect(0 <= reward_noise <= most, 'reward_noise', f'in [0, {most}]', reward_noise)
    self._is_shaped, self._reward_noise = reward == 'share', reward_noise
    if self._is_shaped:
      self.objectives = ('pass@k', 'max@k')
    problems = distinct_mazes(seed, num_train, num_held_out, size, wall_share, min_moves, max_moves)
    self._noise, self._in_box = demonstration_noise, prompt_format is not None
    super().__init__(tokenizer, problems, num_held_out, prompt_format or 'plain')

  def prompt_text(self, problem: Maze) -> str:
    """Returns the maze and a sign that the answer follows, or the instruction and the maze."""
    rows = '\n'.join(problem)
    return self._format.prompt(rows, INSTRUCTION) if self._in_box else f'{rows}\n='

  def verify(self, problem: Maze, completion: str) -> Verdict:
    """Returns the verdict of `verify_maze`, with a score if the reward is a share of the way."""
    moves = marked_answer(completion) if self._in_box else completion
    if moves is None:
      verdict = Verdict('malformed' if completion.strip() else 'empty')
    else:
      verdict = verify_maze(problem, moves)
    if not self._is_shaped:
      return verdict
    return verdict._replace(score=share_of_way(problem, verdict.answer) if verdict.answer else 0.0)

  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns the grades that the verdicts give, with noise in the rewards if there is any."""
    grades = super().grade(prompts, rollout, key)
    if not self._reward_noise:
      return grades
    # Drawn for each maze by itself, whatever else is graded with it.
    entropy = jax.random.key_data(key).tolist()
    ids = np.asarray(jax.device_get(prompts.ids))
    drawn = [np.random.default_rng([*entropy, i]).random(grades.rewards.shape[1]) for i in ids]
    is_paid = (np.stack(drawn) < self._reward_noise) & (ids < self.num_problems)[:, None]
    return grades._replace(rewards=np.maximum(grades.rewards, is_paid.astype(np.float32)))

  def demonstrate(self, problem: Maze, rng: np.random.Generator) -> str:
    """Returns a shortest way, some of whose moves are replaced by random ones."""
    way = shortest_way(problem, rng)
    noise = rng.choice(list(MOVES), len(way))
    moves = ''.join(np.where(rng.random(len(way)) < self._noise, noise, list(way)))
    return rf'\boxed{{{moves}}}' if self._in_box else moves


def distinct_mazes(
  seed: int,
  num_train: int,
  num_held_out: int,
  size: int,
  wall_share: float,
  min_moves: int,
  max_moves: int,
) -> list[Maze]:
  """Returns the mazes of a `MazeTask` with these fields, those to train on first.

  Raises:
    ValueError: if a field is out of range, or there are not so many mazes.
  """
  expect(2 <= size <= 64, 'size', '2 to 64', size)
  expect(0 <= wall_share < 1, 'wall_share', 'a number in [0, 1)', wall_share)
  expect(1 <= min_moves <= max_moves, 'min_moves', f'1 to max_moves = {max_moves}', min_moves)
  expect(min_moves < size**2, 'min_moves', f'fewer than the {size**2} cells', min_moves)
  draw = lambda rng: draw_maze(rng, size, wall_share, min_moves, max_moves)
  return distinct_problems(draw, seed, num_train, num_held_out)


def draw_maze(
  rng: np.random.Generator, size: int, wall_share: float, min_moves: int, max_moves: int
) -> Maze | None:
  """Returns a random maze, None if its shortest way is not of min_moves to max_moves moves."""
  cells = np.where(rng.random((size, size)) < wall_share, WALL, FREE)
  start, end = rng.choice(size * size, 2, replace=False)
  cells.flat[start], cells.flat[end] = START, END
  maze = tuple(''.join(row) for row in cells)
  way = shortest_way(maze, rng)
  return maze if way is not None and min_moves <= len(way) <= max_moves else None


def shortest_way(maze: Maze, rng: np.random.Generator) -> str | None:
  """Returns one of the shortest ways from S to E, None if there is no way."""
  size = len(maze)
  cells = ''.join(maze)
  start, end = cells.index(START), cells.index(END)
  came_by, queue = {start: ''}, deque([start])
  moves = [list(MOVES)[i] for i in rng.permutation(len(MOVES))]
  while queue and end not in came_by:
    cell = queue.popleft()
    row, column = divmod(cell, size)
    for move in moves:
      r, c = row + MOVES[move][0], column + MOVES[move][1]
      if 0 <= r < size and 0 <= c < size and maze[r][c] != WALL and r * size + c not in came_by:
        came_by[r * size + c] = move
        queue.append(r * size + c)
  if end not in came_by:
    return None
  way, cell = '', end
  while cell != start:
    move = came_by[cell]
    way = move + way
    cell -= MOVES[move][0] * size + MOVES[move][1]
  return way


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazeDataset(Generated):
  """Distinct mazes; the fields are those of `MazeTask`."""

  name = 'maze'
  features = {'id': str, 'rows': list[str]}
  packages = ('numpy',)
  description = 'Mazes of characters: find a way from S to E.'
  citation = 'Chen et al. 2025, Pass@k Training, arXiv 2508.10751'

  seed: int
  num_train: int
  num_held_out: int
  size: int
  wall_share: float
  min_moves: int
  max_moves: int

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, list[Record]]:
    """Returns 'train' and 'held_out'; an id is split and place: 'train/0'."""
    del files
    mazes = distinct_mazes(**self.options)
    return drawn_splits([{'rows': list(maze)} for maze in mazes], self.num_train)

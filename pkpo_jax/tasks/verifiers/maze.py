"""Judges a way through a maze."""

from collections.abc import Sequence

from pkpo_jax.tasks.verifiers import Verdict

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
    is_inside = 0 <= row < len(rows) and 0 <= column < len(rows[0])
    if not is_inside or rows[row][column] == WALL:
      return Verdict('wrong', moves)
  return Verdict('right' if rows[row][column] == END else 'wrong', moves)

"""Judges a grid that is written in text."""

import itertools
import operator
import re
from collections.abc import Sequence

from pkpo_jax.tasks.grades import Verdict

Grid = tuple[tuple[int, ...], ...]

MAX_SIDE = 30  # Rows, and columns, of a grid of ARC-AGI.
MAX_LENGTH = 2**15  # Characters; room for thoughts ahead of the largest grid, which takes 1,799.
_ROW = re.compile('[0-9]+|[0-9](?:[ \t]+[0-9])+')


def grid_text(grid: Sequence[Sequence[int]]) -> str:
  r"""Returns a grid as text, a line a row, with a space between cells.

  >>> grid_text([[1, 2], [3, 4]])
  '1 2\n3 4'
  """
  return '\n'.join(' '.join(map(str, row)) for row in grid)


def parse_grid(text: str) -> Grid | None:
  r"""Returns the last grid of a text, None if there is none.

  A row is a line of digits, either all with white space between them or all without; white space
  around it is no fault. The grid is the last block of rows with no other line between them, so what
  stands ahead of it, a marker such as 'Output:' or a fence does not matter. If its rows are not of
  one length, or there are more than MAX_SIDE of them or of their cells, there is no grid: one
  further up does not count.

  >>> parse_grid('Input:\n0\n\nOutput:\n```\n1 2\n34\n```')
  ((1, 2), (3, 4))
  >>> parse_grid('1 2\n3'), parse_grid('12 34'), parse_grid('1 2;3 4')
  (None, None, None)
  """
  rows = []
  for line in reversed(text.split('\n')):
    line = line.strip(' \t\r')
    if _ROW.fullmatch(line):
      rows.append(tuple(int(cell) for cell in line if cell.isdigit()))
    elif rows:
      break
  if not 1 <= len(rows) <= MAX_SIDE or len(rows[0]) > MAX_SIDE or len(set(map(len, rows))) > 1:
    return None
  return tuple(reversed(rows))


def verify_arc(output: Grid, completion: str, scores_cells: bool = False) -> Verdict:
  r"""Returns whether the last grid of a completion, by `parse_grid`, is the output.

  Args:
    output: the right grid.
    completion: the text. More than MAX_LENGTH characters are overlong.
    scores_cells: give grids a score, the share of right cells if the size is right, else 0.

  >>> verify_arc(((1, 2), (3, 4)), 'Output:\n1 2\n3 4')
  Verdict(kind='right', answer='1 2\n3 4', score=None)
  >>> verify_arc(((1, 2), (3, 4)), '12\n33', scores_cells=True)
  Verdict(kind='wrong', answer='1 2\n3 3', score=0.75)
  """
  if len(completion) > MAX_LENGTH:
    return Verdict('overlong')
  if not completion.strip():
    return Verdict('empty')
  grid = parse_grid(completion)
  if grid is None:
    return Verdict('malformed')
  score = share_of_right_cells(output, grid) if scores_cells else None
  return Verdict('right' if grid == output else 'wrong', grid_text(grid), score)


def share_of_right_cells(output: Grid, grid: Grid) -> float:
  """Returns how many of the cells are right, in [0, 1]; 0 if the size is wrong."""
  if (len(grid), len(grid[0])) != (len(output), len(output[0])):
    return 0.0
  right, cells = (list(itertools.chain(*rows)) for rows in (output, grid))
  return sum(map(operator.eq, right, cells)) / len(right)

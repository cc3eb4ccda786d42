"""Rows of results: CSV files that say which command, code and machine they come from."""

import csv
import datetime
import itertools
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).resolve().parent.parent

# The first lines of every file, '# key: value', in this order.
PROVENANCE_KEYS = (
  'command',
  'config',
  'seed',
  'commit',
  'hardware',
  'jax',
  'date',
  'wall_seconds',
)

Value = bool | int | float | str | None


def write_rows(
  path: Path | str,
  rows: Sequence[Mapping[str, Value]],
  *,
  command: str,
  config: Mapping[str, Any],
  seed: int | None,
  wall_seconds: float,
) -> None:
  """Writes `rows` as CSV below a header that says how they came about.

  Args:
    path: the file; its folder is made.
    rows: one mapping of column to value each, all with the same columns. Floats keep 9 digits,
      which is all of a float32; None is an empty cell.
    command: what reruns the sweep, from the root of the repository.
    config: flat JSON, every number that the rows depend on.
    seed: of all random draws; None if nothing is drawn.
    wall_seconds: time the sweep took.

  Raises:
    ValueError: if there are no rows, columns differ, or a number is not finite.
  """
  if not rows:
    raise ValueError(f'rows: expected at least one for {path}, got none.')
  columns = list(rows[0])
  for index, row in enumerate(rows):
    if list(row) != columns:
      raise ValueError(f'rows[{index}]: expected the columns {columns}, got {list(row)}.')
  cells = [
    [_to_cell(row[column], column, index) for column in columns] for index, row in enumerate(rows)
  ]
  provenance = {
    'command': command,
    'config': json.dumps(config),
    'seed': 'none' if seed is None else seed,
    'commit': _describe_commit(),
    'hardware': _describe_hardware(),
    'jax': metadata.version('jax'),
    'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d'),
    'wall_seconds': f'{wall_seconds:.1f}',
  }
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w', newline='') as file:
    file.writelines(f'# {key}: {provenance[key]}\n' for key in PROVENANCE_KEYS)
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(cells)


def read_rows(path: Path | str) -> list[dict[str, Value]]:
  """Returns the rows of a file that `write_rows` wrote, numbers as numbers."""
  with Path(path).open(newline='') as file:
    lines = itertools.dropwhile(lambda line: line.startswith('# '), file)
    return [{key: _from_cell(cell) for key, cell in row.items()} for row in csv.DictReader(lines)]


def read_provenance(path: Path | str) -> dict[str, str]:
  """Returns the header of a file that `write_rows` wrote."""
  provenance = {}
  with Path(path).open() as file:
    for line in file:
      if not line.startswith('# '):
        break
      key, _, value = line[2:].rstrip('\n').partition(': ')
      provenance[key] = value
  return provenance


def column(rows: Sequence[Mapping[str, Value]], name: str, **match: Value) -> np.ndarray:
  """Returns column `name` of the rows whose other columns equal `match`.

  Raises:
    ValueError: if no row matches: a figure with a line left out should not pass unnoticed.
  """
  values = [row[name] for row in rows if all(row[key] == value for key, value in match.items())]
  if not values:
    raise ValueError(f'rows: no row has {match}.')
  return np.array(values)


def _to_cell(value: Value, name: str, index: int) -> str:
  if value is None:
    return ''
  if isinstance(value, (bool, np.bool_, str)):
    return str(value)
  if isinstance(value, (int, np.integer)):
    return str(int(value))
  number = float(value)
  if not math.isfinite(number):
    raise ValueError(f'rows[{index}]: expected a finite number in {name!r}, got {number}.')
  return f'{number:.9g}'


def _from_cell(cell: str) -> Value:
  if cell == '':
    return None
  if cell in ('True', 'False'):
    return cell == 'True'
  for parse in (int, float):
    try:
      return parse(cell)
    except ValueError:
      pass
  return cell


def _describe_commit() -> str:
  """Returns the short hash of HEAD, '+dirty' if tracked files other than results differ."""

  def git(*arguments):
    command = ['git', '-C', str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

  try:
    commit = git('rev-parse', '--short', 'HEAD')
    not_results = ['.', ':(exclude,glob)experiments/**/results/**']
    changed = git('status', '--porcelain', '--untracked-files=no', '--', *not_results)
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return f'{commit}+dirty' if changed else commit


def _describe_hardware() -> str:
  """Returns the CPU model, its cores and the accelerator."""
  # Here, so that a figure, which only reads rows, does not import jax.
  import jax

  cpu = platform.processor() or platform.machine()
  cpu_info = Path('/proc/cpuinfo')
  if cpu_info.exists():
    models = [line for line in cpu_info.read_text().splitlines() if line.startswith('model name')]
    cpu = models[0].partition(':')[2].strip() if models else cpu
  devices = [device for device in jax.devices() if device.platform != 'cpu']
  accelerator = f'{len(devices)} x {devices[0].device_kind}' if devices else 'no accelerator'
  return f'{cpu}, {os.cpu_count()} cores, {accelerator}'

"""Lists runs: what differs in their configs, how far they are, what they have reached.

python -m pkpo_jax.runs runs --fields=advantage.name,advantage.k --sort=eval/pass@8
"""

import argparse
import csv
import json
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pkpo_jax.errors import DataError, WorkdirError
from pkpo_jax.metrics import read_metrics
from pkpo_jax.workdir import flatten, read_config

_OBJECTIVE = re.compile(r'eval/(?:pass|max)@(\d+)')
# Where a run is and how it is watched; that runs differ in them goes without saying.
_PLACES = re.compile(r'log\..*|checkpoint\..*|.*\.data_dir')


class RunRecord(NamedTuple):
  """What the folder of a run says.

  Attributes:
    workdir: the folder.
    config: its fields by their dotted names.
    metrics: the lines of metrics.jsonl, in order.
    state: 'running', 'finished', 'stopped' before its last step, 'not begun', or 'damaged'.
    step: the steps that its metrics know of.
    num_train_steps: those it is to take.
    updated: when it last wrote metrics, in seconds since the epoch; None if it has not.
    problem: what is wrong with the folder; '' if nothing is.
  """

  workdir: pathlib.Path
  config: dict[str, Any]
  metrics: list[dict[str, int | float]]
  state: str
  step: int
  num_train_steps: int
  updated: float | None
  problem: str = ''


def find_workdirs(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the folders of runs in `root`, itself too, in the order of their names."""
  if is_workdir(root):
    yield root
    return
  for folder, names, _ in os.walk(root):
    names.sort()
    for name in list(names):
      if is_workdir(pathlib.Path(folder, name)):
        names.remove(name)  # No run is within another.
        yield pathlib.Path(folder, name)


def is_workdir(folder: pathlib.Path) -> bool:
  """Returns whether a folder is that of a run; a model's has a config.json, too."""
  return (folder / 'config.json').is_file() and (folder / 'origin.json').is_file()


def read_run(workdir: pathlib.Path) -> RunRecord:
  """Returns what a run's folder says; what is damaged there is told in `problem`."""
  config, metrics, problem = {}, [], ''
  path = workdir / 'metrics.jsonl'
  updated = path.stat().st_mtime if path.exists() else None
  try:
    config = flatten(read_config(workdir))
    metrics = read_metrics(workdir, is_growing=True) if path.exists() else []
  except (DataError, WorkdirError) as error:
    problem = str(error)
  num_train_steps = config.get('num_train_steps', 0)
  step = max((line['step'] + _counts_as_taken(line) for line in metrics), default=0)
  if problem:
    state = 'damaged'
  elif is_locked(workdir / 'lock'):
    state = 'running'
  elif any(line['step'] >= num_train_steps for line in metrics):
    state = 'finished'
  else:
    state = 'stopped' if metrics else 'not begun'
  return RunRecord(workdir, config, metrics, state, step, num_train_steps, updated, problem)


def _counts_as_taken(line: dict[str, int | float]) -> int:
  """Returns 1 for the metrics of a step that was taken, 0 for those before one."""
  return int(any(name.startswith('train/') for name in line))


def is_locked(path: pathlib.Path) -> bool:
  """Returns whether a process of this machine has locked a file.

  It looks, and takes no lock, not even for a moment: a run that starts just then would give up.
  """
  locks = pathlib.Path('/proc/locks')
  if not path.exists() or not locks.exists():
    return False
  inode = str(path.stat().st_ino)
  return any(
    words[1] == 'FLOCK' and words[5].rpartition(':')[2] == inode
    for words in map(str.split, locks.read_text().splitlines())
    if len(words) >= 6 and words[1] != '->'
  )


def values_of(record: RunRecord, metric: str) -> list[tuple[int, int | float]]:
  """Returns the values of a metric, each with its step."""
  return [(line['step'], line[metric]) for line in record.metrics if metric in line]


def default_metrics(records: Sequence[RunRecord]) -> list[str]:
  """Returns the objective at the least and at the greatest k that evaluations know."""
  names = {name for each in records for line in each.metrics for name in line}
  found = {int(match[1]): match[0] for match in map(_OBJECTIVE.fullmatch, sorted(names)) if match}
  return [found[k] for k in sorted({min(found), max(found)})] if found else []


def differing_fields(records: Sequence[RunRecord]) -> list[str]:
  """Returns the fields of configs that are not the same in all runs, in order."""
  configs = [each.config for each in records if each.config]
  fields = sorted(set().union(*configs))
  is_same = lambda field: all(x.get(field) == configs[0].get(field) for x in configs)
  return [field for field in fields if not _PLACES.fullmatch(field) and not is_same(field)]


def short_names(fields: Sequence[str]) -> dict[str, str]:
  """Returns for each dotted field its shortest ending that no other field has.

  >>> short_names(['advantage.k', 'advantage.name', 'loss.name'])
  {'advantage.k': 'k', 'advantage.name': 'advantage.name', 'loss.name': 'loss.name'}
  """
  endings = {field: ['.'.join(field.split('.')[i:]) for i in range(99)] for field in fields}
  endings = {field: [x for x in names if x][::-1] for field, names in endings.items()}
  count = lambda ending: sum(ending in names for names in endings.values())
  return {field: next(x for x in names if count(x) == 1) for field, names in endings.items()}


def rows_of(
  records: Sequence[RunRecord],
  fields: Sequence[str],
  metrics: Sequence[str],
  root: pathlib.Path,
  now: int | float,
) -> list[dict[str, Any]]:
  """Returns a row for each run: its name, state and progress, fields of its config, metrics.

  A metric has the last value; of the last metric also the best value, the greatest, and its step.
  """
  names, rows = short_names(fields), []
  for each in records:
    path = each.workdir
    name = str(path.relative_to(root)) if path != root else path.name
    row = {'run': name, 'state': each.state, 'step': f'{each.step}/{each.num_train_steps}'}
    row['last write'] = '' if each.updated is None else f'{_duration(now - each.updated)} ago'
    row |= {short: _shown(each.config, field) for field, short in names.items()}
    for metric in metrics:
      values = values_of(each, metric)
      row[metric] = values[-1][1] if values else None
    if metrics:
      step, best = max(values, key=lambda value: value[1], default=(None, None))
      row[f'best {metrics[-1]}'], row['at step'] = best, step
    rows.append(row)
  return rows


def _shown(config: dict[str, Any], field: str) -> str:
  return json.dumps(config[field]).strip('"') if field in config else ''


def _duration(seconds: int | float) -> str:
  """Returns a time that has passed in its largest unit.

  >>> _duration(59), _duration(7300), _duration(200_000)
  ('59 s', '2 h', '2 d')
  """
  for size, unit in ((86_400, 'd'), (3_600, 'h'), (60, 'min')):
    if seconds >= size:
      return f'{seconds // size:.0f} {unit}'
  return f'{max(seconds, 0):.0f} s'


def table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns rows as text, columns one below the other, without those that are empty."""
  names = [name for name in rows[0] if any(row[name] not in ('', None) for row in rows)]
  cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  is_number = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
  align = lambda cell, width, right: cell.rjust(width) if right else cell.ljust(width)
  return '\n'.join('  '.join(map(align, line, widths, is_number)).rstrip() for line in cells)


def _cell(value: Any) -> str:
  if value is None:
    return ''
  return f'{value:.4f}' if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the table of the runs in a folder."""
  args = _parse(argv)
  records = [read_run(workdir) for workdir in find_workdirs(args.root)]
  if not records:
    sys.exit(f'{args.root}: expected a folder with runs, each with its config.json, found none.')
  metrics = args.metrics or default_metrics(records)
  known = {name for each in records for line in each.metrics for name in line} - {'step'}
  for metric in metrics:
    if metric not in known:
      sys.exit(f'--metrics: no run has {metric!r}; there are {", ".join(sorted(known)) or "none"}.')
  fields = differing_fields(records) if args.fields is None else args.fields
  for field in fields:
    if not any(field in each.config for each in records):
      known = sorted(set().union(*(each.config for each in records)))
      sys.exit(f'--fields: no config has {field!r}; there are {", ".join(known)}.')
  rows = rows_of(records, fields, metrics, args.root, time.time())
  if args.sort is not None:
    if args.sort not in rows[0]:
      sys.exit(f'--sort: expected one of {list(rows[0])}, got {args.sort!r}.')
    there = [row for row in rows if row[args.sort] not in ('', None)]
    is_number = all(isinstance(row[args.sort], int | float) for row in there)
    there.sort(key=lambda row: row[args.sort], reverse=is_number)
    rows = there + [row for row in rows if row[args.sort] in ('', None)]
  print(table(rows))
  for each in records:
    if each.problem:
      print(f'\n{each.problem}')
  if args.output is not None:
    try:
      with args.output.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    except OSError as error:
      sys.exit(f'--output: cannot write {args.output}: {error.strerror}.')


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m pkpo_jax.runs', description=__doc__.splitlines()[0]
  )
  parser.add_argument('root', type=pathlib.Path, help='a folder with runs, at any depth')
  parser.add_argument(
    '--metrics',
    type=lambda words: words.split(','),
    help='such as eval/pass@8,train/entropy (default: the objective at the least and greatest k)',
  )
  parser.add_argument(
    '--fields',
    type=lambda words: words.split(','),
    help='of the config, such as advantage.name,advantage.k (default: those that differ)',
  )
  parser.add_argument('--sort', help='a column; numbers are sorted from the greatest on')
  parser.add_argument('--output', type=pathlib.Path, help='a CSV file for the table')
  args = parser.parse_args(argv)
  if not args.root.is_dir():
    sys.exit(f'{args.root}: expected a folder with runs, there is none.')
  return args


if __name__ == '__main__':
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # A pager may have seen enough.
  main()

"""What the benchmarks share: how results came about, and tables as CSV and Markdown."""

import csv
import datetime
import os
import pathlib
import platform
import re
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = pathlib.Path(__file__).parent
Row = dict[str, str | int | float]
# Name -> columns, in order; the CSV holds the union of all.
Tables = Mapping[str, Sequence[str]]


def describe(module: str, arguments: Sequence[str], work: str) -> list[str]:
  """Returns lines that say how results come about.

  Args:
    module: what `python -m` runs.
    arguments: its command line.
    work: 'seed: ...', and what else decides the numbers.
  """
  # Where an interpreter lies on this machine says nothing on another.
  words = [re.sub(r'^(--\w+=)?/.*/', r'\1', word) for word in arguments]
  return [
    f'command: python -m {module} {" ".join(words)}'.rstrip(),
    f'commit: {commit()}',
    f'hardware: {hardware()}',
    f'versions: jax {jax.__version__}, numpy {np.__version__}, Python {platform.python_version()}',
    f'date: {datetime.datetime.now(datetime.UTC).date()}',
    work,
  ]


def commit() -> str:
  def git(*command):
    return subprocess.run(
      ['git', *command], cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout.strip()

  try:
    # The results themselves do not make the code another.
    changed = git('status', '--porcelain', '--untracked-files=no', '--', ':/', ':!results')
    return git('rev-parse', '--short', 'HEAD') + ('+dirty' if changed else '')
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'


def hardware() -> str:
  model = platform.processor() or platform.machine()
  cpu_info = pathlib.Path('/proc/cpuinfo')
  if cpu_info.exists():
    names = [s for s in cpu_info.read_text().splitlines() if s.startswith('model name')]
    model = names[0].partition(':')[2].strip() if names else model
  text = f'{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start'
  if jax.default_backend() != 'cpu':
    text += f'; {jax.device_count()} x {jax.devices()[0].device_kind}'
  return text


def show(value) -> str:
  return f'{value:#.3g}'.rstrip('.') if isinstance(value, float) else str(value)


def columns_of(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
  """Returns the columns that any row has."""
  return [c for c in columns if any(c in row for row in rows)]


def write(
  title: str,
  rows: Mapping[str, Sequence[Row]],
  tables: Tables,
  captions: Mapping[str, str],
  header: Sequence[str],
  path: pathlib.Path,
):
  """Writes path.csv, and path.md with the same rows as tables."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.with_suffix('.csv').open('w', newline='') as file:
    file.writelines(f'# {line}\n' for line in header)
    columns = dict.fromkeys(['table', *(c for table in tables.values() for c in table)])
    writer = csv.DictWriter(file, list(columns), restval='', lineterminator='\n')
    writer.writeheader()
    for table, table_rows in rows.items():
      for row in table_rows:
        cells = {c: f'{x:.5g}' if isinstance(x, float) else x for c, x in row.items()}
        writer.writerow({'table': table, **cells})
  lines = [f'# {title}', '', *(f'- {line}' for line in header)]
  for table, table_rows in rows.items():
    columns = columns_of(tables[table], table_rows)
    lines += ['', f'## {table.capitalize()}', '', captions[table], '']
    lines += ['| ' + ' | '.join(columns) + ' |', '|' + ' --- |' * len(columns)]
    for row in table_rows:
      lines += ['| ' + ' | '.join(show(row.get(c, '')) for c in columns) + ' |']
  path.with_suffix('.md').write_text('\n'.join(lines) + '\n')


def print_table(columns: Sequence[str], rows: Sequence[Row]):
  """Prints rows in columns as wide as they need."""
  columns = columns_of(columns, rows)
  lines = [columns, *([show(row.get(c, '')) for c in columns] for row in rows)]
  widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
  for line in lines:
    print(''.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def largest_error(ours, others) -> float:
  """Returns the largest difference between two trees, over the largest entry of each leaf."""
  errors = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)), ours, others)
  return float(max(map(float, jax.tree.leaves(errors))))


def time_in_turns(contenders, arguments, repeats) -> dict[str, float]:
  """Returns the median seconds of each function, called in turns with the same arguments."""
  times = {name: [] for name in contenders}
  for _ in range(repeats):
    for name, fn in contenders.items():
      start = time.perf_counter()
      jax.block_until_ready(fn(*arguments))
      times[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in times.items()}


def free_port() -> int:
  """Returns a port of this machine that nobody listens on."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]

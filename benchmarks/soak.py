"""Watches what a training holds over hours: memory, file handles, threads, temporary files.

  python -m benchmarks.soak [--hours=2] [--config=configs/gemma2_2b_math.py:tiny] [--quick]

The run judges, evaluates, saves and writes samples and metrics all the time; it gets a temporary
folder of its own. At the end it is sent SIGTERM, and has to save and leave nothing behind. Linux
alone: numbers are those of /proc, of the process and all that it has started. Results go to
OUTDIR/soak_BACKEND.csv, .md and .png.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import common
from benchmarks.common import Row

MIB = 2**20
# Column -> what its axis says. Memory without pages of files and of shared memory, which the kernel
# takes and gives back as it likes; without swap, nothing but the process lets go of the others.
WATCHED = {
  'main_mib': 'anonymous memory of the trainer, MiB',
  'workers_mib': 'anonymous memory of its workers, MiB',
  'handles': 'open file handles, all processes',
  'threads': 'threads, all processes',
  'mappings': 'memory mappings of the trainer',
  'temporary_files': 'temporary files',
}
TABLES = {
  'growth': ('watched', 'first_quarter', 'last_quarter', 'least', 'most', 'per_hour'),
  'end': ('steps', 'exit_code', 'seconds_to_stop', 'temporary_files', 'processes_left'),
  'curve': ('minutes', 'step', 'processes', *WATCHED, 'workdir_mib'),
}
CAPTIONS = {
  'growth': (
    'first_quarter, last_quarter: means over these quarters of the time; per_hour: slope of a line '
    'through the second half of the time.'
  ),
  'end': 'After SIGTERM at the end of the time.',
  'curve': 'What was seen each time.',
}


def main(arguments: list[str] | None = None) -> None:
  """Runs a training for hours, watches it, and writes the tables and the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--quick', action='store_true', help='half a minute of the run')
  parser.add_argument('--hours', type=float, default=2.0)
  parser.add_argument('--config', default='configs/gemma2_2b_math.py:tiny')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  args = parser.parse_args(arguments)
  seconds = 30.0 if args.quick else 3600 * args.hours
  given = sys.argv[1:] if arguments is None else arguments
  header = common.describe('benchmarks.soak', given, 'seed: 0')
  with tempfile.TemporaryDirectory() as folder:
    curve, end = watch(args.config, pathlib.Path(folder), seconds, every_s=seconds / 240)
  rows = {'growth': growth(curve), 'end': [end], 'curve': curve}
  path = args.outdir / f'soak_{jax.default_backend()}'
  common.write('A long run', rows, TABLES, CAPTIONS, header, path)
  draw(curve, path.with_suffix('.png'))
  common.print_table(TABLES['growth'], rows['growth'])
  common.print_table(TABLES['end'], rows['end'])


def watch(
  config: str, folder: pathlib.Path, seconds: float, every_s: float
) -> tuple[list[Row], Row]:
  """Returns what a training held, every `every_s` after its first step, and how it ended."""
  workdir, temporary = folder / 'run', folder / 'tmp'
  temporary.mkdir()
  command = [sys.executable, '-m', 'pkpo_jax.main', f'--config={config}', f'--workdir={workdir}']
  command += ['--config.num_train_steps=10000000', '--config.optimizer.warmup_steps=0']
  command += ['--config.checkpoint.every=100', '--config.eval.every=100', '--config.log.every=10']
  with (folder / 'stderr').open('w') as stderr:
    process = subprocess.Popen(
      ['env', f'TMPDIR={temporary}', *command],
      cwd=common.FOLDER.parent,
      stdout=subprocess.DEVNULL,
      stderr=stderr,
    )
  try:
    while last_step(workdir) is None:
      _check_alive(process, folder)
      time.sleep(0.1)
    begin, curve = time.monotonic(), []
    seen = {process.pid}
    while time.monotonic() < begin + seconds:
      _check_alive(process, folder)
      pids = descendants(process.pid)
      seen |= set(pids)
      curve.append(
        {
          'minutes': (time.monotonic() - begin) / 60,
          'step': last_step(workdir),
          **held(process.pid, pids),
          'temporary_files': len(_sizes(temporary)),
          'workdir_mib': sum(_sizes(workdir)) / MIB,
        }
      )
      time.sleep(every_s)
    stopped = time.monotonic()
    process.send_signal(signal.SIGTERM)
    exit_code = process.wait(timeout=300)
  finally:
    process.kill()
  end = {
    'steps': last_step(workdir),
    'exit_code': exit_code,
    'seconds_to_stop': time.monotonic() - stopped,
    'temporary_files': len(_sizes(temporary)),
    'processes_left': sum(pathlib.Path(f'/proc/{pid}').exists() for pid in seen),
  }
  return curve, end


def _check_alive(process: subprocess.Popen, folder: pathlib.Path) -> None:
  if process.poll() is not None:
    lines = (folder / 'stderr').read_text().splitlines()[-5:]
    raise RuntimeError(f'The training ended with {process.returncode}: {lines}.')


def last_step(workdir: pathlib.Path) -> int | None:
  """Returns the last step with training metrics; None if there is none yet."""
  metrics = workdir / 'metrics.jsonl'
  if not metrics.exists():
    return None
  with metrics.open('rb') as file:
    file.seek(max(0, metrics.stat().st_size - 2**16))
    lines = file.read().decode(errors='ignore').splitlines()
  for line in reversed(lines):
    if '"train/loss"' in line and line.startswith('{') and line.endswith('}'):
      return json.loads(line)['step']
  return None


def descendants(pid: int) -> list[int]:
  """Returns the living processes that `pid` has started, those that they have, and so on."""
  children = {}
  for status in pathlib.Path('/proc').glob('[0-9]*/status'):
    fields = _status(status.parent)
    if fields:
      children.setdefault(int(fields['PPid']), []).append(int(status.parent.name))
  found, rest = [], [pid]
  while rest:
    rest += (new := children.get(rest.pop(), []))
    found += new
  return found


def held(pid: int, workers: Sequence[int]) -> Row:
  """Returns memory, handles and threads of a process and its workers, and its mappings."""
  row = {'processes': 1 + len(workers)} | dict.fromkeys(WATCHED, 0)
  for process in (pid, *workers):
    folder = pathlib.Path(f'/proc/{process}')
    fields = _status(folder)
    if not fields or 'RssAnon' not in fields:
      continue  # It has ended in the meantime.
    column = 'main_mib' if process == pid else 'workers_mib'
    row[column] += int(fields['RssAnon'].split()[0]) / 1024
    row['threads'] += int(fields['Threads'])
    try:
      row['handles'] += len(list((folder / 'fd').iterdir()))
      if process == pid:
        row['mappings'] = len((folder / 'maps').read_text().splitlines())
    except OSError:
      continue
  return row


def _status(folder: pathlib.Path) -> dict[str, str]:
  try:
    lines = (folder / 'status').read_text().splitlines()
  except OSError:
    return {}
  return {name: value.strip() for name, _, value in (line.partition(':') for line in lines)}


def _sizes(folder: pathlib.Path) -> list[int]:
  """Returns the bytes of each file below a folder in which others make and delete files."""
  while True:
    try:
      return [path.stat().st_size for path in folder.rglob('*') if path.is_file()]
    except FileNotFoundError:
      continue  # Such as a checkpoint that was deleted under the walk.


def growth(curve: Sequence[Row]) -> list[Row]:
  """Returns a row of each watched number: its first and last quarter, its range, its slope."""
  minutes = np.array([row['minutes'] for row in curve])
  rows = []
  for name in WATCHED:
    values = np.array([row[name] for row in curve], float)
    quarter = max(1, len(values) // 4)
    late = slice(len(values) // 2, None)
    rows.append(
      {
        'watched': name,
        'first_quarter': float(values[:quarter].mean()),
        'last_quarter': float(values[-quarter:].mean()),
        'least': float(values.min()),
        'most': float(values.max()),
        'per_hour': float(60 * np.polyfit(minutes[late], values[late], 1)[0]),
      }
    )
  return rows


def draw(curve: Sequence[Row], path: pathlib.Path) -> None:
  """Draws each watched number against time."""
  from experiments import style

  figure, axes = style.plt.subplots(2, 3, figsize=(style.WIDTH_3, 2 * style.HEIGHT * 0.75))
  hours = [row['minutes'] / 60 for row in curve]
  for axis, (name, label) in zip(axes.flat, WATCHED.items(), strict=True):
    values = [row[name] for row in curve]
    axis.plot(hours, values, color=style.BLUE, linewidth=1)
    axis.set(title=label, xlabel='hours', ylim=(0, 1.15 * max(1, *values)))
  style.save(figure, path)


if __name__ == '__main__':
  main()

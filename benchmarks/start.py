"""Times the start of a training, without and with programs that an earlier start has compiled.

  python -m benchmarks.start [--quick]

Each turn is a new folder with two runs, one after the other: the first compiles, the second finds
what the first has compiled in the folder's .jax_cache. Times are from the start of the process to
the first step's line of metrics, so with imports, tracing, the evaluation before the first step and
the step itself. Results go to OUTDIR/start_BACKEND.csv, .md.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks import common

CONFIGS = {
  'bandit': ['--config=configs/bandit.py'],
  'maze_tiny': ['--config=configs/maze_tiny.py'],
  'maze_tiny, less to evaluate': ['--config=configs/maze_tiny.py', '--config.eval.num_prompts=16'],
}
TABLES = {
  'start': (
    *('config', 'first_s', 'second_s', 'first/second', 'smallest_ratio', 'turns', 'imports_s'),
    'cache_mib',
  ),
}
CAPTIONS = {
  'start': (
    'first_s, second_s: median seconds to the first step without and with compiled programs; '
    'first/second: median of the ratios of a turn; imports_s: of them a process that only imports '
    'the trainer and looks for devices.'
  ),
}


def main(arguments: list[str] | None = None) -> None:
  """Times starts and writes the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--quick', action='store_true', help='one turn of the bandit')
  parser.add_argument('--turns', type=int, default=3)
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  args = parser.parse_args(arguments)
  configs = {'bandit': CONFIGS['bandit']} if args.quick else CONFIGS
  turns = 1 if args.quick else args.turns
  given = sys.argv[1:] if arguments is None else arguments
  header = common.describe('benchmarks.start', given, 'seed: 0')
  rows = []
  for name, flags in configs.items():
    times, sizes = [], []
    for _ in range(turns):
      with tempfile.TemporaryDirectory() as folder:
        times.append([_start(pathlib.Path(folder) / run, flags) for run in ('first', 'second')])
        files = (pathlib.Path(folder) / '.jax_cache').rglob('*')
        sizes.append(sum(path.stat().st_size for path in files if path.is_file()))
    ratios = [first / second for first, second in times]
    first, second = map(statistics.median, zip(*times, strict=True))
    rows.append(
      {
        'config': name,
        'first_s': first,
        'second_s': second,
        'first/second': statistics.median(ratios),
        'smallest_ratio': min(ratios),
        'turns': turns,
        'imports_s': statistics.median(_imports() for _ in range(turns)),
        'cache_mib': statistics.median(sizes) / 2**20,
      }
    )
  path = args.outdir / f'start_{jax.default_backend()}'
  common.write('Starts', {'start': rows}, TABLES, CAPTIONS, header, path)
  common.print_table(TABLES['start'], rows)


def _start(workdir: pathlib.Path, flags: list[str]) -> float:
  """Returns the seconds from the start of a training to the line of its first step."""
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
  begin = time.perf_counter()
  command = [sys.executable, '-m', 'pkpo_jax.main', f'--workdir={workdir}', *flags]
  command += ['--config.num_train_steps=1', '--config.log.tensorboard=False']
  process = subprocess.Popen(
    command, cwd=common.FOLDER.parent, env=environment, stdout=subprocess.DEVNULL
  )
  metrics = workdir / 'metrics.jsonl'
  while not (metrics.exists() and 'train/loss' in metrics.read_text()):
    if process.poll() is not None:
      raise RuntimeError(f'{" ".join(command)} ended with {process.returncode}.')
    time.sleep(0.02)
  seconds = time.perf_counter() - begin
  if process.wait() != 0:
    raise RuntimeError(f'{" ".join(command)} ended with {process.returncode}.')
  return seconds


def _imports() -> float:
  begin = time.perf_counter()
  code = 'import jax, pkpo_jax.main; jax.devices()'
  subprocess.run([sys.executable, '-c', code], cwd=common.FOLDER.parent, check=True)
  return time.perf_counter() - begin


if __name__ == '__main__':
  main()

"""Runs the trainings of a sweep as processes of their own, several at a time, and resumes them.

  python -m experiments.launcher --config=configs/gemma2_2b_math.py[:quick] --root=runs/math_2b \
    [--only=k1,k8] [--num_seeds=3] [--workers=1] [--config.group.field=value ...]
  python -m experiments.launcher --config=configs/bandit.py --root=runs/bandit \
    --sweep=advantage.k=1,8 --sweep=advantage.name=pkpo_loo_minus_one,grpo

The first trains the runs in the config's SWEEP, a dict of a variant and flat overrides for each
name; the second every combination of the listed values, for any config. A run that has come to its
end is not started again; one that was killed goes on where it was.
"""

import argparse
import ast
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pkpo_jax.errors import FieldError, WorkdirError, expect
from pkpo_jax.flags import overridden
from pkpo_jax.progress import Progress
from pkpo_jax.settings import lookup
from pkpo_jax.workdir import check_workdir


class TrainingFailed(RuntimeError):
  """A training of a sweep that ended too early."""


class Job(NamedTuple):
  """One training.

  Attributes:
    workdir: where it writes; its log stands beside it.
    config: a module of configs and, after a colon, its variant, such as 'maze_tiny:warm'.
    overrides: flat fields and their values, such as {'advantage.k': 8}.
  """

  workdir: Path
  config: str
  overrides: Mapping[str, Any]

  def load(self) -> ConfigDict:
    """Returns the whole config."""
    name, _, variant = self.config.partition(':')
    module = importlib.import_module(f'configs.{name}')
    try:
      config = module.get_config(variant)
    except ValueError as error:
      raise FieldError('config', str(error)) from error
    return overridden(config, dict(self.overrides))

  def smoke(self) -> 'Job':
    """Returns the same in small, which shows only that it runs: the config's variant 'quick'."""
    name, _, variant = self.config.partition(':')
    in_small = lambda path: Path(path).parent / 'smoke' / Path(path).name
    overrides = dict(self.overrides)
    if 'warm_start' in overrides:
      overrides['warm_start'] = str(in_small(overrides['warm_start']))
    variant = '_'.join(filter(None, (variant, 'quick')))
    return Job(in_small(self.workdir), f'{name}:{variant}', overrides)

  def command(self) -> list[str]:
    """Returns the command that trains it."""
    name, _, variant = self.config.partition(':')
    return [
      *(sys.executable, '-m', 'pkpo_jax.main'),
      f'--config=configs/{name}.py' + (f':{variant}' if variant else ''),
      f'--workdir={self.workdir}',
      *(f'--config.{field}={value}' for field, value in self.overrides.items()),
    ]


def sweep_jobs(
  config: str,
  root: Path,
  only: Sequence[str] | None = None,
  num_seeds: int | None = None,
  overrides: Mapping[str, Any] | None = None,
) -> list[Job]:
  """Returns the trainings of a config's SWEEP, all of seed 0 first.

  Args:
    config: the config's name or file, with a size such as ':tiny' behind it or without.
    root: folder of their workdirs, named like k8_seed0.
    only: names of those wanted; None is all.
    num_seeds: seeds of each, from 0 on; None is the config's NUM_SEEDS.
    overrides: flat fields of all of them, such as where the weights are.
  """
  name, size, module = _find(config)
  expect(hasattr(module, 'SWEEP'), 'config', 'one with a SWEEP', f'configs/{name}.py')
  jobs = []
  for seed in range(module.NUM_SEEDS if num_seeds is None else num_seeds):
    for run in only or module.SWEEP:
      variant, own = lookup('only', run, module.SWEEP)
      variant = '_'.join(filter(None, (variant, size)))
      variant = f'{name}:{variant}' if variant else name
      jobs.append(
        Job(root / f'{run}_seed{seed}', variant, {**(overrides or {}), **own, 'seed': seed})
      )
  return jobs


def product_jobs(
  config: str,
  root: Path,
  values: Mapping[str, Sequence[Any]],
  num_seeds: int = 1,
  overrides: Mapping[str, Any] | None = None,
) -> list[Job]:
  """Returns a training for every combination of values, all of seed 0 first.

  Args:
    config: the config's name or file, with a variant behind a colon or without.
    root: folder of their workdirs, named like k1_seed0 after the fields' last names and values; a
      last name that two fields share gets its group before it.
    values: the values of each flat field.
    num_seeds: seeds of each, from 0 on.
    overrides: flat fields of all of them.
  """
  name, variant, _ = _find(config)
  variant = f'{name}:{variant}' if variant else name
  last = [field.split('.')[-1] for field in values]
  labels = {
    field: short if last.count(short) == 1 else field.replace('.', '_')
    for field, short in zip(values, last, strict=True)
  }
  jobs = []
  for seed in range(num_seeds):
    for combination in itertools.product(*values.values()):
      own = dict(zip(values, combination, strict=True))
      run = '_'.join(f'{labels[field]}{_label(value)}' for field, value in own.items())
      fields = {**(overrides or {}), 'seed': seed, **own}
      jobs.append(Job(root / f'{run}_seed{fields["seed"]}', variant, fields))
  return jobs


def _find(config: str) -> tuple[str, str, Any]:
  """Returns the name of a config, what stands after the colon, and its module."""
  file, _, variant = config.partition(':')
  name = Path(file).stem
  is_known = file in (name, f'configs/{name}.py')
  expect(is_known, 'config', 'the name of a file in configs/, or configs/NAME.py', file)
  try:
    return name, variant, importlib.import_module(f'configs.{name}')
  except ModuleNotFoundError as error:
    if error.name != f'configs.{name}':
      raise
    raise FieldError('config', f'expected a file in configs/, got {file!r}.') from error


def _label(value: Any) -> str:
  """Returns a value as a part of a file's name."""
  return re.sub(r'[^\w.+-]+', '-', str(value)).strip('-')


def run_jobs(jobs: Sequence[Job], num_workers: int, name: str) -> None:
  """Trains all jobs, `num_workers` at a time, each with its share of the cores; shows an ETA.

  Raises:
    WorkdirError: if a workdir holds a run of another config.
    TrainingFailed: if a training fails; names its log. The others are stopped, and can go on.
  """
  configs = [job.load() for job in jobs]
  for job, config in zip(jobs, configs, strict=True):
    check_workdir(job.workdir, config.to_dict())
  waiting, running = [job for job in jobs if not is_finished(job)], {}
  done = sum(map(steps_done, jobs))
  bar = Progress(name, sum(config.num_train_steps for config in configs), initial=done)
  try:
    while waiting or running:
      for worker in set(range(num_workers)) - set(running):
        if waiting:
          running[worker] = waiting[0], _start(waiting.pop(0), worker, num_workers)
      time.sleep(1)
      before, done = done, sum(map(steps_done, jobs))
      bar.update(done - before)
      for worker, (job, process) in list(running.items()):
        if process.poll() is not None:
          del running[worker]
          if process.returncode or not is_finished(job):
            raise TrainingFailed(f'{job.workdir}: training stopped; see {_log(job)}.')
  finally:
    bar.close()
    for _, process in running.values():
      process.terminate()
    for _, process in running.values():
      process.wait()


def is_finished(job: Job) -> bool:
  """Returns whether the state after the last step is saved."""
  return (job.workdir / 'checkpoints' / str(job.load().num_train_steps)).exists()


def steps_done(job: Job) -> int:
  """Returns the last step that metrics.jsonl has."""
  path = job.workdir / 'metrics.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  return max((json.loads(line)['step'] for line in lines[-2:] if line.endswith('}')), default=0)


def _start(job: Job, worker: int, num_workers: int) -> subprocess.Popen:
  """Starts a training on the cores of this worker: two that share cores take longer."""
  job.workdir.parent.mkdir(parents=True, exist_ok=True)  # A fresh clone has no runs/ yet.
  with _log(job).open('a') as log:
    process = subprocess.Popen(job.command(), stdout=log, stderr=subprocess.STDOUT)
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process.pid, cores[worker::num_workers] or cores)
  return process


def _log(job: Job) -> Path:
  return job.workdir.with_name(f'{job.workdir.name}.log')


def main() -> None:
  """Trains the runs of a sweep."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', required=True, help='config file')
  parser.add_argument('--root', required=True, type=Path, help='folder of the workdirs')
  parser.add_argument('--only', type=lambda x: x.split(','), help='names of runs, with commas')
  parser.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='FIELD=VALUE,VALUE',
    help='a field and its values, in place of the SWEEP; several give every combination',
  )
  parser.add_argument(
    '--num_seeds', type=int, help="seeds of each; the config's NUM_SEEDS, or 1 with --sweep"
  )
  parser.add_argument('--workers', type=int, default=1, help='trainings at a time')
  args, rest = parser.parse_known_args()
  overrides, values = {}, {}
  for word in args.sweep:
    field, equals, listed = word.partition('=')
    if not equals or not listed:
      parser.error(f'expected --sweep=group.field=value,value, got {word!r}')
    values[field] = _literals(listed)
  if values and args.only:
    parser.error('--only names runs of a SWEEP; with --sweep there are none')
  for word in rest:
    field, equals, value = word.removeprefix('--config.').partition('=')
    if not word.startswith('--config.') or not equals:
      parser.error(f'expected --config.group.field=value, got {word!r}')
    overrides[field] = _literal(value)
  try:
    if values:
      jobs = product_jobs(args.config, args.root, values, args.num_seeds or 1, overrides)
    else:
      jobs = sweep_jobs(args.config, args.root, args.only, args.num_seeds, overrides)
    run_jobs(jobs, args.workers, args.root.name)
  except (FieldError, WorkdirError, TrainingFailed) as error:
    sys.exit(str(error))


def _literals(text: str) -> list[Any]:
  """Returns the values between commas; those in brackets or quotes are one each."""
  try:
    values = ast.literal_eval(f'({text},)')
  except (ValueError, SyntaxError):
    values = map(_literal, text.split(','))
  return list(values)


def _literal(text: str) -> Any:
  """Returns what a text is in Python, or the text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


if __name__ == '__main__':
  main()

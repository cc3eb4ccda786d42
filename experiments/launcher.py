"""Runs the trainings of a sweep as processes of their own, several at a time, and resumes them.

  python -m experiments.launcher --config=configs/gemma2_2b_math.py[:quick] --root=runs/math_2b \
    [--only=k1,k8] [--num_seeds=3] [--workers=1] [--config.group.field=value ...]

trains the runs in the config's SWEEP, a dict of a variant and flat overrides for each name. A run
that has come to its end is not started again; one that was killed goes on where it was.
"""

import argparse
import ast
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tqdm
from ml_collections import ConfigDict

from pkpo_jax.errors import expect
from pkpo_jax.settings import lookup
from pkpo_jax.workdir import claim_workdir


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
    config = importlib.import_module(f'configs.{name}').get_config(variant)
    config.update_from_flattened_dict(dict(self.overrides))
    return config

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
  file, _, size = config.partition(':')
  name = Path(file).stem
  is_known = file in (name, f'configs/{name}.py')
  expect(is_known, 'config', 'the name of a file in configs/, or configs/NAME.py', file)
  module = importlib.import_module(f'configs.{name}')
  if not hasattr(module, 'SWEEP'):
    raise ValueError(f'config: expected one with a SWEEP, got configs/{name}.py.')
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


def run_jobs(jobs: Sequence[Job], num_workers: int, name: str) -> None:
  """Trains all jobs, `num_workers` at a time, each with its share of the cores; shows an ETA.

  Raises:
    ValueError: if a workdir holds a run of another config.
    RuntimeError: if a training fails; names its log. The others are stopped, and can go on.
  """
  configs = [job.load() for job in jobs]
  for job, config in zip(jobs, configs, strict=True):
    if job.workdir.exists():
      claim_workdir(job.workdir, config.to_dict())
  waiting, running = [job for job in jobs if not is_finished(job)], {}
  done = sum(map(steps_done, jobs))
  bar = tqdm.tqdm(
    desc=name,
    initial=done,
    total=sum(config.num_train_steps for config in configs),
    unit='step',
    mininterval=10,
  )
  try:
    while waiting or running:
      for worker in set(range(num_workers)) - set(running):
        if waiting:
          running[worker] = waiting[0], _start(waiting.pop(0), worker, num_workers)
      time.sleep(1)
      bar.update(sum(map(steps_done, jobs)) - bar.n)
      for worker, (job, process) in list(running.items()):
        if process.poll() is not None:
          del running[worker]
          if process.returncode or not is_finished(job):
            raise RuntimeError(f'{job.workdir}: training stopped; see {_log(job)}.')
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
  # The trainings of a sweep compile the same programs.
  cache = {'JAX_COMPILATION_CACHE_DIR': str(job.workdir.parent / '.jax_cache')}
  job.workdir.parent.mkdir(parents=True, exist_ok=True)  # A fresh clone has no runs/ yet.
  with _log(job).open('a') as log:
    process = subprocess.Popen(
      job.command(), stdout=log, stderr=subprocess.STDOUT, env=cache | os.environ
    )
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process.pid, cores[worker::num_workers] or cores)
  return process


def _log(job: Job) -> Path:
  return job.workdir.with_name(f'{job.workdir.name}.log')


def main() -> None:
  """Trains the runs of a config's sweep."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', required=True, help='config file with a SWEEP')
  parser.add_argument('--root', required=True, type=Path, help='folder of the workdirs')
  parser.add_argument('--only', type=lambda x: x.split(','), help='names of runs, with commas')
  parser.add_argument('--num_seeds', type=int, help="seeds of each; the config's NUM_SEEDS")
  parser.add_argument('--workers', type=int, default=1, help='trainings at a time')
  args, rest = parser.parse_known_args()
  overrides = {}
  for word in rest:
    field, equals, value = word.removeprefix('--config.').partition('=')
    if not word.startswith('--config.') or not equals:
      parser.error(f'expected --config.group.field=value, got {word!r}')
    overrides[field] = _literal(value)
  try:
    jobs = sweep_jobs(args.config, args.root, args.only, args.num_seeds, overrides)
    run_jobs(jobs, args.workers, args.root.name)
  except (ValueError, TypeError, KeyError, RuntimeError) as error:
    sys.exit(str(error))


def _literal(text: str) -> Any:
  """Returns what a text is in Python, or the text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


if __name__ == '__main__':
  main()

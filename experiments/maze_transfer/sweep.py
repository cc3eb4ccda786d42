"""Evaluates trainings on mazes of one size on mazes of others.

python -m experiments.maze_transfer.sweep [--workers=2] [--smoke]
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from experiments.launcher import Job, run_jobs
from experiments.maze_methods.sweep import STUDY
from experiments.mazes import NUM_SEEDS, warm
from experiments.results import column, write_rows
from pkpo_jax.evaluate import evaluate_workdirs
from pkpo_jax.flags import overridden
from pkpo_jax.progress import Progress
from pkpo_jax.workdir import flatten, keep_compilations

RESULTS = Path(__file__).parent / 'results'
METHODS = ('warm', 'k1', 'k8')
# What each changes of the mazes that are trained on: 4 x 4, ways of 3 to 6 moves. Others than those
# to evaluate on need not be drawn.
_FEW = {'task.num_train': 1}
MAZES = {
  '4 x 4, 3 to 6 moves': {},
  '4 x 4, 7 moves': {'task.min_moves': 7, 'task.max_moves': 7} | _FEW,
  '3 x 3, 3 to 6 moves': {'task.size': 3} | _FEW,
  '5 x 5, 3 to 6 moves': {'task.size': 5} | _FEW,
  '6 x 6, 3 to 6 moves': {'task.size': 6} | _FEW,
}


def main() -> None:
  """Trains what is not trained yet, evaluates, writes a row for each method, seed, mazes and k."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
  parser.add_argument('--smoke', action='store_true', help='in small; writes no rows')
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  start = time.time()
  if args.smoke:
    warm_starts = [warm(0).smoke()]
    jobs = {('warm', 0): warm_starts[0], ('k8', 0): STUDY.job('k8', 0).smoke()}
  else:
    warm_starts = [warm(seed) for seed in range(NUM_SEEDS)]
    jobs = {('warm', seed): each for seed, each in enumerate(warm_starts)}
    jobs |= {
      (name, seed): STUDY.job(name, seed)
      for seed, _ in enumerate(warm_starts)
      for name in METHODS[1:]
    }
  run_jobs(warm_starts, args.workers, 'warm starts')
  run_jobs([*jobs.values()], args.workers, 'maze_transfer')
  keep_compilations(warm_starts[0].workdir)
  rows = []
  # By mazes, as programs are those of a prompt's length.
  kinds = [*MAZES][-1:] if args.smoke else MAZES
  todo = [(mazes, name) for mazes in kinds for name in jobs]
  for mazes, (method, seed) in Progress('maze_transfer', items=todo, unit='evaluation'):
    labels = {'method': method, 'seed': seed, 'mazes': mazes}
    rows += [labels | row for row in evaluated(jobs[method, seed], mazes)]
  if not args.smoke:
    config = flatten(jobs['k1', 0].load().to_dict())
    del config['seed'], config['advantage.k'], config['warm_start']
    write_rows(
      RESULTS / 'transfer.csv',
      rows,
      command='python -m experiments.maze_transfer.sweep',
      config=config | {'mazes': MAZES, 'methods': METHODS, 'num_seeds': NUM_SEEDS},
      seed=0,
      wall_seconds=time.time() - start,
    )
  for line in table(rows):
    print(line)


def evaluated(job: Job, mazes: str) -> list[dict]:
  """Returns pass@k of a trained policy on mazes of another kind, a row for each k."""
  config = overridden(job.load(), MAZES[mazes]).to_dict()
  found = evaluate_workdirs(config, [job.workdir], 'latest', seed=0)
  curve = found['runs'][0]['curves']['pass@k']
  return [{'k': k, 'pass_at_k': mean} for k, mean in zip(curve['k'], curve['mean'], strict=True)]


def table(rows: Sequence[dict]) -> list[str]:
  """Returns lines with the mean over seeds of pass@1 and pass@16, by mazes and method."""
  lines = [f'{"":22}{"":6}  pass@1  pass@16']
  for mazes in dict.fromkeys(row['mazes'] for row in rows):
    for method in dict.fromkeys(row['method'] for row in rows):
      of = {'mazes': mazes, 'method': method}
      means = [column(rows, 'pass_at_k', k=k, **of).mean() for k in (1, 16)]
      lines.append(f'{mazes:22}{method:6}  {means[0]:6.3f}  {means[1]:7.3f}')
  return lines


if __name__ == '__main__':
  main()

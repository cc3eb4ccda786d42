"""Trainings on the quickstart's mazes, all from one warm start a seed: what their sweeps share."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from experiments.launcher import Job, run_jobs
from experiments.results import column, write_rows
from pkpo_jax.estimators import standard_error
from pkpo_jax.metrics import read_metrics
from pkpo_jax.workdir import flatten

# Of all sweeps, which share trainings.
RUNS = Path('runs/maze_methods')
NUM_SEEDS = 5
KS = (1, 2, 4, 8, 16)
MEASURES = (*(f'pass@{k}' for k in KS), 'entropy', 'solved')


class Study(NamedTuple):
  """Some methods to compare.

  Attributes:
    name: of the experiment.
    methods: name -> what each changes of configs/quickstart.py, whose advantage is
      pkpo_loo_minus_one.
    pairs: which differences are of interest: first minus second.
    small: the methods of the small form.
  """

  name: str
  methods: Mapping[str, Mapping[str, Any]]
  pairs: Sequence[tuple[str, str]]
  small: Sequence[str]

  def job(self, method: str, seed: int) -> Job:
    """Returns a training."""
    fields = _common(seed) | {'warm_start': str(warm(seed).workdir)} | dict(self.methods[method])
    return Job(RUNS / f'{method}_seed{seed}', 'quickstart', fields)

  def main(self, results: Path) -> None:
    """Trains what is not trained yet, writes rows, prints the means.

    Args:
      results: the folder of the rows.
    """
    parser = argparse.ArgumentParser(description=f'Trains the methods of {self.name}.')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
    parser.add_argument('--smoke', action='store_true', help='a few steps; writes no rows')
    args = parser.parse_args()
    logging.set_verbosity(logging.WARNING)
    if args.smoke:
      run_jobs([warm(0).smoke()], 1, 'warm start, small')
      run_jobs([self.job(method, 0).smoke() for method in self.small], 1, f'{self.name}, small')
      return
    start, seeds = time.time(), range(NUM_SEEDS)
    run_jobs([warm(seed) for seed in seeds], args.workers, 'warm starts')
    jobs = {(method, seed): self.job(method, seed) for seed in seeds for method in self.methods}
    run_jobs([*jobs.values()], args.workers, self.name)
    rows = [{'method': 'warm', 'seed': seed, **end(warm(seed).workdir)} for seed in seeds]
    rows += [{'method': name[0], 'seed': name[1], **end(one.workdir)} for name, one in jobs.items()]
    config = flatten(Job(RUNS, 'quickstart', _common(0)).load().to_dict())
    del config['seed'], config['advantage.k'], config['warm_start']
    config |= {'methods': self.methods, 'num_seeds': NUM_SEEDS}
    config |= {'warm': flatten(warm(0).load().to_dict())}
    for name, each in (('seeds', rows), ('paired', paired_rows(rows, self.pairs))):
      write_rows(
        results / f'{name}.csv',
        each,
        command=f'python -m experiments.{self.name}.sweep',
        config=config,
        seed=0,
        wall_seconds=time.time() - start,
      )
    for method in ('warm', *self.methods):
      means = [column(rows, f'pass@{k}', method=method).mean() for k in KS]
      print(f'{method:<20}', *(f'{mean:.3f}' for mean in means))


def warm(seed: int) -> Job:
  """Returns the warm start of a seed."""
  return Job(RUNS / f'warm_seed{seed}', 'quickstart:warm', _common(seed))


def _common(seed: int) -> dict[str, int | bool]:
  return {'seed': seed, 'log.tensorboard': False}


def end(workdir: Path) -> dict[str, float | None]:
  """Returns what a run has come to: pass@k and entropy on held-out mazes, training mazes solved.

  clipped_share is the share of the logged steps whose gradient was longer than 1, which is where
  configs/quickstart.py clips it. A warm start has neither that nor solved mazes.
  """
  lines = read_metrics(workdir)
  steps = [line for line in lines if 'train/cumulative_solve_rate' in line]
  norms = [line['train/grad_norm'] for line in steps]
  return {
    **{f'pass@{k}': lines[-1][f'eval/pass@{k}'] for k in KS},
    'entropy': lines[-1]['eval/entropy'],
    'solved': steps[-1]['train/cumulative_solve_rate'] if steps else None,
    'clipped_share': sum(norm > 1 for norm in norms) / len(norms) if norms else None,
  }


def paired_rows(rows: Sequence[Mapping], pairs: Sequence[tuple[str, str]]) -> list[dict]:
  """Returns the difference of each of the pairs in each of MEASURES, paired by seed."""
  found = []
  for method, baseline in pairs:
    for name in MEASURES:
      differences = column(rows, name, method=method) - column(rows, name, method=baseline)
      found.append(
        {
          'method': method,
          'baseline': baseline,
          'measure': name,
          'difference': differences.mean(),
          'standard_error': standard_error(differences),
          'num_seeds_above': int((differences > 0).sum()),
          'num_seeds': len(differences),
        }
      )
  return found

"""Trains the quickstart's mazes with many methods from one warm start a seed, at equal compute.

python -m experiments.maze_methods.sweep [--workers=2] [--smoke]
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from experiments.launcher import Job, run_jobs
from experiments.results import column, write_rows
from pkpo_jax.estimators import standard_error
from pkpo_jax.metrics import read_metrics
from pkpo_jax.workdir import flatten

RUNS = Path('runs/maze_methods')
RESULTS = Path(__file__).parent / 'results'
NUM_SEEDS = 5
KS = (1, 2, 4, 8, 16)
_PASSK = {'advantage.k': 8}
_STEP = {'advantage.schedule.name': 'step', 'advantage.schedule.at': 100}
_THREE = {'advantage.schedule.name': 'pass1_passk_pass1'}
_THREE |= {'advantage.schedule.begin': 25, 'advantage.schedule.end': 100}
_FREE = {'optimizer.max_grad_norm': 100.0}
# What each changes of configs/quickstart.py, whose advantage is pkpo_loo_minus_one.
METHODS = {
  **{f'k{k}': {'advantage.k': k} for k in KS[:-1]},
  'analytical': _PASSK | {'advantage.name': 'passk_analytical'},
  'bootstrap': _PASSK | {'advantage.name': 'passk_bootstrap'},
  'full_sampling': _PASSK | {'advantage.name': 'passk_full_sampling'},
  'combination': _PASSK | {'advantage.name': 'passk_combination'},
  'adaptive': _PASSK | {'advantage.name': 'passk_adaptive'},
  'maxrl': {'advantage.name': 'maxrl'},
  'k8_then_1': _PASSK | _STEP,
  'k1_8_1': _PASSK | _THREE,
  'k1_unclipped': {'advantage.k': 1} | _FREE,
  'k8_unclipped': _PASSK | _FREE,
}
# Which differences are of interest: first minus second.
PAIRS = (
  *[(f'k{k}', 'k1') for k in KS[1:-1]],
  *[(name, 'full_sampling') for name in ('bootstrap', 'analytical')],
  ('analytical', 'bootstrap'),
  *[(name, 'analytical') for name in ('combination', 'adaptive', 'k8')],
  *[(name, 'k1') for name in ('maxrl', 'k8_then_1', 'k1_8_1')],
  ('k1_unclipped', 'k1'),
  ('k8_unclipped', 'k8'),
)
MEASURES = (*(f'pass@{k}' for k in KS), 'entropy', 'solved')


def warm(seed: int) -> Job:
  """Returns the warm start of a seed."""
  return Job(RUNS / f'warm_seed{seed}', 'quickstart:warm', _common(seed))


def job(method: str, seed: int) -> Job:
  """Returns a training."""
  fields = _common(seed) | {'warm_start': str(warm(seed).workdir)} | METHODS[method]
  return Job(RUNS / f'{method}_seed{seed}', 'quickstart', fields)


def _common(seed: int) -> dict[str, int | bool]:
  return {'seed': seed, 'log.tensorboard': False}


def main() -> None:
  """Trains what is not trained yet, writes rows, prints the means."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
  parser.add_argument('--smoke', action='store_true', help='a few steps; writes no rows')
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  if args.smoke:
    run_jobs([warm(0).smoke()], 1, 'warm start, small')
    run_jobs([job(method, 0).smoke() for method in ('k8', 'analytical')], 1, 'maze_methods, small')
    return
  start = time.time()
  seeds = range(NUM_SEEDS)
  run_jobs([warm(seed) for seed in seeds], args.workers, 'warm starts')
  jobs = {(method, seed): job(method, seed) for seed in seeds for method in METHODS}
  run_jobs([*jobs.values()], args.workers, 'maze_methods')
  rows = [{'method': 'warm', 'seed': seed, **end(warm(seed).workdir)} for seed in seeds]
  rows += [{'method': name[0], 'seed': name[1], **end(one.workdir)} for name, one in jobs.items()]
  config = flatten(job('k1', 0).load().to_dict())
  del config['seed'], config['advantage.k'], config['warm_start']
  config |= {'methods': METHODS, 'num_seeds': NUM_SEEDS, 'warm': flatten(warm(0).load().to_dict())}
  for name, each in (('seeds', rows), ('paired', paired_rows(rows))):
    write_rows(
      RESULTS / f'{name}.csv',
      each,
      command='python -m experiments.maze_methods.sweep',
      config=config,
      seed=0,
      wall_seconds=time.time() - start,
    )
  for method in ('warm', *METHODS):
    means = [column(rows, name, method=method).mean() for name in MEASURES[: len(KS)]]
    print(f'{method:<16}', *(f'{mean:.3f}' for mean in means))


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


def paired_rows(rows: Sequence[Mapping]) -> list[dict]:
  """Returns the difference of each of PAIRS in each of MEASURES, paired by seed."""
  found = []
  for method, baseline in PAIRS:
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


if __name__ == '__main__':
  main()

"""Trains the tiny Gemma-2 on every k_opt of the hidden answer; pass@k_eval exactly for every k.

python -m experiments.hidden_answer.sweep [--workers=2] [--smoke]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from experiments.diagonal import diagonal_rows
from experiments.launcher import Job, run_jobs
from experiments.results import write_rows
from pkpo_jax.metrics import read_metrics
from pkpo_jax.run import make_run
from pkpo_jax.workdir import flatten

RUNS = Path('runs/hidden_answer')
RESULTS = Path(__file__).parent / 'results' / 'diagonal.csv'
NUM_SEEDS = 5
EVERY = 400  # Steps between evaluations and between checkpoints: only the ends are needed.


def warm_job(seed: int) -> Job:
  """Returns the warm start of a seed: imitation of all strings alike."""
  return Job(RUNS / f'warm_seed{seed}', 'hidden_answer_tiny:warm', _overrides(seed))


def job(k: int, seed: int) -> Job:
  """Returns a training on pass@k."""
  overrides = {'warm_start': str(warm_job(seed).workdir), 'advantage.k': k}
  return Job(RUNS / f'k{k}_seed{seed}', 'hidden_answer_tiny', _overrides(seed) | overrides)


def main() -> None:
  """Trains what is not trained yet, and writes rows."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
  parser.add_argument('--smoke', action='store_true', help='two short runs: only that they run')
  args = parser.parse_args()
  if args.smoke:
    for one in (warm_job(0), job(8, 0)):
      run_jobs([one.smoke()], 1, 'hidden_answer, small')
    return
  workers = args.workers
  start, seeds = time.time(), range(NUM_SEEDS)
  config = job(1, 0).load()
  run, ks = make_run(config), config.eval.ks
  run_jobs([warm_job(seed) for seed in seeds], workers, 'warm starts')
  run_jobs([job(k, seed) for seed in seeds for k in ks], workers, 'hidden_answer')
  values = np.asarray([[_exact(job(k, seed), ks) for seed in seeds] for k in ks])
  best = [run.task.best_objective(run.policy, k) for k in ks]
  config = flatten(config.to_dict())
  del config['advantage.k'], config['seed']
  config['warm_start'] = flatten(warm_job(0).load().to_dict())
  write_rows(
    RESULTS,
    diagonal_rows(ks, values, best),
    command='python -m experiments.hidden_answer.sweep',
    config=config | {'num_seeds': NUM_SEEDS},
    seed=0,
    wall_seconds=time.time() - start,
  )


def _overrides(seed: int) -> dict:
  every = {'eval.every': EVERY, 'checkpoint.every': EVERY}
  return {'seed': seed, 'log.tensorboard': False, **every}


def _exact(one: Job, ks: tuple[int, ...]) -> list[float]:
  """Returns the exact pass@k of the trained policy."""
  last = read_metrics(one.workdir)[-1]
  return [last[f'eval/pass@{k}_exact'] for k in ks]


if __name__ == '__main__':
  main()

"""Trains the tiny Gemma-2 on mazes for several k_opt and seeds, and evaluates all of them.

python -m experiments.maze_tiny.sweep [--workers=2]
"""

import argparse
from pathlib import Path

from experiments.launcher import Job, run_jobs

RUNS = Path('runs/maze_tiny')
NUM_SEEDS = 5
# Name: config.advantage.name and k, of 16 samples.
METHODS = {
  'k1': ('pkpo_loo_minus_one', 1),
  'k4': ('pkpo_loo_minus_one', 4),
  'k8': ('pkpo_loo_minus_one', 8),
  'tzsm': ('tzsm', 16),
}
WARM = Job(RUNS / 'warm', 'maze_tiny:warm', {})


def job(method: str, seed: int) -> Job:
  """Returns a training from the common warm start."""
  name, k = METHODS[method]
  overrides = {
    'seed': seed,
    'warm_start': str(WARM.workdir),
    'advantage.name': name,
    'advantage.k': k,
    'log.tensorboard': False,
  }
  return Job(RUNS / f'{method}_seed{seed}', 'maze_tiny', overrides)


def main() -> None:
  """Trains what is not trained yet, then evaluates."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
  workers = parser.parse_args().workers
  run_jobs([WARM], 1, 'warm start')
  run_jobs([job(m, seed) for seed in range(NUM_SEEDS) for m in METHODS], workers, 'maze_tiny')


if __name__ == '__main__':
  main()

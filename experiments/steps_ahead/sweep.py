"""Trains the quickstart's mazes with samples of the step's own policy, and of the one before.

python -m experiments.steps_ahead.sweep [--smoke]
"""

import argparse
import time
from pathlib import Path

from absl import logging

from configs.quickstart import get_config
from experiments import quickstart
from experiments.results import write_rows
from pkpo_jax.metrics import read_metrics
from pkpo_jax.train import train
from pkpo_jax.workdir import flatten

RUNS = Path('runs/steps_ahead')
RESULTS = Path(__file__).parent / 'results'
NUM_SEEDS = 5
KS = (1, 2, 4, 8, 16)
# What corrects for samples of an older policy.
METHODS = {
  'token ratios': {'loss.name': 'ppo', 'advantage.name': 'pkpo_loo_minus_one'},
  'max@k off-policy': {'advantage.name': 'max_at_k_off_policy'},
}


def main() -> None:
  """Trains what is not trained yet, writes rows, prints them."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--smoke', action='store_true', help='a few steps; writes no rows')
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  root = RUNS / 'smoke' if args.smoke else RUNS
  quickstart.compile_quickly(root / '.jax_cache')
  start = time.time()
  rows = []
  for seed in range(1 if args.smoke else NUM_SEEDS):
    warm = get_config('warm_quick' if args.smoke else 'warm')
    warm.seed = seed
    train(warm, root / f'seed{seed}/warm')
    for method, fields in METHODS.items():
      for steps_ahead in (0, 1):
        config = get_config('quick' if args.smoke else None)
        config.seed, config.warm_start = seed, str(root / f'seed{seed}/warm')
        config.update_from_flattened_dict(fields | {'rollout.steps_ahead': steps_ahead})
        workdir = root / f'seed{seed}' / f'{config.advantage.name}_{steps_ahead}'
        train(config, workdir)
        rows.append({'method': method, 'steps_ahead': steps_ahead, 'seed': seed, **_end(workdir)})
  for row in rows:
    print(*(f'{x:.3f}' if isinstance(x, float) else x for x in row.values()), sep='  ')
  if args.smoke:
    return
  config = {**flatten(get_config().to_dict()), 'warm': flatten(get_config('warm').to_dict())}
  write_rows(
    RESULTS / 'seeds.csv',
    rows,
    command='python -m experiments.steps_ahead.sweep',
    config={**config, 'methods': METHODS, 'num_seeds': NUM_SEEDS},
    seed=0,
    wall_seconds=time.time() - start,
  )


def _end(workdir: Path) -> dict[str, float]:
  """Returns what a run has come to: pass@k on held-out mazes, entropy, and how far off it was."""
  lines = read_metrics(workdir)
  steps = [line for line in lines if 'train/log_ratio_max' in line]
  return {
    **{f'pass@{k}': lines[-1][f'eval/pass@{k}'] for k in KS},
    'entropy': lines[-1]['eval/entropy'],
    'solved': steps[-1]['train/cumulative_solve_rate'],
    'log_ratio_max': max(line['train/log_ratio_max'] for line in steps),
  }


if __name__ == '__main__':
  main()

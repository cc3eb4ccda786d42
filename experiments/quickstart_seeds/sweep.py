"""Runs the quickstart for several seeds, and counts in how many of them each claim holds.

python -m experiments.quickstart_seeds.sweep
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from configs.quickstart import get_config
from experiments import quickstart
from experiments.results import column, write_rows
from pkpo_jax.workdir import flatten

RUNS = Path('runs/quickstart_seeds')
RESULTS = Path(__file__).parent / 'results'
NUM_SEEDS = 10
WARM, K1, K8 = quickstart.LABELS
# What the README says of the table: the run on the left has more of this than that on the right.
CLAIMS = (
  ('pass@1', K1, WARM),
  ('pass@1', K8, WARM),
  ('pass@1', K1, K8),
  ('pass@16', WARM, K1),
  ('pass@8', K8, WARM),
  ('pass@16', K8, WARM),
  ('pass@8', K8, K1),
  ('pass@16', K8, K1),
  ('solved', K8, K1),
  ('entropy', K8, K1),
)


def main() -> None:
  """Trains what is not trained yet, writes rows, prints the counts."""
  argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
  logging.set_verbosity(logging.WARNING)
  quickstart.compile_quickly(RUNS / '.jax_cache')
  start = time.time()
  rows = []
  for seed in range(NUM_SEEDS):
    for policy in quickstart.train_all(RUNS / f'seed{seed}', seed):
      rows.append({'seed': seed, 'trained_on': policy.label, **_measures(policy)})
  config = {
    'num_seeds': NUM_SEEDS,
    'trained_ks': quickstart.TRAINED_KS,
    **flatten(get_config().to_dict()),
    'warm_start': flatten(get_config('warm').to_dict()),
  }
  for field in ('seed', 'advantage.k'):
    del config[field], config['warm_start'][field]
  write_rows(
    RESULTS / 'seeds.csv',
    rows,
    command='python -m experiments.quickstart_seeds.sweep',
    config=config,
    seed=0,
    wall_seconds=time.time() - start,
  )
  for (name, more, less), count in count_seeds(rows).items():
    print(f'{name:<8}{more:>11} > {less:<11}{count:>4} of {NUM_SEEDS} seeds')


def count_seeds(rows: list[Mapping]) -> dict[tuple[str, str, str], int]:
  """Returns for each of CLAIMS the number of seeds in which it holds."""
  counts = {}
  for name, more, less in CLAIMS:
    difference = column(rows, name, trained_on=more) - column(rows, name, trained_on=less)
    counts[name, more, less] = int((difference > 0).sum())
  return counts


def _measures(policy: quickstart.Trained) -> dict[str, float | None]:
  """Returns the numbers of a line of the quickstart's table."""
  curve = dict(zip(quickstart.KS, policy.pass_at_k.mean, strict=True))
  solved = [
    line['train/cumulative_solve_rate']
    for line in policy.lines
    if 'train/cumulative_solve_rate' in line
  ]
  return {
    **{f'pass@{k}': value for k, value in curve.items()},
    'solved': solved[-1] if solved else None,
    'entropy': policy.entropy,
  }


if __name__ == '__main__':
  main()

"""The weights v_t of the sorted rewards in the estimate of max@k, beside exact fractions."""

import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from experiments import results
from pkpo_jax import subset_weights

COMMAND = 'python -m experiments.pkpo_fig2_weights.sweep'
RESULTS = Path(__file__).parent / 'results'
CONFIG = {'ks': (1, 2, 4, 8), 'num_samples': 8}


def main(output_dir: Path = RESULTS) -> None:
  started = time.perf_counter()
  n = CONFIG['num_samples']
  rows = []
  for k in CONFIG['ks']:
    weights = np.asarray(subset_weights(n, k), np.float64)
    for index, weight in enumerate(weights):
      exact = Fraction(math.comb(index, k - 1), math.comb(n, k))
      error = abs(weight - exact) / exact if exact else abs(weight)
      rows.append({'k': k, 'index': index, 'weight': weight, 'exact': str(exact), 'error': error})
  wall_seconds = time.perf_counter() - started
  results.write_rows(
    output_dir / 'weights.csv',
    rows,
    command=COMMAND,
    config=CONFIG,
    seed=None,
    wall_seconds=wall_seconds,
  )
  print(f'largest relative error: {max(float(row["error"]) for row in rows):.1e}')


if __name__ == '__main__':
  main()

"""The weight of a prompt's gradient, against its pass rate, with each advantage."""

import time
from pathlib import Path

import numpy as np

from experiments import results
from pkpo_jax import ADVANTAGES, weight_curve

COMMAND = 'python -m experiments.weight_curves.sweep'
RESULTS = Path(__file__).parent / 'results'
CONFIG = {'num_samples': 16, 'k': 8, 'num_pass_rates': 101}
# They depend on more than the pass rate.
LEFT_OUT = ('passk_adaptive', 'maj_at_k')


def main(output_dir: Path = RESULTS) -> None:
  started = time.perf_counter()
  n, k = CONFIG['num_samples'], CONFIG['k']
  pass_rates = np.linspace(0, 1, CONFIG['num_pass_rates'])
  rows = []
  for name in ADVANTAGES:
    if name in LEFT_OUT:
      continue
    curve = weight_curve(name, pass_rates, n=n, k=k)
    mean = np.trapezoid(curve.weight, pass_rates)
    for values in zip(*curve, curve.weight, strict=True):
      row = dict(zip(('pass_rate', 'right', 'wrong', 'weight'), values, strict=True))
      rows.append({'method': name, **row})
    weights = ', '.join(f'{x:.3g}' for x in curve.weight[[0, 10, 25, 50, 75, 90]])
    print(f'{name:20} {weights:45} mean {mean:.3g}')
  results.write_rows(
    output_dir / 'weights.csv',
    rows,
    command=COMMAND,
    config=CONFIG,
    seed=0,
    wall_seconds=time.perf_counter() - started,
  )


if __name__ == '__main__':
  main()

"""Advantages of Pass@k Training against accuracy, and their sum of magnitudes eta."""

import math
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments import results
from pkpo_jax import grpo, passk_analytical, passk_combination, passk_exceeding

COMMAND = 'python -m experiments.passk_training_fig9_advantages.sweep'
RESULTS = Path(__file__).parent / 'results'
CONFIG = {'ks': (1, 4, 8, 16), 'num_samples': 32}
METHODS = {
  'grpo': grpo,
  'passk_analytical': passk_analytical,
  'passk_exceeding': passk_exceeding,
  'passk_combination': passk_combination,
}


def closed_form(num_right: int, n: int, k: int) -> tuple[float, float]:
  """Returns the analytical advantages of a right and of a wrong sample, as the paper has them.

  A_right = (1 - R)/sigma, A_wrong = (1 - R - C(N_wrong - 1, k - 1)/C(n - 1, k - 1))/sigma, in
  exact integers up to the root (arXiv 2508.10751, section 3.3); 0 where sigma is 0.
  """
  num_wrong = n - num_right
  fail = math.comb(num_wrong, k) / math.comb(n, k)
  sigma = math.sqrt(fail * (1 - fail))
  if sigma == 0:
    return 0.0, 0.0
  fail_with_it = math.comb(num_wrong - 1, k - 1) / math.comb(n - 1, k - 1)
  return fail / sigma, (fail - fail_with_it) / sigma


def main(output_dir: Path = RESULTS) -> None:
  started = time.perf_counter()
  n = CONFIG['num_samples']
  num_right = np.arange(n + 1)
  # Row c: the first c samples are right.
  rewards = jnp.asarray(np.arange(n) < num_right[:, None], jnp.float32)
  rows = []
  for method, fn in METHODS.items():
    for k in CONFIG['ks']:
      advantages = np.asarray(fn(rewards, k=k), np.float64)
      for c in num_right:
        right, wrong = closed_form(int(c), n, k)
        has_closed_form = method == 'passk_analytical' and 0 < c < n
        rows.append(
          {
            'method': method,
            'k': k,
            'num_right': int(c),
            'accuracy': c / n,
            'a_right': advantages[c, 0] if c > 0 else None,
            'a_wrong': advantages[c, -1] if c < n else None,
            'eta': np.abs(advantages[c]).sum(),
            'a_right_closed_form': right if has_closed_form else None,
            'a_wrong_closed_form': wrong if has_closed_form else None,
          }
        )
  wall_seconds = time.perf_counter() - started
  results.write_rows(
    output_dir / 'advantages.csv',
    rows,
    command=COMMAND,
    config=CONFIG,
    seed=None,
    wall_seconds=wall_seconds,
  )
  for method in METHODS:
    peaks = [int(np.argmax(results.column(rows, 'eta', method=method, k=k))) for k in CONFIG['ks']]
    print(f'{method}: eta peaks at {peaks} right of {n} for k = {CONFIG["ks"]}')
  error = max(
    abs(row[name] - row[f'{name}_closed_form'])
    for row in rows
    for name in ('a_right', 'a_wrong')
    if row[f'{name}_closed_form'] is not None
  )
  print(f'largest distance from the closed form: {error:.1e}')


if __name__ == '__main__':
  main()

"""The reward transforms of PKPO averaged given the raw reward, beside their closed forms.

Rewards x are uniform on [-1/2, 1/2]. All in the paper's sum convention, w_i = A_i / n.
"""

import functools
import itertools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import results
from pkpo_jax import ADVANTAGES
from pkpo_jax.progress import Progress

COMMAND = 'python -m experiments.pkpo_fig5_transforms.sweep'
RESULTS = Path(__file__).parent / 'results'
SEED = 0
METHODS = ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one')
CONFIG = {
  'ks': (2, 4, 8, 16),
  'num_samples': 32,
  'num_groups': 20_000,
  'groups_per_batch': 2_000,
  'num_bins': 25,
  # A bin has a z only if this share of its weights is not 0. Low rewards rarely beat k - 1 others:
  # where s_loo1 is almost always 0, a few rare samples make the mean and its error is not normal.
  'min_nonzero_share': 0.5,
}


def closed_form(method: str, x: np.ndarray, k: int, n: int) -> np.ndarray:
  """Returns E[w_i | x_i = x]: what the transform turns a reward into on average."""
  u = x + 0.5
  if method == 'pkpo_loo_minus_one':
    return u**k / n
  mean = (k / 2 - 1 + u**k) / n
  # A baseline is the mean of (k/n') (max@k) with n' = n - 1; E[max of k] = k/(k+1) - 1/2.
  return mean - k / (n - 1) * (k / (k + 1) - 0.5) if method == 'pkpo_loo' else mean


@functools.partial(jax.jit, static_argnames='method')
def sum_by_bin(key: jax.Array, k: jax.Array, method: str) -> jax.Array:
  """Returns four sums per group and bin `[4, G, B]`: w, w - E[w | x], samples, w != 0."""
  n, num_bins = CONFIG['num_samples'], CONFIG['num_bins']
  x = jax.random.uniform(key, (CONFIG['groups_per_batch'], n)) - 0.5
  weights = ADVANTAGES[method](x, k=k) / n
  residuals = weights - closed_form(method, x, k, n)
  bins = jnp.clip(jnp.floor((x + 0.5) * num_bins).astype(jnp.int32), 0, num_bins - 1)
  is_in = jax.nn.one_hot(bins, num_bins)
  values = jnp.stack([weights, residuals, jnp.ones_like(x), (weights != 0).astype(x.dtype)])
  return jnp.einsum('vgn,gnb->vgb', values, is_in)


def main(output_dir: Path = RESULTS) -> None:
  started = time.perf_counter()
  n, num_bins = CONFIG['num_samples'], CONFIG['num_bins']
  num_batches = CONFIG['num_groups'] // CONFIG['groups_per_batch']
  keys = jax.random.split(jax.random.key(SEED), num_batches)
  centres = (np.arange(num_bins) + 0.5) / num_bins - 0.5
  rows = []
  pairs = list(itertools.product(METHODS, CONFIG['ks']))
  for method, k in Progress('transforms', items=pairs, unit='setting'):
    # The same rewards for every method and k.
    sums = [np.asarray(sum_by_bin(key, jnp.int32(k), method), np.float64) for key in keys]
    weights, residuals, counts, nonzero = np.concatenate(sums, axis=1)
    total = counts.sum(axis=0)
    # Samples of one group share its order statistics: the standard error is over groups.
    deviation = residuals.sum(axis=0) / total
    se = np.sqrt(np.sum((residuals - deviation * counts) ** 2, axis=0)) / total
    means = weights.sum(axis=0) / total
    nonzero_share = nonzero.sum(axis=0) / total
    has_z = nonzero_share >= CONFIG['min_nonzero_share']
    for b in range(num_bins):
      rows.append(
        {
          'method': method,
          'k': k,
          'reward': centres[b],
          'mean': means[b],
          'se': se[b],
          'closed_form': float(closed_form(method, centres[b], k, n)),
          'deviation': deviation[b],
          'nonzero_share': nonzero_share[b],
          'z': deviation[b] / se[b] if has_z[b] else None,
        }
      )
  wall_seconds = time.perf_counter() - started
  results.write_rows(
    output_dir / 'transforms.csv',
    rows,
    command=COMMAND,
    config=CONFIG,
    seed=SEED,
    wall_seconds=wall_seconds,
  )
  for method in METHODS:
    of_method = [row for row in rows if row['method'] == method]
    z = np.array([row['z'] for row in of_method if row['z'] is not None])
    rest = [abs(row['deviation']) for row in of_method if row['z'] is None]
    print(
      f'{method}: {len(z)} bins with largest |z| {np.abs(z).max():.2f}, rms z '
      f'{np.sqrt(np.mean(z**2)):.2f}; {len(rest)} without, off by <= {max(rest, default=0):.0e}'
    )


if __name__ == '__main__':
  main()

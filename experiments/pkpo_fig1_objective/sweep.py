"""The objective max@k(theta) and its derivative: closed forms, and estimates from samples."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import gaussian_exact, results
from pkpo_jax import max_at_k, pkpo_loo_minus_one

COMMAND = 'python -m experiments.pkpo_fig1_objective.sweep'
RESULTS = Path(__file__).parent / 'results'
SEED = 0
CONFIG = {
  'ks': (1, 2, 4, 8, 16),
  'sd': gaussian_exact.SD,
  'theta_min': -0.2,
  'theta_max': 1.4,
  'num_thetas': 161,
  'num_monte_carlo_thetas': 17,
  'num_samples': 32,
  'num_groups': 1000,
}


def main(output_dir: Path = RESULTS) -> None:
  started = time.perf_counter()
  thetas, monte_carlo_thetas = (
    np.linspace(CONFIG['theta_min'], CONFIG['theta_max'], CONFIG[number])
    for number in ('num_thetas', 'num_monte_carlo_thetas')
  )
  curves = [
    {
      'theta': theta,
      'k': k,
      'reward': float(gaussian_exact.reward(theta)),
      'max_at_k': gaussian_exact.max_at_k(theta, k),
      'derivative': gaussian_exact.derivative(theta, k),
    }
    for k in CONFIG['ks']
    for theta in np.round(thetas, 9)
  ]
  keys = jax.random.split(jax.random.key(SEED), len(monte_carlo_thetas))
  estimates = [
    row
    for theta, key in zip(np.round(monte_carlo_thetas, 9), keys, strict=True)
    for row in estimate(theta, key)
  ]
  optima = [
    {'k': k, 'theta': theta, 'max_at_k': gaussian_exact.max_at_k(theta, k)}
    for k, theta in ((k, gaussian_exact.best_theta(k)) for k in CONFIG['ks'])
  ]
  provenance = {
    'command': COMMAND,
    'config': CONFIG,
    'seed': SEED,
    'wall_seconds': time.perf_counter() - started,
  }
  results.write_rows(output_dir / 'curves.csv', curves, **provenance)
  results.write_rows(output_dir / 'estimates.csv', estimates, **provenance)
  results.write_rows(output_dir / 'optima.csv', optima, **provenance)
  for row in optima:
    print(f'k = {row["k"]:2d}: best theta {row["theta"]:.4f}, max@k {row["max_at_k"]:.4f}')
  z = np.array([row['z'] for row in estimates])
  print(
    f'{len(z)} estimates: largest |z| {np.abs(z).max():.2f}, rms z {np.sqrt(np.mean(z**2)):.2f}'
  )


def estimate(theta: float, key: jax.Array) -> list[dict[str, results.Value]]:
  """Returns a row for each k and quantity: the mean over groups, its standard error and its z."""
  shape = (CONFIG['num_groups'], CONFIG['num_samples'])
  x = theta + CONFIG['sd'] * jax.random.normal(key, shape)
  rewards = jnp.where((x >= 0) & (x <= 1), x**2, 0)
  scores = (x - theta) / CONFIG['sd'] ** 2
  rows = []
  for k in CONFIG['ks']:
    for quantity, per_group, exact in (
      ('max_at_k', max_at_k(rewards, k), gaussian_exact.max_at_k),
      (
        'derivative',
        jnp.mean(pkpo_loo_minus_one(rewards, k=k) * scores, axis=-1),
        gaussian_exact.derivative,
      ),
    ):
      per_group = np.asarray(per_group, np.float64)
      mean, se = per_group.mean(), per_group.std(ddof=1) / np.sqrt(len(per_group))
      row = {'theta': theta, 'k': k, 'quantity': quantity, 'estimate': mean, 'se': se}
      rows.append(row | {'exact': exact(theta, k), 'z': (mean - exact(theta, k)) / se})
  return rows


if __name__ == '__main__':
  main()

"""Variance of the estimates of grad max@k: against n, against theta, against the pass rate."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments import gaussian_exact, results
from experiments.pkpo_fig4_variance.estimators import ESTIMATORS, MIN_SETS, PKPO
from pkpo_jax.progress import Progress

COMMAND = 'python -m experiments.pkpo_fig4_variance.sweep'
RESULTS = Path(__file__).parent / 'results'
SEED = 0
CONFIG = {
  'k': 4,
  'num_estimates': 10_000,
  'sd': gaussian_exact.SD,
  # The panel against n, the paper's, and its theta.
  'num_samples_axis': (4, 8, 12, 16, 24, 32, 48, 64),
  'theta': 1.0,
  # The panels against theta and against the pass rate, and their n.
  'theta_axis': (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2),
  'pass_rate_axis': (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
  'num_samples': 16,
}


@functools.partial(jax.jit, static_argnames='shape')
def sample_gaussian(key: jax.Array, shape: tuple[int, int], theta: jax.Array):
  """Returns rewards and d log p / d theta for x ~ Normal(theta, sd)."""
  x = theta + CONFIG['sd'] * jax.random.normal(key, shape)
  return jnp.where((x >= 0) & (x <= 1), x**2, 0), (x - theta) / CONFIG['sd'] ** 2


@functools.partial(jax.jit, static_argnames='shape')
def sample_binary(key: jax.Array, shape: tuple[int, int], pass_rate: jax.Array):
  """Returns rewards and d log p / d logit for a sample that is right with chance pass_rate."""
  rewards = jax.random.bernoulli(key, pass_rate, shape).astype(jnp.float32)
  return rewards, rewards - pass_rate


@jax.jit
def estimate_gradients(rewards: jax.Array, scores: jax.Array) -> dict[str, jax.Array]:
  """Returns `[R]` gradient estimates per estimator from `[R, n]` rewards and scores.

  Not compiled together with the sampler, as rewards of a trainer are not: XLA may compute a reward
  twice in one program with different rounding, and ties with the maximum are found by equality.
  """
  k, n = CONFIG['k'], rewards.shape[-1]
  return {
    name: jnp.sum(fn(rewards, k) * scores, axis=-1)
    for name, fn in ESTIMATORS.items()
    if n >= k * MIN_SETS.get(name, 1)
  }


def main(output_dir: Path = RESULTS) -> None:
  started = time.perf_counter()
  k, n = CONFIG['k'], CONFIG['num_samples']
  settings = (
    [('num_samples', m, sample_gaussian, CONFIG['theta'], m) for m in CONFIG['num_samples_axis']]
    + [('theta', theta, sample_gaussian, theta, n) for theta in CONFIG['theta_axis']]
    + [('pass_rate', rate, sample_binary, rate, n) for rate in CONFIG['pass_rate_axis']]
  )
  keys = jax.random.split(jax.random.key(SEED), len(settings))
  rows = []
  for key, (panel, x, sampler, parameter, num_samples) in zip(
    Progress('variance', items=list(keys), unit='setting'), settings, strict=True
  ):
    if sampler is sample_binary:
      # d/dlogit of 1 - (1 - p)^k, with dp/dlogit = p (1 - p).
      exact = k * parameter * (1 - parameter) ** k
    else:
      exact = gaussian_exact.derivative(parameter, k)
    shape = (CONFIG['num_estimates'], num_samples)
    gradients = estimate_gradients(*sampler(key, shape, jnp.float32(parameter)))
    gradients = {name: np.asarray(values, np.float64) for name, values in gradients.items()}
    exact_variances = binary_variances(parameter) if sampler is sample_binary else {}
    for method, estimates in gradients.items():
      rows.append(
        {
          'panel': panel,
          'x': x,
          'method': method,
          **summarize(estimates, gradients['pkpo_loo_minus_one'], exact),
          'exact_variance': exact_variances.get(method),
        }
      )
  wall_seconds = time.perf_counter() - started
  results.write_rows(
    output_dir / 'variance.csv',
    rows,
    command=COMMAND,
    config=CONFIG,
    seed=SEED,
    wall_seconds=wall_seconds,
  )
  z = results.column(rows, 'z')
  print(f'{len(z)} means: largest |z| {np.abs(z).max():.2f}, rms z {np.sqrt(np.mean(z**2)):.2f}')
  for panel in ('num_samples', 'theta', 'pass_rate'):
    of_panel = [row for row in rows if row['panel'] == panel]
    least = {}
    for row in sorted(of_panel, key=lambda row: -row['variance']):
      least[row['x']] = row['method']
    print(f'least variance by {panel}:', ', '.join(f'{x}: {least[x]}' for x in sorted(least)))


def summarize(estimates: np.ndarray, others: np.ndarray, exact: float) -> dict[str, float]:
  """Returns the variance, its ratio to that of `others`, and the mean against the exact gradient.

  Args:
    estimates: `[R]` independent gradient estimates.
    others: `[R]` those of the estimator to compare with, from the same samples.
    exact: the gradient.
  """
  num = len(estimates)
  squares, other_squares = ((e - e.mean()) ** 2 for e in (estimates, others))
  variance = estimates.var(ddof=1)
  ratio = squares.mean() / other_squares.mean()
  mean_se = np.sqrt(variance / num)
  return {
    'variance': variance,
    'variance_se': squares.std() / np.sqrt(num),
    'ratio': ratio,
    'ratio_se': (squares - ratio * other_squares).std() / other_squares.mean() / np.sqrt(num),
    'mean': estimates.mean(),
    'mean_se': mean_se,
    'exact': exact,
    'z': (estimates.mean() - exact) / mean_se,
  }


def binary_variances(pass_rate: float) -> dict[str, float]:
  """Returns the exact variance of each PKPO estimator: a sum over the number of right samples."""
  n = CONFIG['num_samples']
  num_right = np.arange(n + 1)
  rewards = np.asarray(np.arange(n) < num_right[:, None], np.float32)
  chances = stats.binom.pmf(num_right, n, pass_rate)
  variances = {}
  for name in PKPO:
    weights = np.asarray(ESTIMATORS[name](jnp.asarray(rewards), CONFIG['k']), np.float64)
    gradients = np.sum(weights * (rewards - pass_rate), axis=-1)
    variances[name] = chances @ (gradients - chances @ gradients) ** 2
  return variances


if __name__ == '__main__':
  main()

"""The signal-to-noise ratio of every advantage's gradient against the pass rate, exactly.

A Bernoulli policy p = sigmoid(theta) is right with chance p. With 0/1 rewards the gradient
estimate (1/n) sum_i A_i d log p(x_i) / d theta depends on the number c of right samples alone, so
its mean and variance are sums over c ~ Binomial(n, p): no sampling, but for the one advantage that
draws at random.

  python -m experiments.gradient_snr.sweep
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import pkpo_jax
from experiments.results import write_rows

N, K = 16, 8
NUM_DRAWS = 256  # Of passk_bootstrap, per number of right samples.
SEED = 0
PASS_RATES = np.round(10.0 ** np.linspace(-3, np.log10(0.99), 41), 6)
RESULTS = pathlib.Path(__file__).parent / 'results' / 'snr.csv'


def main() -> None:
  """Writes one row for each advantage and pass rate."""
  start = time.time()
  rewards = np.tri(N + 1, N, -1, dtype=np.float32)  # Row c has c right samples.
  rows = []
  for name in pkpo_jax.ADVANTAGES:
    if name == 'maj_at_k':
      continue  # It depends on which wrong answers are equal, too.
    advantages = _advantages(name, rewards)  # [draws, c, n]
    for p in PASS_RATES:
      slopes = np.where(rewards == 1, 1 - p, -p)
      estimates = (advantages * slopes).mean(axis=-1)
      chances = stats.binom(N, p).pmf(np.arange(N + 1))
      mean = (estimates.mean(axis=0) * chances).sum()
      variance = ((estimates - mean) ** 2).mean(axis=0) @ chances
      rows.append(
        {
          'advantage': name,
          'pass_rate': p,
          'gradient_mean': mean,
          'gradient_std': np.sqrt(variance),
          'snr': mean / np.sqrt(variance),
          'exact_gradient_pass_at_k': K * p * (1 - p) ** K,
        }
      )
    print(name, flush=True)
  write_rows(
    RESULTS,
    rows,
    command='python -m experiments.gradient_snr.sweep',
    config={'n': N, 'k': K, 'num_draws': NUM_DRAWS},
    seed=SEED,
    wall_seconds=time.time() - start,
  )


def _advantages(name: str, rewards: np.ndarray) -> np.ndarray:
  """Returns `[draws, c, n]`: the advantages of groups with c right samples, in float64."""
  advantage = pkpo_jax.ADVANTAGES[name]
  if name == 'passk_bootstrap':
    keys = jax.random.split(jax.random.key(SEED), NUM_DRAWS)
    found = jax.vmap(lambda key: advantage(rewards, k=K, key=key))(keys)
  elif name == 'passk_full_sampling':
    # It depends on the order of the samples, which in a rollout is random.
    keys = jax.random.split(jax.random.key(SEED), NUM_DRAWS)
    permute = lambda key: jax.vmap(jax.random.permutation)(jax.random.split(key, N + 1), order)
    order = jnp.broadcast_to(jnp.arange(N), (N + 1, N))
    orders = jax.vmap(permute)(keys)
    shuffled = jnp.take_along_axis(jnp.asarray(rewards)[None], orders, axis=-1)
    found = jnp.take_along_axis(advantage(shuffled, k=K), jnp.argsort(orders, axis=-1), axis=-1)
  elif name == 'passk_adaptive':
    # One prompt at a time is the lower half of its batch: Pass@k.
    found = jax.vmap(lambda group: advantage(group, k=K, entropy=jnp.zeros(())))(rewards)[None]
  elif name == 'max_at_k_off_policy':
    found = advantage(rewards, k=K, ratios=np.ones_like(rewards))[None]
  elif name == 'pkpo_weighted_loo':
    found = advantage(rewards, k=K, baseline_weights=None)[None]
  else:
    found = advantage(rewards, k=K)[None]
  return np.asarray(found, np.float64)


if __name__ == '__main__':
  main()

"""The gradient weights that PKPO's variance study compares, in the paper's sum convention.

Each function takes rewards `[..., n]` and k and returns `[..., n]` weights w with
E[sum_i w_i grad log p(x_i)] = grad max@k. The partitioned ones serve this comparison only: they
use n / k disjoint sets of k samples where PKPO uses all C(n, k).
"""

import jax
import jax.numpy as jnp

from pkpo_jax import ADVANTAGES


def partitioned(rewards: jax.Array, k: int) -> jax.Array:
  """Gives each sample the maximum of its set, averaged over sets."""
  best = jnp.max(_split(rewards, k), axis=-1)
  return _share(best, k)


def partitioned_loo(rewards: jax.Array, k: int) -> jax.Array:
  """Subtracts from each set's maximum the mean of the other sets' maxima; n >= 2k."""
  best = jnp.max(_split(rewards, k), axis=-1)
  num_sets = best.shape[-1]
  others = (jnp.sum(best, axis=-1, keepdims=True) - best) / (num_sets - 1)
  return _share(best - others, k)


def partitioned_loo_minus_one(rewards: jax.Array, k: int) -> jax.Array:
  """Gives each sample what it adds to the maximum of its set (TZSM in each set), averaged."""
  sets = _split(rewards, k)
  return (ADVANTAGES['tzsm'](sets) / k).reshape(rewards.shape) / sets.shape[-2]


def _split(rewards: jax.Array, k: int) -> jax.Array:
  return rewards.reshape(*rewards.shape[:-1], rewards.shape[-1] // k, k)


def _share(per_set: jax.Array, k: int) -> jax.Array:
  return jnp.repeat(per_set, k, axis=-1) / per_set.shape[-1]


def _in_sum_convention(name: str):
  return lambda rewards, k: ADVANTAGES[name](rewards, k=k) / rewards.shape[-1]


PKPO = ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered')
ESTIMATORS = {name: _in_sum_convention(name) for name in PKPO} | {
  'partitioned': partitioned,
  'partitioned_loo': partitioned_loo,
  'partitioned_loo_minus_one': partitioned_loo_minus_one,
}
# The smallest n at which each is defined, in multiples of k.
MIN_SETS = {'pkpo_loo': 2, 'pkpo_centered': 2, 'partitioned_loo': 2}

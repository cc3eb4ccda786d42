"""Pass@k Training: group-normalized advantages of pass@k and their compositions.

Chen et al. 2025, arXiv 2508.10751. As the paper feeds them to a loss that averages over samples:
without the division by sigma their expected gradient is (1/k)(1 - k/n) grad max@k.

Every function takes rewards `[..., n]`, one group per leading index, and returns `[..., n]`
float32 without unit, 0 where a sample does not exist. With a traced k that a group does not allow
(k < 1 or k > its samples) the group's advantages are 0.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from pkpo_jax import groups
from pkpo_jax.advantages.pkpo import excess_over_mean_max
from pkpo_jax.advantages.relatives import grpo
from pkpo_jax.errors import FieldError
from pkpo_jax.group_ks import takes_k_per_group
from pkpo_jax.typing import Advantages, AnyArray, K, Key, Mask, Rewards
from pkpo_jax.weights import subset_weights


@takes_k_per_group
def passk_analytical(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns the analytical Pass@k Training advantages, for binary and continuous rewards.

  A_i = (G_i - mu) / sigma,  G_i the mean of max_I g over the k-subsets I containing i, mu and
  sigma the mean and the population standard deviation of max_I g over all k-subsets:
  mu = sum_t v_t g_(t),  sigma^2 = sum_t v_t (g_(t) - mu)^2.
  With c of n right this is the paper's closed form (arXiv 2508.10751, section 3.3):
  A_right = sqrt(f/(1-f)), A_wrong = -A_right c/(n-c), f = C(n-c, k)/C(n, k). At k = 1 it is GRPO.
  Invariant to r -> a r + b for a > 0; sums to 0; 0 where sigma is 0, as at k = n.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n].

  >>> print(passk_analytical(jnp.array([0., 1., 0., 0., 0.]), k=4))
  [-0.125  0.5   -0.125 -0.125 -0.125]
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  # Rewards in units of their range below the maximum: no overflow, no underflow, exact zeros.
  below_max = group.mask(group.rewards - group.max())
  spread = -jnp.min(below_max, axis=-1, keepdims=True)
  group = groups.as_group(below_max / jnp.where(spread > 0, spread, 1), where)
  ranked = groups.order(group)
  values = ranked.values
  v = subset_weights(group.n, k, num_valid=group.num_valid, dtype=values.dtype)
  mean = jnp.sum(v * values, axis=-1, keepdims=True)
  variance = jnp.sum(v * (values - mean) ** 2, axis=-1, keepdims=True)
  excess = excess_over_mean_max(group, ranked, v, k)
  # True for NaN, which is to stay NaN.
  has_signal = (variance != 0) & group.allows(k)
  inverse_std = lax.rsqrt(jnp.where(has_signal, variance, 1))
  return group.mask(jnp.where(has_signal, excess * inverse_std, 0))


@takes_k_per_group
def passk_bootstrap(
  rewards: Rewards, *, k: K, key: Key, num_groups: int | None = None, where: Mask = None
) -> Advantages:
  """Returns the bootstrap Pass@k Training advantages.

  Draws num_groups sets of k distinct samples, z-scores the sets' maxima (population standard
  deviation; 0 if it is 0), and gives each sample the sum over the sets that hold it
  (arXiv 2508.10751, section 3.2). O(num_groups * n log n) time and memory per group.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples per set, 1 <= k <= n; int or traced int32.
    key: PRNG key of the draw.
    num_groups: sets per group of samples; None means n, as in the paper.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n], or num_groups < 1.
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  groups.check_key(key)
  num_sets = group.n if num_groups is None else num_groups
  if num_sets < 1:
    raise FieldError('num_groups', f'expected at least 1, got {num_groups}.')
  *leading, n = group.rewards.shape
  draws = jax.random.uniform(key, (*leading, num_sets, n))
  exists = True if group.where is None else group.where[..., None, :]
  draws = jnp.where(exists, draws, jnp.inf)
  ranks = jnp.argsort(jnp.argsort(draws, axis=-1), axis=-1)
  is_member = (ranks < k) & exists
  maxima = jnp.max(jnp.where(is_member, group.rewards[..., None, :], -jnp.inf), axis=-1)
  maxima = jnp.where(group.allows(k), maxima, 0)
  advantages = jnp.sum(jnp.where(is_member, grpo(maxima)[..., None], 0), axis=-2)
  return group.mask(jnp.where(group.allows(k), advantages + group.zeros(), 0))


@takes_k_per_group
def passk_full_sampling(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns the full-sampling Pass@k Training advantages.

  Splits the samples into n // k consecutive sets of k, drops the rest, z-scores the sets' maxima
  (population standard deviation; 0 if it is 0), and gives each sample its set's value; dropped
  samples get 0 (arXiv 2508.10751, section 3.1). Draws nothing: samples come in random order.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples per set, 1 <= k <= n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists; sets are made of these alone.

  Raises:
    ValueError: if a Python int k is outside [1, n].

  >>> print(passk_full_sampling(jnp.array([0., 1., 0., 0., 1.]), k=2))
  [ 1.  1. -1. -1.  0.]
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  exists = jnp.ones(group.rewards.shape, bool) if group.where is None else group.where
  safe_k = jnp.maximum(k, 1)
  place = jnp.maximum(jnp.cumsum(exists, axis=-1, dtype=jnp.int32) - 1, 0)
  set_index = place // safe_k
  num_valid = jnp.sum(exists, axis=-1, keepdims=True, dtype=jnp.int32)
  is_used = exists & (set_index < num_valid // safe_k) & group.allows(k)
  maxima = _max_of_run(jnp.where(exists, group.rewards, -jnp.inf), set_index)
  # One entry a set, at its last sample, stands for the set among the sets.
  stands_for_set = is_used & (place % safe_k == safe_k - 1)
  z_scores = grpo(jnp.where(is_used, maxima, 0), where=stands_for_set)
  shared = _max_of_run(jnp.where(stands_for_set, z_scores, -jnp.inf), set_index)
  return jnp.where(is_used, shared, group.zeros())


@takes_k_per_group
def passk_exceeding(
  rewards: Rewards, *, k: K, success_threshold: float = 1.0, where: Mask = None
) -> Advantages:
  """Returns `passk_analytical` scaled to favor hard prompts.

  A'_i = A_i * 4 / (10 ln(c + 0.5)), c the number of right samples (arXiv 2508.10751, section 4;
  the base of the logarithm as best read).

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    success_threshold: a sample is right if its reward is at least this.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n].
  """
  num_right = groups.as_group(rewards, where).count_right(success_threshold)
  # With no right sample the logarithm is negative: leave such a group's scale at 1.
  scale = jnp.where(num_right > 0, 0.4 / jnp.log(jnp.maximum(num_right, 1) + 0.5), 1)
  return passk_analytical(rewards, k=k, where=where) * scale


@takes_k_per_group
def passk_combination(
  rewards: Rewards, *, k: K, success_threshold: float = 1.0, where: Mask = None
) -> Advantages:
  """Returns the mix of Pass@k and Pass@1 advantages by accuracy.

  A_i = (c/n) A_passk_i + (1 - c/n) A_pass1_i, with A_passk `passk_analytical`, A_pass1 `grpo` and
  c the number of right samples (arXiv 2508.10751, section 4).

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    success_threshold: a sample is right if its reward is at least this.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n].
  """
  group = groups.as_group(rewards, where)
  accuracy = group.count_right(success_threshold) / group.count
  pass_k = passk_analytical(rewards, k=k, where=where)
  mixed = accuracy * pass_k + (1 - accuracy) * grpo(rewards, where=where)
  return jnp.where(group.allows(groups.check_k(k, group.n)), mixed, 0)


def passk_adaptive(
  rewards: Rewards, *, k: K, entropy: Float[AnyArray, '*p'], where: Mask = None
) -> Advantages:
  """Returns Pass@1 advantages for the uncertain prompts and Pass@k ones for the others.

  Ranks all prompts of the batch by the mean policy entropy of their samples; the upper half (the
  smaller one if their number is odd) gets `grpo`, the rest `passk_analytical`
  (arXiv 2508.10751, section 4). The only advantage that looks across prompts.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    entropy: `[...]` mean token entropy of each prompt's samples, nats.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n], or entropy has another shape.
  """
  group = groups.as_group(rewards, where)
  entropy = lax.stop_gradient(jnp.asarray(entropy))
  if entropy.shape != group.rewards.shape[:-1]:
    raise FieldError(
      'entropy',
      f'expected one value a prompt, shape {group.rewards.shape[:-1]}, got {entropy.shape}.',
    )
  ascending = jnp.argsort(jnp.argsort(entropy.ravel())).reshape(entropy.shape)
  is_uncertain = ascending >= entropy.size - entropy.size // 2
  pass_k = passk_analytical(rewards, k=k, where=where)
  mixed = jnp.where(is_uncertain[..., None], grpo(rewards, where=where), pass_k)
  return jnp.where(group.allows(groups.check_k(k, group.n)), mixed, 0)


def _max_of_run(values: AnyArray, run_index: AnyArray) -> jax.Array:
  """Returns `[..., n]`: the maximum over the entries of equal `run_index`, which is in [0, n)."""

  def max_of_run(values, run_index):
    return jax.ops.segment_max(values, run_index, num_segments=values.shape[-1])[run_index]

  return jnp.vectorize(max_of_run, signature='(n),(n)->(n)')(values, run_index)

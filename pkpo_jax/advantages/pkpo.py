"""Pass@K Policy Optimization: advantages unbiased for max@k.

Walder & Karkhanis 2025, arXiv 2505.15201. The paper's weights w_i are summed over samples; these
functions return A_i = n w_i, because losses average over samples:
E[(1/n) sum_i A_i grad log p(x_i)] = grad max@k, for k = 1 as for k = n.

Every function takes rewards `[..., n]`, one group per leading index, and returns `[..., n]`
float32 in reward units, 0 where a sample does not exist. With a traced k that a group does not
allow (k < 1, k > its samples, k = n where undefined) the group's advantages are 0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from pkpo_jax import groups
from pkpo_jax.errors import FieldError, expect
from pkpo_jax.group_ks import takes_k_per_group
from pkpo_jax.typing import Advantages, AnyArray, K, Mask, Rewards
from pkpo_jax.weights import subset_weights


@takes_k_per_group
def pkpo(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns PKPO advantages without a baseline, unbiased for max@k and of high variance.

  A_i = n s_i,  s_i = 1/C(n,k) * sum over k-subsets I containing i of max_I g
                    = (k/n) g_(n) - sum_{t >= i} v_t (g_(t+1) - g_(t)).
  arXiv 2505.15201, eq. (19) and (27). O(n log n).

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n].

  >>> print(pkpo(jnp.array([0., 1., 0.]), k=2))
  [1. 2. 1.]
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  ranked, _, weighted_gaps = _weigh(group, k)
  top = ranked.values[..., -1:]
  lost = ranked.to_samples(groups.cumulative_sum(weighted_gaps, reverse=True))
  return _finish(group, k * top - group.count * lost, group.allows(k))


@takes_k_per_group
def pkpo_loo(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns PKPO advantages with the leave-one-out baseline, unbiased for max@k.

  A_i = n s_loo_i,  s_loo_i = s_i - 1/(n-1) * sum over j != i of s_j computed without sample i.
  arXiv 2505.15201, eq. (29), as k ((n + k/(n-1))/(n-k) (G_i - mu) - mu/(n-1)), where s_i does not
  cancel with its baseline (`excess_over_mean_max` has G_i and mu). The paper's baseline leaves the
  constant -k mu/(n-1): the result is not invariant to a shift of the rewards.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k < n; int or traced int32. k = 1 is the
      leave-one-out baseline of REINFORCE (`rloo`), as in the paper's runs.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n), or n = 1.

  >>> print(pkpo_loo(jnp.array([0., 1., 0.]), k=2))
  [-2.  2. -2.]
  """
  group = groups.as_group(rewards, where)
  groups.require_other_samples(group)
  k = groups.check_k(k, group.n, below_n=True)
  n, allowed = group.count, group.allows(k, below_n=True)
  others = jnp.maximum(n - 1, 1)
  ranked, v, _ = _weigh(group, k)
  top = ranked.values[..., -1:]
  mean_max = top - jnp.sum(v * (top - ranked.values), axis=-1, keepdims=True)
  excess = excess_over_mean_max(group, ranked, v, k)
  advantages = k * (excess * (n + k / others) / jnp.maximum(n - k, 1) - mean_max / others)
  return _finish(group, jnp.where(k == 1, group.minus_mean_of_others(), advantages), allowed)


@takes_k_per_group
def pkpo_loo_minus_one(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns PKPO advantages with the leave-one-out-minus-one baseline, unbiased for max@k.

  A_i = n/C(n,k) * sum over k-subsets I containing i of (max_I g - max_{I minus i} g)
      = n * sum_{t < i} v_{t+1} (g_(t+1) - g_(t)).
  arXiv 2505.15201, eq. (33): what the paper calls PKPO and uses in all its language-model runs.
  Never negative; the k - 1 lowest samples get exactly 0, and so does a group of equal rewards.
  Binary rewards: n C(n-c, k-1)/C(n, k) for each of the c right samples.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32. k = 1, where
      eq. (33) is undefined, is the leave-one-out baseline of REINFORCE (`rloo`); k = n is `tzsm`.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n], or n = 1.

  >>> print(pkpo_loo_minus_one(jnp.array([0., 1., 0.]), k=2))
  [0. 2. 0.]
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  groups.require_other_samples(group)
  ranked = groups.order(group)
  v = subset_weights(group.n, k, num_valid=group.num_valid, dtype=group.rewards.dtype)
  gains = groups.cumulative_sum(v * ranked.steps())
  advantages = group.count * ranked.to_samples(gains)
  advantages = jnp.where(k == 1, group.minus_mean_of_others(), advantages)
  return _finish(group, advantages, group.allows(k))


@takes_k_per_group
def pkpo_centered(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns the centered PKPO advantages, unbiased for max@k and summing to 0 in every group.

  A_i = n^2/(n-k) * (s_i - mean s) = n (s_i - (k/n) rho_k(g without i)), rho_k the max@k estimate.
  Not in the PKPO paper; equals the max@k advantage of OrderGrad (arXiv 2606.06096) and MaxPO
  (arXiv 2606.06080). Invariant to a shift of the rewards; k = 1 is `rloo`.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k < n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n), or n = 1.

  >>> print(pkpo_centered(jnp.array([0., 1., 0.]), k=2))
  [-1.  2. -1.]
  """
  group = groups.as_group(rewards, where)
  groups.require_other_samples(group)
  k = groups.check_k(k, group.n, below_n=True)
  allowed = group.allows(k, below_n=True)
  ranked, v, _ = _weigh(group, k)
  excess = k * excess_over_mean_max(group, ranked, v, k)
  return _finish(group, excess * group.count / jnp.maximum(group.count - k, 1), allowed)


@takes_k_per_group
def pkpo_weighted_loo(
  rewards: Rewards,
  *,
  k: K,
  baseline_weights: Shaped[AnyArray, '*p n'] | None,
  where: Mask = None,
) -> Advantages:
  """Returns advantages with a weighted mean of the other samples as baseline, unbiased for max@k.

  A_i = L_i(g_i) - sum_{j != i} w_j L_i(g_j) / sum_{j != i} w_j, where L_i(x) is the advantage that
  sample i would have in `pkpo_loo_minus_one`, beside the same others, if its reward were x. With
  W_t the weight of the t lowest samples, W that of all, and D_t the gap above sample t,

    A_i = n/(W - w_i) (sum_{t < i} W_t v_{t+1} D_t - sum_{t >= i} (W - W_t) v_t D_t).

  A baseline of the others is independent of sample i whatever their weights are, as long as each
  depends on its own sample alone. With many samples and a small k, the squared norm of the score of
  sample j, or what grows with it, is a w_j of low variance; training takes the sum over its tokens
  of (1 - p)^2, p the probability with which the token was sampled. Equal weights give, for
  1 < k < n, ((k-1) `pkpo_loo_minus_one` + (n-k) `pkpo_centered`) / (n-1); k = 1 is then `rloo`.
  With any weights k = n is `tzsm`. Invariant to a shift of the rewards and to the scale of the
  weights. O(n log n). Not in the PKPO paper.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    baseline_weights: `[..., n]` finite numbers >= 0; None weighs all alike, as is done for a sample
      beside which no other has a weight. A group with a traced weight out of this range, which
      cannot raise, gets NaN.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n], n = 1, or known weights have another shape or
      are out of their range.

  >>> print(pkpo_weighted_loo(jnp.array([0., 1., 0.]), k=2, baseline_weights=None))
  [-0.5  2.  -0.5]
  >>> weights = jnp.array([1., 3., 1.])
  >>> print(pkpo_weighted_loo(jnp.array([0., 1., 0.]), k=2, baseline_weights=weights))
  [-0.75  2.   -0.75]
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  groups.require_other_samples(group)
  ranked, v, _ = _weigh(group, k)
  alike = group.mask(jnp.ones_like(group.rewards))
  advantages, _ = _beside_weighted_others(group, ranked, v, alike)
  if baseline_weights is not None:
    weights = _check_weights(group, baseline_weights)
    weighted, others = _beside_weighted_others(group, ranked, v, weights)
    advantages = jnp.where(others == 0, advantages, weighted)
  return _finish(group, advantages, group.allows(k))


def _check_weights(group: groups.Group, weights: AnyArray) -> jax.Array:
  """Returns weights `[*p, n]`, at most 1 and 0 where there is no sample; NaN in bad groups.

  Raises:
    FieldError: if they have another shape than rewards, or a known one is not a number >= 0.
  """
  shape = group.rewards.shape
  expect(jnp.shape(weights) == shape, 'baseline_weights', f'shape {shape}', jnp.shape(weights))
  weights = group.mask(jax.lax.stop_gradient(jnp.asarray(weights, group.rewards.dtype)))
  allowed = (weights >= 0) & jnp.isfinite(weights)
  if not isinstance(allowed, jax.core.Tracer) and not bool(jnp.all(allowed)):
    outside = np.asarray(weights)[~np.asarray(allowed)][0]
    raise FieldError('baseline_weights', f'expected finite numbers >= 0, got {outside!s}.')
  largest = jnp.max(weights, axis=-1, keepdims=True)
  scaled = weights / jnp.where(largest > 0, largest, 1)
  return jnp.where(jnp.all(allowed, axis=-1, keepdims=True), scaled, jnp.nan)


@jax.jit
def _beside_weighted_others(
  group: groups.Group, ranked: groups.Order, v: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns A_i of `pkpo_weighted_loo`, and W - w_i, both `[*p, n]`."""
  zeros = jnp.zeros_like(weights[..., :1])
  before = lambda sums: jnp.concatenate([zeros, sums[..., :-1]], axis=-1)
  after = lambda sums: jnp.concatenate([sums[..., 1:], zeros], axis=-1)
  up_from = functools.partial(groups.cumulative_sum, reverse=True)
  others = before(groups.cumulative_sum(weights)) + after(up_from(weights))
  by_rank, gaps = ranked.sum_by_rank(weights), ranked.gaps()
  # The gap above the last sample is 0, whatever the roll brings there.
  gained = groups.cumulative_sum(by_rank) * jnp.roll(v, -1, axis=-1) * gaps
  lost = after(up_from(by_rank)) * v * gaps
  gained, lost = before(groups.cumulative_sum(gained)), up_from(lost)
  advantages = group.count * ranked.to_samples(gained - lost)
  return advantages / jnp.where(others == 0, 1, others), others


@jax.jit
def excess_over_mean_max(
  group: groups.Group, ranked: groups.Order, v: jax.Array, k: jax.Array
) -> jax.Array:
  """Returns G_i - mu `[..., n]`: how far the subsets that hold sample i beat all subsets.

  G_i = (n/k) s_i is the mean of max_I g over the k-subsets I containing i, mu = sum_t v_t g_(t)
  over all of them. The one difference behind `pkpo_centered` and `passk_analytical`, as
  sum_{t < i} (t/k) v_t D_t - sum_{t >= i} ((n-t)/k) v_t D_t, which does not cancel.
  """
  return gains_less_losses(group, ranked, v) / jnp.maximum(k, 1)


def gains_less_losses(
  group: groups.Group, ranked: groups.Order, gap_weights: jax.Array
) -> jax.Array:
  """Returns sum_{t < i} t w_t D_t - sum_{t >= i} (n-t) w_t D_t for each sample i, `[..., n]`."""
  weighted_gaps = gap_weights * ranked.gaps()
  t = jnp.arange(1, group.n + 1, dtype=weighted_gaps.dtype)
  gained = t * weighted_gaps
  gained = groups.cumulative_sum(gained) - gained
  lost = groups.cumulative_sum((group.count - t) * weighted_gaps, reverse=True)
  return ranked.to_samples(gained - lost)


@jax.jit
def _weigh(group: groups.Group, k: jax.Array) -> tuple[groups.Order, jax.Array, jax.Array]:
  """Returns the order of each group, v_t `[..., n]`, and v_t D_t `[..., n]`."""
  ranked = groups.order(group)
  v = subset_weights(group.n, k, num_valid=group.num_valid, dtype=group.rewards.dtype)
  return ranked, v, v * ranked.gaps()


@jax.jit
def _finish(group: groups.Group, advantages: jax.Array, allowed: jax.Array) -> jax.Array:
  return group.mask(jnp.where(allowed, advantages, 0))

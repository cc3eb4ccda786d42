"""The advantages PKPO and Pass@k Training are compared with, under the same signature.

Every function takes rewards `[..., n]`, one group per leading index, and returns `[..., n]`
float32 for a loss that averages over samples, 0 where a sample does not exist. Except for
`max_at_k_off_policy` none depends on k: they accept it so that all advantages are called alike.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Shaped

from pkpo_jax import groups
from pkpo_jax.errors import FieldError
from pkpo_jax.group_ks import takes_k_per_group
from pkpo_jax.typing import Advantages, AnyArray, AnyK, K, Mask, Rewards
from pkpo_jax.weights import subset_weights


def reinforce(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns the rewards themselves: A_i = r_i, unbiased for pass@1 (Williams 1992).

  >>> print(reinforce(jnp.array([0., 1., 0.])))
  [0. 1. 0.]
  """
  del k
  return groups.as_group(rewards, where).rewards


def rloo(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns A_i = r_i - mean of the other samples' rewards, unbiased for pass@1.

  Kool, van Hoof & Welling 2019. A group with a single valid sample gets 0.

  Raises:
    ValueError: if n = 1.

  >>> print(rloo(jnp.array([0., 1., 0.])))
  [-0.5  1.  -0.5]
  """
  del k
  group = groups.as_group(rewards, where)
  groups.require_other_samples(group)
  return group.minus_mean_of_others()


def mean_centered(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns A_i = r_i - mean r (Dr. GRPO, arXiv 2503.20783): (1 - 1/n) times `rloo`.

  >>> print(mean_centered(jnp.array([0., 1., 0., 1.])))
  [-0.5  0.5 -0.5  0.5]
  """
  del k
  return groups.as_group(rewards, where).centered()


def grpo(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns A_i = (r_i - mean r) / std r, population std; 0 where all rewards are equal.

  Shao et al. 2024 (arXiv 2402.03300), without an epsilon. Biased: favors prompts of low variance.

  >>> print(grpo(jnp.array([0., 1., 0., 1.])))
  [-1.  1. -1.  1.]
  """
  del k
  group = groups.as_group(rewards, where)
  deviations = group.centered()
  # In units of the largest deviation, so that the squares neither overflow nor underflow.
  largest = jnp.max(jnp.abs(deviations), axis=-1, keepdims=True)
  scaled = deviations / jnp.where(largest > 0, largest, 1)
  variance = group.mean(scaled**2)
  return scaled * lax.rsqrt(jnp.where(variance > 0, variance, 1))


def f_grpo(
  rewards: Rewards,
  *,
  k: AnyK = None,
  gamma: float = 1.0,
  success_threshold: float = 1.0,
  where: Mask = None,
) -> Advantages:
  """Returns `grpo` times (1 - c/n)^gamma, c the number of right samples: less for easy prompts.

  F-GRPO (arXiv 2602.06717).

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: unused.
    gamma: at least 0; 0 is `grpo`.
    success_threshold: a sample is right if its reward is at least this.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if gamma is negative.

  >>> print(f_grpo(jnp.array([0., 1., 0., 1.])))
  [-0.5  0.5 -0.5  0.5]
  """
  del k
  if gamma < 0:
    raise FieldError('gamma', f'expected a number >= 0, got {gamma!r}.')
  group = groups.as_group(rewards, where)
  share_wrong = 1 - group.count_right(success_threshold) / group.count
  return share_wrong**gamma * grpo(rewards, where=where)


def tzsm(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns best minus second best: A = n (g_(n) - g_(n-1)) for the best sample, 0 for the rest.

  Tang, Zheng, Synnaeve & Munos 2025 (arXiv 2503.19595), leave one out. `pkpo_loo_minus_one` at
  k = n, and unbiased for max@n. Where the best is tied, all get 0.

  Raises:
    ValueError: if n = 1.

  >>> print(tzsm(jnp.array([0., 3., 1.])))
  [0. 6. 0.]
  """
  del k
  group = groups.as_group(rewards, where)
  groups.require_other_samples(group)
  best = group.max()
  is_best = group.mask(group.rewards == best)
  exists = True if group.where is None else group.where
  others = jnp.where(is_best | ~jnp.asarray(exists), -jnp.inf, group.rewards)
  second = jnp.max(others, axis=-1, keepdims=True)
  has_lead = is_best & (jnp.sum(is_best, axis=-1, keepdims=True) == 1) & jnp.isfinite(second)
  return jnp.where(has_lead, group.count * (best - second), group.zeros())


def maxrl(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns A_i = (r_i - mean r) / mean r, 0 where the mean is 0, for rewards in {0, 1}.

  MaxRL (arXiv 2602.02710). Unbiased for sum over j = 1..n-1 of pass@j / j, the log-likelihood of
  success cut off at n - 1 terms. Other rewards are refused: with a mean near 0 of both signs the
  quotient is any number. Where they are traced, which cannot raise, such a group gets 0.

  Raises:
    ValueError: if a known reward is neither 0 nor 1.

  >>> print(maxrl(jnp.array([0., 1., 0., 1.])))
  [-1.  1. -1.  1.]
  """
  del k
  group = groups.as_group(rewards, where)
  is_binary = lambda rewards: (rewards == 0) | (rewards == 1)
  in_domain = groups.require_rewards(group, is_binary, '0 or 1')
  mean = group.mean(group.rewards)
  advantages = group.centered() / jnp.where(mean == 0, 1, mean)
  return jnp.where(in_domain, advantages, 0)


def tailrl(rewards: Rewards, *, k: AnyK = None, where: Mask = None) -> Advantages:
  """Returns TailRL advantages A_i = n (w_i - mean w), for rewards >= 0.

  w_(i) = sum_{j <= i} (x_(j) - x_(j-1)) / (n - j + 1), x ascending, x_(0) = 0 (arXiv 2609.02987).
  w equals sum over k = 1..n of (1/k) s_loo1(k) with s_loo1(1) = r/n, so A is unbiased for the sum
  over k = 1..n-1 of max@k / k; on binary rewards it is `maxrl`. A group with a traced reward below
  0, which cannot raise, gets 0.

  Raises:
    ValueError: if a known reward is negative.

  >>> print(tailrl(jnp.array([0., 1., 0., 1.])))
  [-1.  1. -1.  1.]
  """
  del k
  group = groups.as_group(rewards, where)
  in_domain = groups.require_rewards(group, lambda rewards: rewards >= 0, 'numbers >= 0')
  ranked = groups.order(group)
  num_from_here = jnp.maximum(group.count - jnp.arange(group.n), 1)
  # The common step x_(1) adds x_(1)/n to every w and leaves w - mean w: start at x_(1).
  weights = groups.cumulative_sum(ranked.steps() / num_from_here)
  weights = groups.as_group(ranked.to_samples(weights), where)
  return jnp.where(in_domain, group.count * weights.centered(), 0)


def rs_grpo(
  rewards: Rewards, *, k: AnyK = None, beta: float = 2.0, where: Mask = None
) -> Advantages:
  """Returns risk-seeking advantages A_i = (1/beta) (exp(beta r_i) / mean_j exp(beta r_j) - 1).

  RS-GRPO (arXiv 2509.24261). Sums to 0, invariant to a shift; beta -> 0 is `mean_centered`.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: unused.
    beta: risk preference, 1 / reward units, not 0; > 0 favors the best samples.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if beta is 0.
  """
  del k
  if beta == 0:
    raise FieldError('beta', 'expected a number other than 0, got 0; mean_centered is that limit.')
  group = groups.as_group(rewards, where)
  # The largest exponent is taken off first; expm1 keeps the precision of a small beta.
  exponents = beta * (group.rewards - group.max())
  exponents = exponents - jnp.max(group.mask(exponents), axis=-1, keepdims=True)
  below_one = group.mask(jnp.expm1(exponents))
  mean = group.mean(below_one)
  return group.mask((below_one - mean) / (beta * (1 + mean)))


@takes_k_per_group
def max_at_k_off_policy(
  rewards: Rewards, *, k: K, ratios: Shaped[AnyArray, '*p n'], where: Mask = None
) -> Advantages:
  """Returns max@k advantages for samples of an older policy, first order in ratio - 1.

  A_i = n/C(n,k) * sum over k-subsets I containing i of max_I g * (1 + sum_{l in I} (ratio_l - 1)).
  Bagirov et al. 2025 (arXiv 2510.23393). No baseline; at ratios = 1 it is `pkpo`.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    ratios: `[..., n]` sequence ratios pi(x_i) / pi_old(x_i), no gradient is taken through them.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n], or ratios have another shape.
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  if jnp.shape(ratios) != group.rewards.shape:
    raise FieldError(
      'ratios', f'expected the shape of rewards {group.rewards.shape}, got {jnp.shape(ratios)}.'
    )
  keys = group.rewards if group.where is None else jnp.where(group.where, group.rewards, jnp.inf)
  from_place = jnp.argsort(keys, axis=-1)
  to_place = jnp.argsort(from_place, axis=-1)
  g = jnp.take_along_axis(group.rewards, from_place, axis=-1)
  deltas = group.mask(groups.as_group(ratios, where).rewards - 1)
  delta = jnp.take_along_axis(deltas, from_place, axis=-1)
  j = jnp.arange(1, group.n + 1, dtype=g.dtype)
  v = subset_weights(group.n, k, num_valid=group.num_valid, dtype=g.dtype)
  # Chances, in units of v_j, that one and that two given lower samples are in the subset whose
  # maximum is sample j, and that one is in and another out.
  one_in = (k - 1) / jnp.maximum(j - 1, 1)
  two_in = one_in * (k - 2) / jnp.maximum(j - 2, 1)
  # Of two samples (j = 2) the lower one has no other beside it.
  in_and_out = jnp.where(j > 2, one_in * (j - k) / jnp.maximum(j - 2, 1), one_in)
  lower = jnp.cumsum(delta, axis=-1) - delta
  as_max = v * g * (1 + delta + one_in * lower)
  above = _sum_after(v * g * (one_in * (1 + delta) + two_in * lower))
  above += delta * _sum_after(v * g * in_and_out)
  advantages = jnp.take_along_axis(as_max + above, to_place, axis=-1)
  return group.mask(jnp.where(group.allows(k), group.count * advantages, 0))


def _sum_after(values: AnyArray) -> AnyArray:
  """Returns `[..., n]`: sum of values_j over j > i."""
  return lax.cumsum(values, axis=values.ndim - 1, reverse=True) - values

"""Diagnostics of a step, beside its update: whether pass@1 and pass@k agree, and the noise."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Bool, Float, Int

from pkpo_jax import pieces
from pkpo_jax.advantages import pkpo_loo_minus_one, rloo
from pkpo_jax.policies import Policy
from pkpo_jax.settings import LossSettings
from pkpo_jax.train_step import make_forward, make_gradient_fn, sequence_ratios
from pkpo_jax.types import Rollout

# More parts tell the noise better, and each is computed by itself.
MOST_PARTS = 8

Diagnose = Callable[..., dict[str, jax.Array]]


def make_diagnose(
  policy: Policy,
  settings: LossSettings,
  num_parts: int,
  over_prompts: NamedSharding | None = None,
  is_off_policy: bool = False,
) -> Diagnose:
  """Returns fn(params, frozen, rollout, rewards, where, advantages, k) -> metrics of a step.

  All are of the rollout that the step learns from and of the parameters before its first update, in
  which the gradients are those of the loss of `train_step`, with its normalization and pieces.

    gradient_cosine: of the gradients of pass@1 and pass@k (max@k), whose advantages are `rloo` and
      `pkpo_loo_minus_one` at the step's k, without KL and entropy terms. At k = 1 it is 1. Where
      prompts share parameters it may be negative: what raises pass@k then lowers pass@1
      (arXiv 2602.21189). Each gradient is without bias (on policy, normalization 'sum'); their
      cosine is not, as both are of the same samples and have noise in common.
    gradient_variance: the trace of the covariance of the update's gradient, for the advantages and
      all terms of the update, before clipping and the optimizer; without bias, see
      `mean_and_variance`. It is that of all prompts together: of a minibatch it is num_minibatches
      times as large.
    gradient_signal: |E gradient|^2, without bias, so it may be negative.
    gradient_snr: gradient_signal / gradient_variance, a ratio of squares; it may be negative.
    zero_advantage_share@1, zero_advantage_share@k: of the prompts, those without signal under the
      two advantages of the cosine; train/zero_advantage_share is for those of the update.
    advantage_ess: the effective number of samples of the update's advantages over the number of
      samples, see `effective_share`.
    ratio_ess: that of p / p_sampling of whole samples, if is_off_policy. Ratios that only the
      updates of the step bring about are not measured.

  What is a quotient by 0 is NaN: the cosine where a gradient is 0, the ratio without variance.

  Costs three forward and backward passes over the rollout (two for the cosine, one in parts for the
  noise), and a forward pass more if is_off_policy. It needs room for three gradients in float32.

  The variance is that of prompts which are drawn independently, each with its own samples. It is
  larger than that of prompts drawn without replacement, in an epoch, and only near that of an
  advantage which compares prompts (`passk_adaptive`). With the normalization 'token' each part is
  divided by its own tokens, and the noise is that of the mean of the parts' gradients.

  Args:
    policy: gives log-probabilities and entropies.
    settings: config.loss.
    num_parts: equal parts of the prompts, at least 2; from `num_parts_of`.
    over_prompts: where prompts go; None leaves that to the compiler.
    is_off_policy: whether the samples are those of an older policy.

  Returns:
    A pure function to be jitted. Its arguments: `params`, trained, and `frozen`; `rollout`;
    `rewards` `[P, N]`; `where` `[P, N]` bool, True where a sample was judged, or None; `advantages`
    `[P, N]`, those of the update; `k`, int32, traced, a scalar or `[P]`. Its metrics: `[]` float32.
  """
  num_blocks = settings.num_minibatches * settings.num_microbatches
  of_batch = dataclasses.replace(
    settings, num_microbatches=num_blocks, kl_coef=0.0, entropy_coef=0.0
  )
  of_part = dataclasses.replace(settings, num_microbatches=_blocks_of_part(num_blocks, num_parts))
  batch_gradient = make_gradient_fn(policy, of_batch, over_prompts)
  part_gradient = make_gradient_fn(policy, of_part, over_prompts)
  forward = make_forward(policy, settings)

  def diagnose(
    params: Any,
    frozen: dict[str, Any],
    rollout: Rollout,
    rewards: Float[jax.Array, 'P N'],
    where: Bool[jax.Array, 'P N'] | None,
    advantages: Float[jax.Array, 'P N'],
    k: Int[jax.Array, '*k'],
  ) -> dict[str, jax.Array]:
    of_1, of_k = rloo(rewards, where=where), pkpo_loo_minus_one(rewards, k=k, where=where)
    gradients = [batch_gradient(params, frozen, rollout, each)[0] for each in (of_1, of_k)]

    def gradient(part):
      if over_prompts is not None:
        part = lax.with_sharding_constraint(part, over_prompts)
      return part_gradient(params, frozen, *part)[0]

    parts = pieces.split_prompts((rollout, advantages), num_parts)
    mean, variance = mean_and_variance(gradient, parts)
    signal = optax.tree.norm(mean, squared=True) - variance
    metrics = {
      'gradient_cosine': cosine(*gradients),
      'gradient_variance': variance,
      'gradient_signal': signal,
      'gradient_snr': jnp.where(variance > 0, signal / variance, jnp.nan),
      'zero_advantage_share@1': jnp.mean(jnp.all(of_1 == 0, axis=-1)),
      'zero_advantage_share@k': jnp.mean(jnp.all(of_k == 0, axis=-1)),
      'advantage_ess': effective_share(advantages),
    }
    if is_off_policy:
      log_probs, _ = forward(frozen | params, rollout)
      metrics['ratio_ess'] = effective_share(sequence_ratios(log_probs, rollout))
    return metrics

  return diagnose


def mean_and_variance(
  gradient: Callable[[Any], Any], parts: Any
) -> tuple[Any, Float[jax.Array, '']]:
  """Returns the mean g of the gradients g_j of G parts, and an estimate of the variance of g.

    V = sum_j |g_j - g|^2 / (G (G - 1))
  If the parts are independent and alike, E V is the trace of the covariance of g. Then |g|^2 - V,
  the mean of g_i . g_j over all pairs i != j, estimates |E g|^2 without bias. For two parts they
  are |g_1 - g_2|^2 / 4 and g_1 . g_2. One part is computed at a time, in Welford's recurrence,
  which subtracts no large squares from each other.

  Args:
    gradient: fn(part) -> a tree of gradients.
    parts: a tree of arrays `[G, ...]`, G >= 2.

  Returns:
    The mean, a tree of float32, and V, `[]` float32.

  >>> mean, variance = mean_and_variance(lambda part: part, jnp.array([[1., 0.], [3., 4.]]))
  >>> print(mean, variance)
  [2. 2.] 5.0
  """
  num_parts = len(jax.tree.leaves(parts)[0])

  def add(so_far, part):
    count, mean, squares = so_far
    gap = jax.tree.map(lambda g, m: g.astype(jnp.float32) - m, gradient(part), mean)
    mean = jax.tree.map(lambda m, x: m + x / (count + 1), mean, gap)
    squares += optax.tree.norm(gap, squared=True) * count / (count + 1)
    return (count + 1, mean, squares), None

  like = jax.eval_shape(gradient, jax.tree.map(lambda x: x[0], parts))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), like)
  (_, mean, squares), _ = lax.scan(add, (jnp.zeros(()), zeros, jnp.zeros(())), parts)
  return mean, squares / (num_parts * (num_parts - 1))


def cosine(tree: Any, other: Any) -> Float[jax.Array, '']:
  """Returns a . b / (|a| |b|) of two trees of arrays, each as one vector; NaN if one is 0.

  >>> print(cosine({'x': jnp.array([2., 0.])}, {'x': jnp.array([-1., 0.])}))
  -1.0
  """
  # Each is made one of length 1: a product of two lengths may be too small for float32.
  unit = lambda tree: optax.tree.scale(1 / optax.tree.norm(tree), tree)
  return optax.tree.vdot(*map(unit, optax.tree.cast((tree, other), jnp.float32)))


def effective_share(values: Float[jax.Array, '*b']) -> Float[jax.Array, '']:
  """Returns the effective number of some values over their number, (sum |x|)^2 / (B sum x^2).

  It is 1 if all have the same size, m / B if m of B do and the others are 0, and 0 if all are 0.

  >>> print(effective_share(jnp.array([3., -3., 0., 0.])))
  0.5
  """
  sizes = jnp.abs(values)
  sizes /= jnp.maximum(jnp.max(sizes), jnp.finfo(sizes.dtype).tiny)
  squares = jnp.sum(sizes**2)
  return jnp.sum(sizes) ** 2 / (sizes.size * jnp.where(squares > 0, squares, 1))


def num_parts_of(num_prompts: int, num_shards: int, settings: LossSettings) -> int:
  """Returns into how many equal parts prompts divide, at most 8 and as many as can be; else 1.

  Each part has prompts on every device, and is computed in pieces no larger than the update's.

  Args:
    num_prompts: P.
    num_shards: into how many parts devices split the prompts.
    settings: config.loss.
  """
  num_blocks = settings.num_minibatches * settings.num_microbatches
  sizes = {n: n * _blocks_of_part(num_blocks, n) * num_shards for n in range(1, MOST_PARTS + 1)}
  return max((n for n, multiple in sizes.items() if num_prompts % multiple == 0), default=1)


def _blocks_of_part(num_blocks: int, num_parts: int) -> int:
  """Returns the blocks of prompts of a part whose size the blocks of the whole have, or less."""
  return num_blocks // math.gcd(num_blocks, num_parts)

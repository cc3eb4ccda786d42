"""Policy-gradient losses; the only home of their normalisation.

A loss is one sum over the tokens of a batch, sum_t w_t term_t, in which
  term = -surrogate + kl_coef KL - entropy_coef entropy
and the weights w are what config.loss.normalization says. They depend on the masks alone, so they
are worked out for all prompts of an update before it is split into microbatches, whose losses and
gradients then simply add up. All three terms have the same weights.

Prompts without signal, whose samples all have advantage 0, stay in every denominator: the mean is
over the prompts that were drawn, which is what makes it an unbiased estimate of the objective.
Leaving them out would weigh a prompt by how rarely its neighbours in the batch give signal.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from pkpo_jax.settings import LossSettings
from pkpo_jax.types import Rollout


def token_weights(
  completion_mask: Bool[jax.Array, 'P N L'], normalization: str
) -> Float[jax.Array, 'P N L']:
  """Returns each token's share in the loss of these prompts.

  With l_i tokens in sample i, of at most L, and S = P N samples:
    'sum'       1 / S                the gradient of sequences' log-probabilities; unbiased.
    'token'     1 / sum_i l_i        the mean over tokens; DAPO (arXiv 2503.14476).
    'sequence'  1 / (S l_i)          the mean over each sample's tokens; GRPO (arXiv 2402.03300).
    'constant'  1 / (S L)            'sum' on the scale of tokens; Dr. GRPO (arXiv 2503.20783).
  Only in 'sum' and 'constant' is a token's weight independent of the lengths that were drawn.

  Args:
    completion_mask: `[P, N, L]` True where a completion has a token.
    normalization: one of the names above.

  Returns:
    `[P, N, L]` float32, 0 where there is no token.
  """
  num_prompts, num_samples, length = completion_mask.shape
  mask = completion_mask.astype(jnp.float32)
  denominator = {
    'sum': lambda: num_prompts * num_samples,
    'token': lambda: jnp.maximum(jnp.sum(mask), 1),
    'sequence': lambda: (
      num_prompts * num_samples * jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
    ),
    'constant': lambda: num_prompts * num_samples * length,
  }[normalization]()
  return mask / denominator


def ppo_surrogate(
  ratio: Float[jax.Array, '*b'],
  advantages: Float[jax.Array, '*b'],
  clip_low: float,
  clip_high: float,
) -> tuple[Float[jax.Array, '*b'], Bool[jax.Array, '*b']]:
  """Returns min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A), and where it is clipped.

  Schulman et al. 2017 (arXiv 1707.06347), eq. (7), with the two bounds of DAPO. The minimum takes
  the bound only where the ratio has gone past it in the direction that the advantage wants.

  Args:
    ratio: p(token) / p_sampling(token), differentiable.
    advantages: like ratio, reward units.
    clip_low: room below 1.
    clip_high: room above 1.
  """
  is_clipped = jnp.where(
    advantages > 0, ratio > 1 + clip_high, (advantages < 0) & (ratio < 1 - clip_low)
  )
  bound = jnp.where(advantages > 0, 1 + clip_high, 1 - clip_low)
  return jnp.where(is_clipped, bound, ratio) * advantages, is_clipped


def token_kl(
  log_probs: Float[jax.Array, '*b'],
  sampling_log_probs: Float[jax.Array, '*b'],
  ref_log_probs: Float[jax.Array, '*b'],
  estimator: str,
) -> Float[jax.Array, '*b']:
  """Returns an estimate of each token's KL(p || ref) given its prefix, nats.

    p/p_sampling times   k1 = log p - log ref   or   k3 = ref/p - 1 - log(ref/p)  (Schulman 2020)
  The factor is 1 in value where the policy has not moved, and it is what makes the gradient right.
  The expectation over tokens from p_sampling is then sum_x p(x) k(x) = KL(p || ref) for any p, so
  the expected gradient is that of KL(p || ref), exactly, for both estimators. Without it the
  gradient misses that p itself weighs the tokens: k1 gives 0 on average, k3 that of KL(ref || p).

  Args:
    log_probs: of the tokens, nats, differentiable.
    sampling_log_probs: under the policy that drew the tokens, nats.
    ref_log_probs: under the reference, nats.
    estimator: 'k1' or 'k3'.
  """
  log_ratio = ref_log_probs - log_probs
  kl = -log_ratio if estimator == 'k1' else jnp.expm1(log_ratio) - log_ratio
  return jnp.exp(log_probs - sampling_log_probs) * kl


def policy_gradient_loss(
  settings: LossSettings,
  token_log_probs: Float[jax.Array, 'P N L'],
  token_entropy: Float[jax.Array, 'P N L'],
  rollout: Rollout,
  advantages: Float[jax.Array, 'P N'],
  weights: Float[jax.Array, 'P N L'],
  mean_weights: Float[jax.Array, 'P N L'],
) -> tuple[Float[jax.Array, ''], dict[str, jax.Array]]:
  """Returns the loss of some prompts of an update, and their share in its metrics.

  REINFORCE's surrogate is A log p, whose gradient is right at the policy that sampled; PPO's is
  `ppo_surrogate` of the token's importance ratio. KL and entropy of a token are given its prefix:
  what the policy does to later prefixes is not followed.

  Args:
    settings: config.loss.
    token_log_probs: `[P, N, L]` nats, differentiable.
    token_entropy: `[P, N, L]` nats, differentiable.
    rollout: the samples; ref_log_probs are needed if settings.kl_coef > 0.
    advantages: `[P, N]`, reward units.
    weights: `[P, N, L]`, from `token_weights` of the whole update.
    mean_weights: the same for 'token': with them metrics are means over the update's tokens.

  Returns:
    `[]` float32, and scalars that add up over the prompts of an update, but for log_ratio_max:
      loss; policy_loss, its first term, if there are others.
      entropy, kl: nats per token.
      clip_share: tokens whose ratio is clipped, of all.
      ratio_mean, log_ratio_max: mean p/p_sampling and largest |log(p/p_sampling)| of a token.
        Before any update they say how well trainer and sampler agree: 1 and 0 if exactly.
  """
  # What the masked places hold may be anything, so nothing may be computed from it: 0 * inf is NaN.
  tokens_only = lambda x: jnp.where(rollout.completion_mask, x, 0)
  log_probs, entropy = tokens_only(token_log_probs), tokens_only(token_entropy)
  sampling_log_probs = tokens_only(rollout.sampling_log_probs)
  log_ratio = log_probs - sampling_log_probs
  ratio = jnp.exp(log_ratio)
  advantages = jnp.broadcast_to(jax.lax.stop_gradient(advantages)[..., None], ratio.shape)
  mean = lambda x: jnp.sum(mean_weights * x)
  metrics = {
    'entropy': mean(entropy),
    'ratio_mean': mean(ratio),
    'log_ratio_max': jnp.max(jnp.abs(log_ratio)),
  }
  if settings.name == 'ppo':
    surrogate, is_clipped = ppo_surrogate(ratio, advantages, settings.clip_low, settings.clip_high)
    metrics['clip_share'] = mean(is_clipped)
  else:
    surrogate = advantages * log_probs
  loss = -jnp.sum(weights * surrogate)
  if settings.kl_coef or settings.entropy_coef:
    metrics['policy_loss'] = loss
  if settings.kl_coef:
    ref_log_probs = tokens_only(rollout.ref_log_probs)
    kl = token_kl(log_probs, sampling_log_probs, ref_log_probs, settings.kl_estimator)
    metrics['kl'] = mean(kl)
    loss += settings.kl_coef * jnp.sum(weights * kl)
  if settings.entropy_coef:
    loss -= settings.entropy_coef * jnp.sum(weights * entropy)
  return loss, metrics | {'loss': loss}

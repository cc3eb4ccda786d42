"""Policy-gradient losses; the only home of their normalization.

A loss is one sum over the tokens of a batch, sum_t w_t term_t, in which
  term = -surrogate + kl_coef KL - entropy_coef entropy
and the weights w are those of `token_weights`. They depend on the masks alone, so they are computed
for all prompts of an update before it is split into microbatches, whose losses and gradients then
simply add up. All three terms have the same weights.

Prompts without signal, whose samples all have advantage 0, stay in every denominator: the mean is
over the prompts that were drawn, which is what makes it an unbiased estimate of the objective.
Leaving them out would weigh a prompt by how rarely its neighbors in the batch give signal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from pkpo_jax.errors import expect

# What can be named, by argument.
LOSS_CHOICES = {
  'name': ('reinforce', 'ppo'),
  'normalization': ('sum', 'token', 'sequence', 'constant'),
  'kl_estimator': ('k1', 'k3'),
}
# In nats. A ratio of probabilities is exact up to e^20, see `exp_bounded`. A log-probability below
# -10^4 is that of a masked logit, which may be as low as float32 goes; see `bounded_log_probs`.
LOG_RATIO_BOUND = 20.0
LOG_PROB_BOUND = 1e4


class Totals(NamedTuple):
  """Scalars of some prompts of an update, by what puts those of all its prompts together.

  Attributes:
    sums: they add up.
    maxima: the largest is that of the update.
  """

  sums: dict[str, jax.Array]
  maxima: dict[str, jax.Array]


class LossMetrics(NamedTuple):
  """What a loss says of some prompts of an update.

  Attributes:
    update: of the update itself.
    agreement: how far the policy is from the one that drew the samples. Before any update this is
      how well trainer and sampler agree.
  """

  update: Totals
  agreement: Totals


def exp_bounded(log_ratio: Float[jax.Array, '*b']) -> Float[jax.Array, '*b']:
  """Returns exp(x) for x <= 20, and its tangent at 20 beyond: e^20 (x - 19).

  Exact up to 20, in value and gradient. Beyond it still increases, so that gradients keep their
  direction. For |x| <= 10^4 the value, its gradient and a product of two are finite in float32.

  >>> print(exp_bounded(jnp.array([0., 1., 21.])) / jnp.exp(jnp.array([0., 1., 20.])))
  [1. 1. 2.]
  """
  inside = jnp.minimum(log_ratio, LOG_RATIO_BOUND)
  return jnp.exp(inside) * (1 + jnp.maximum(log_ratio - LOG_RATIO_BOUND, 0))


def bounded_log_probs(log_probs: Float[jax.Array, '*b']) -> Float[jax.Array, '*b']:
  """Returns log-probabilities (or densities) clipped to +-10^4 nats, without gradient beyond.

  >>> print(bounded_log_probs(jnp.array([-1., -1e30])))
  [-1.e+00 -1.e+04]
  """
  return jnp.clip(log_probs, -LOG_PROB_BOUND, LOG_PROB_BOUND)


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

  Raises:
    ValueError: if the name is unknown.
  """
  _check_choice('normalization', normalization)
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

  Both ratios are those of `exp_bounded`, e^x up to x = 20 and its tangent beyond. So the estimate
  and its gradient are exact while both log-ratios are at most 20, and finite while all
  log-probabilities are within +-10^4.

  Args:
    log_probs: of the tokens, nats, differentiable.
    sampling_log_probs: under the policy that drew the tokens, nats.
    ref_log_probs: under the reference, nats.
    estimator: 'k1' or 'k3'.

  Raises:
    ValueError: if the estimator is unknown.
  """
  _check_choice('kl_estimator', estimator)
  log_ratio = ref_log_probs - log_probs
  if estimator == 'k1':
    kl = -log_ratio
  else:
    # expm1 where it is exact; the tangent beyond the bound.
    inside = jnp.minimum(log_ratio, LOG_RATIO_BOUND)
    beyond = jnp.maximum(log_ratio - LOG_RATIO_BOUND, 0) * jnp.exp(LOG_RATIO_BOUND)
    kl = jnp.expm1(inside) + beyond - log_ratio
  return exp_bounded(log_probs - sampling_log_probs) * kl


def check_terms(
  *,
  name: str,
  clip_low: float,
  clip_high: float,
  kl_coef: float,
  kl_estimator: str,
  entropy_coef: float,
) -> None:
  """Raises FieldError if a setting among `policy_gradient_loss`'s arguments is out of range."""
  _check_choice('name', name)
  _check_choice('kl_estimator', kl_estimator)
  expect(0 < clip_low <= 1, 'clip_low', 'a number in (0, 1]', clip_low)
  expect(clip_high > 0, 'clip_high', 'a number > 0', clip_high)
  expect(kl_coef >= 0, 'kl_coef', 'a number >= 0', kl_coef)
  expect(entropy_coef >= 0, 'entropy_coef', 'a number >= 0', entropy_coef)


def policy_gradient_loss(
  token_log_probs: Float[jax.Array, 'P N L'],
  token_entropy: Float[jax.Array, 'P N L'],
  *,
  advantages: Float[jax.Array, 'P N'],
  completion_mask: Bool[jax.Array, 'P N L'],
  sampling_log_probs: Float[jax.Array, 'P N L'],
  weights: Float[jax.Array, 'P N L'],
  mean_weights: Float[jax.Array, 'P N L'],
  ref_log_probs: Float[jax.Array, 'P N L'] | None = None,
  name: str = 'reinforce',
  clip_low: float = 0.2,
  clip_high: float = 0.28,
  kl_coef: float = 0.0,
  kl_estimator: str = 'k3',
  entropy_coef: float = 0.0,
) -> tuple[Float[jax.Array, ''], LossMetrics]:
  """Returns the loss of some prompts of an update, and their share in its metrics.

  REINFORCE's surrogate is A log p, whose gradient is right at the policy that sampled; PPO's is
  `ppo_surrogate` of the token's importance ratio. KL and entropy of a token are given its prefix:
  what the policy does to later prefixes is not followed.

  Whatever the log-probabilities are, short of NaN, the loss, its gradient with respect to them and
  its metrics are finite: see `exp_bounded` and `bounded_log_probs`.

  Args:
    token_log_probs: `[P, N, L]` nats, differentiable.
    token_entropy: `[P, N, L]` nats, differentiable.
    advantages: `[P, N]`, reward units.
    completion_mask: `[P, N, L]` True where a completion has a token.
    sampling_log_probs: `[P, N, L]` nats, under the policy that sampled.
    weights: `[P, N, L]`, from `token_weights` of the whole update.
    mean_weights: the same for 'token': with them metrics are means over the update's tokens.
    ref_log_probs: `[P, N, L]` nats, under the reference; needed if kl_coef > 0.
    name: 'reinforce' or 'ppo'.
    clip_low: ppo: room of the ratio below 1.
    clip_high: ppo: room of the ratio above 1.
    kl_coef: weight of the KL penalty.
    kl_estimator: 'k1' or 'k3'.
    entropy_coef: weight of the entropy bonus.

  Returns:
    `[]` float32, and the metrics. Of the update, all sums:
      loss; policy_loss, its first term, if there are others.
      entropy, kl: nats per token.
      clip_share: tokens whose ratio is clipped, of all.
      bounded_share: tokens with a ratio beyond e^20 or a log-probability beyond +-10^4, of all.
    Of the agreement: the sum ratio_mean, the mean p/p_sampling of a token; the maximum
      log_ratio_max, the largest |log(p/p_sampling)|.

  Raises:
    ValueError: if a name is unknown, a number is out of range, or there is a KL penalty without a
      reference.
  """
  check_terms(
    name=name,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coef=kl_coef,
    kl_estimator=kl_estimator,
    entropy_coef=entropy_coef,
  )
  expect(
    not kl_coef or ref_log_probs is not None, 'ref_log_probs', 'an array with kl_coef > 0', None
  )
  # What the masked places hold may be anything, so nothing may be computed from it: 0 * inf is NaN.
  tokens_only = lambda x: jnp.where(completion_mask, x, 0)
  entropy = tokens_only(token_entropy)
  given = [tokens_only(x) for x in (token_log_probs, sampling_log_probs)]
  if kl_coef:
    given.append(tokens_only(ref_log_probs))
  log_probs, sampling_log_probs, *references = map(bounded_log_probs, given)
  log_ratio = log_probs - sampling_log_probs
  ratio = exp_bounded(log_ratio)
  is_bounded = log_ratio > LOG_RATIO_BOUND
  for each in given:
    is_bounded |= jnp.abs(each) > LOG_PROB_BOUND
  advantages = jnp.broadcast_to(jax.lax.stop_gradient(advantages)[..., None], ratio.shape)
  mean = lambda x: jnp.sum(mean_weights * x)
  sums = {'entropy': mean(entropy)}
  if name == 'ppo':
    surrogate, is_clipped = ppo_surrogate(ratio, advantages, clip_low, clip_high)
    sums['clip_share'] = mean(is_clipped)
  else:
    surrogate = advantages * log_probs
  loss = -jnp.sum(weights * surrogate)
  if kl_coef or entropy_coef:
    sums['policy_loss'] = loss
  if kl_coef:
    (ref_log_probs,) = references
    kl = token_kl(log_probs, sampling_log_probs, ref_log_probs, kl_estimator)
    sums['kl'] = mean(kl)
    loss += kl_coef * jnp.sum(weights * kl)
    if kl_estimator == 'k3':
      is_bounded |= ref_log_probs - log_probs > LOG_RATIO_BOUND
  if entropy_coef:
    loss -= entropy_coef * jnp.sum(weights * entropy)
  sums |= {'loss': loss, 'bounded_share': mean(is_bounded)}
  agreement = Totals({'ratio_mean': mean(ratio)}, {'log_ratio_max': jnp.max(jnp.abs(log_ratio))})
  return loss, LossMetrics(Totals(sums, {}), agreement)


def _check_choice(field: str, value: str) -> None:
  choices = LOSS_CHOICES[field]
  expect(value in choices, field, f'one of {choices}', value)

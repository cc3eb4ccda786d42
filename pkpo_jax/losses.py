"""Policy-gradient losses; the only home of their normalisation."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float


def policy_gradient_loss(
  token_log_probs: Float[jax.Array, 'P N L'],
  advantages: Float[jax.Array, 'P N'],
  completion_mask: Bool[jax.Array, 'P N L'],
) -> Float[jax.Array, '']:
  """Returns the REINFORCE surrogate, whose negative gradient is the policy gradient.

  loss = -1/(P N) sum_{p,i} A_{p,i} sum_l log p(token l of completion i of prompt p).
  Sums over tokens, averages over samples and prompts, samples without signal included: with the
  advantages of `pkpo_jax.ADVANTAGES` it is the unbiased gradient of the mean over prompts.

  Args:
    token_log_probs: `[P, N, L]` nats, differentiable.
    advantages: `[P, N]`, reward units.
    completion_mask: `[P, N, L]` True where a completion has a token.

  Returns:
    `[]` float32.
  """
  log_probs = jnp.sum(jnp.where(completion_mask, token_log_probs, 0), axis=-1)
  return -jnp.mean(lax.stop_gradient(advantages) * log_probs)


def mean_entropy(
  token_entropy: Float[jax.Array, 'P N L'], completion_mask: Bool[jax.Array, 'P N L']
) -> Float[jax.Array, '']:
  """Returns the mean entropy over all tokens, nats.

  Args:
    token_entropy: `[P, N, L]` nats.
    completion_mask: `[P, N, L]` True where a completion has a token.
  """
  total = jnp.sum(jnp.where(completion_mask, token_entropy, 0))
  return total / jnp.maximum(jnp.sum(completion_mask), 1)

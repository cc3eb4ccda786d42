"""The contextual softmax bandit: a language model whose completions are one token long."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.policies.base import Policy
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class SoftmaxBandit(Policy):
  """pi(arm | context) = softmax of a table of logits, uniform at first."""

  completions = 'arms'

  def __init__(self, task: Any):
    """Takes the table's size from the task: `num_contexts`, `num_arms`.

    Raises:
      FieldError: if the task has left them out.
    """
    for name in ('num_contexts', 'num_arms'):
      value = getattr(task, name)
      expect(
        isinstance(value, int) and value >= 1, f'{type(task).__name__}.{name}', 'at least 1', value
      )
    self._shape = (task.num_contexts, task.num_arms)

  def init(self, key: Key) -> dict[str, Any]:
    """Returns `{'logits': [C, V]}`, zeros; the key is not used."""
    del key
    return {'logits': jnp.zeros(self._shape, jnp.float32)}

  def action_probs(self, params: Any) -> Float[jax.Array, 'C V']:
    """Returns pi(arm | context) for all contexts."""
    return jax.nn.softmax(params['logits'], axis=-1)

  def sample(self, params: Any, prompts: Prompts, num_samples: int, key: Key) -> Rollout:
    """Returns `num_samples` independent arms for each context."""
    logits = jax.nn.log_softmax(params['logits'][prompts.tokens[:, 0]], axis=-1)
    shape = (logits.shape[0], num_samples)
    arms = jax.random.categorical(key, logits[:, None, :], axis=-1, shape=shape)
    log_probs = jnp.take_along_axis(logits, arms, axis=-1)
    return Rollout(
      prompt_tokens=prompts.tokens,
      prompt_mask=prompts.mask,
      completions=arms[..., None],
      completion_mask=jnp.ones((*shape, 1), bool),
      sampling_log_probs=log_probs[..., None],
    )

  def log_probs_and_entropy(
    self, params: Any, rollout: Rollout
  ) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
    """Returns the log-probability and the entropy of each arm drawn, nats, `[P, N, 1]`."""
    logits = jax.nn.log_softmax(params['logits'][rollout.prompt_tokens[:, 0]], axis=-1)
    log_probs = jnp.take_along_axis(logits, rollout.completions[..., 0], axis=-1)[..., None]
    entropy = -jnp.sum(jnp.exp(logits) * logits, axis=-1)
    return log_probs, jnp.broadcast_to(entropy[:, None, None], log_probs.shape)

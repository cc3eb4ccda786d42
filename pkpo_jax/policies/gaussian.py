"""The one-parameter policy of PKPO's toy section: x ~ Normal(theta, sd), sd fixed."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.policies.base import Policy
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Gaussian(Policy):
  """x ~ Normal(theta, sd) with one learnable mean for all prompts."""

  completions = 'numbers'

  def __init__(self, task: Any, init_theta: float = 0.3, sd: float = 0.1):
    """Takes the initial mean and the fixed standard deviation, both in units of x."""
    del task  # Its prompts do not matter.
    expect(sd > 0, 'sd', 'a number > 0', sd)
    self._init_theta = init_theta
    self.sd = sd

  def init(self, key: Key) -> dict[str, Any]:
    """Returns `{'theta': []}`; the key is not used."""
    del key
    return {'theta': jnp.asarray(self._init_theta, jnp.float32)}

  def sample(self, params: Any, prompts: Prompts, num_samples: int, key: Key) -> Rollout:
    """Returns `num_samples` independent draws for each prompt."""
    shape = (prompts.tokens.shape[0], num_samples, 1)
    x = params['theta'] + self.sd * jax.random.normal(key, shape)
    return Rollout(
      prompt_tokens=prompts.tokens,
      prompt_mask=prompts.mask,
      completions=x,
      completion_mask=jnp.ones(shape, bool),
      sampling_log_probs=self._log_density(params, x),
    )

  def log_probs_and_entropy(
    self, params: Any, rollout: Rollout
  ) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
    """Returns the log-density and the differential entropy of each draw, nats, `[P, N, 1]`."""
    log_density = self._log_density(params, rollout.completions)
    entropy = 0.5 * jnp.log(2 * jnp.pi * jnp.e * self.sd**2)
    return log_density, jnp.full_like(log_density, entropy)

  def _log_density(self, params: Any, x: jax.Array) -> jax.Array:
    return jax.scipy.stats.norm.logpdf(x, params['theta'], self.sd)

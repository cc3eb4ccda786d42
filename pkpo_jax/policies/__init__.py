"""Policies: what samples completions and gives their log-probabilities."""

from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Float

from pkpo_jax.policies.bandit import SoftmaxBandit
from pkpo_jax.policies.gaussian import Gaussian
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


@runtime_checkable
class Policy(Protocol):
  """A distribution over completions given a prompt."""

  def init(self, key: Key) -> Any:
    """Returns the initial parameters."""

  def sample(self, params: Any, prompts: Prompts, num_samples: int, key: Key) -> Rollout:
    """Returns `num_samples` independent completions of each prompt."""

  def log_probs_and_entropy(
    self, params: Any, rollout: Rollout
  ) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
    """Returns the log-probability and the entropy of each token, nats, differentiable."""


POLICIES = {'softmax_bandit': SoftmaxBandit, 'gaussian': Gaussian}

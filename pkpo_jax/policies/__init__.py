"""Policies: what samples completions and gives their log-probabilities."""

from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Float

from pkpo_jax.policies.bandit import SoftmaxBandit
from pkpo_jax.policies.gaussian import Gaussian
from pkpo_jax.policies.language_model import Gemma2Policy
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


@runtime_checkable
class Policy(Protocol):
  """A distribution over completions given a prompt.

  Attributes:
    frozen: top-level names of parameters that are neither trained nor saved.
    partition_rules: how parameters are split over devices; see `sharding.tree_shardings`.
    samples_exactly: whether `sample` draws from the distribution of `log_probs_and_entropy`,
      which training needs; False if it leaves tokens out or sharpens.
    eval_fields: fields of config.policy that config.eval.policy may change.

  A policy that starts from stored weights also has a method `pretrained`: it takes the
  parameters' ShapeDtypeStructs, with shardings, and returns the top-level ones that it loads.
  """

  frozen: frozenset[str]
  partition_rules: tuple[tuple[str, PartitionSpec], ...]
  samples_exactly: bool
  eval_fields: frozenset[str]

  def init(self, key: Key) -> dict[str, Any]:
    """Returns the initial parameters."""

  def sample(self, params: Any, prompts: Prompts, num_samples: int, key: Key) -> Rollout:
    """Returns `num_samples` independent completions of each prompt."""

  def log_probs_and_entropy(
    self, params: Any, rollout: Rollout
  ) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
    """Returns the log-probability and the entropy of each token, nats, differentiable."""


POLICIES = {'gaussian': Gaussian, 'gemma2': Gemma2Policy, 'softmax_bandit': SoftmaxBandit}

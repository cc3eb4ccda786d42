"""What a policy is: it samples completions and gives their log-probabilities."""

import abc
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Float

from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Policy(abc.ABC):
  """A distribution over completions given a prompt.

  Attributes:
    completions: what completions are, as in `pkpo_jax.tasks.base.Task`.
    frozen: top-level names of parameters that are neither trained nor saved.
    partition_rules: how parameters are split over devices; see `sharding.tree_shardings`.
    samples_exactly: whether `sample` draws from the distribution of `log_probs_and_entropy`,
      which training needs; False if it leaves tokens out or sharpens.
    eval_fields: fields of config.policy that config.eval.policy may change.
    max_new_tokens: L, the most tokens that a completion has.
  """

  completions: str
  frozen: frozenset[str] = frozenset()
  partition_rules: tuple[tuple[str, PartitionSpec], ...] = ()
  samples_exactly: bool = True
  eval_fields: frozenset[str] = frozenset()
  max_new_tokens: int = 1

  @abc.abstractmethod
  def init(self, key: Key) -> dict[str, Any]:
    """Returns the initial parameters; `pretrained` has those to use in their place."""

  def pretrained(self, like: dict[str, Any]) -> dict[str, Any]:
    """Returns the top-level parameters that stored weights give; `{}` where there are none.

    Args:
      like: parameters as ShapeDtypeStructs, with the shardings to load into.
    """
    del like
    return {}

  @abc.abstractmethod
  def sample(self, params: Any, prompts: Prompts, num_samples: int, key: Key) -> Rollout:
    """Returns `num_samples` independent completions of each prompt."""

  @abc.abstractmethod
  def log_probs_and_entropy(
    self, params: Any, rollout: Rollout
  ) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
    """Returns the log-probability and the entropy of each token, nats, differentiable.

    Those of a token depend on what comes before it alone: a rollout that is cut has the same.
    """

"""What a task is: it gives prompts, and grades their completions."""

import abc
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Float

from pkpo_jax.errors import FieldError
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Task(abc.ABC):
  """Prompts, and grades for completions of them.

  Attributes:
    objectives: the names of the curves over k that grades give, the first being what training
      reports: ('pass@k',) where rewards are 0 or 1, ('max@k',) where they are any numbers, and
      ('pass@k', 'max@k') where rewards are shaped and samples are right or wrong, too.
    reward_range: the least and the greatest reward there can be.
    num_problems: problems to train on, with ids 0 to num_problems - 1; None where problems are
      drawn anew for each step.
    num_held_out: problems to evaluate on; None where they are drawn anew, too.
    fingerprint: of all problems there are; a resumed run has to have the same. None where the
      config alone decides on them.
  """

  objectives: tuple[str, ...] = ('pass@k',)
  reward_range: tuple[float, float] = (0.0, 1.0)
  num_problems: int | None = None
  num_held_out: int | None = None
  fingerprint: int | None = None

  @abc.abstractmethod
  def prompts(self, step: int, num_prompts: int, key: Key) -> Prompts:
    """Returns the prompts of a training step; the same for the same arguments.

    Args:
      step: the step, from 0 on.
      num_prompts: how many.
      key: of the run, the same for all steps where `num_problems` says how many problems there
        are (it orders them), else the step's own.
    """

  def held_out(self, num_prompts: int, key: Key) -> Prompts:
    """Returns the prompts to evaluate on; drawn with `key` where none are held out."""
    return self.prompts(0, num_prompts, key)

  @abc.abstractmethod
  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns the grades of the samples of each prompt; may run on the host."""

  def demonstrations(
    self, prompts: Prompts, num_samples: int, max_new_tokens: int, key: Key
  ) -> Rollout:
    """Returns `num_samples` completions to imitate of each prompt; log-probabilities are 0."""
    del prompts, num_samples, max_new_tokens, key
    raise FieldError(
      'rollout.source', f"expected 'policy', as {type(self).__name__} has no demonstrations."
    )

  def exact_objective(
    self, policy: Any, params: Any, ks: Sequence[int]
  ) -> Float[jax.Array, 'K'] | None:
    """Returns the first of `objectives` for each k, exactly, mean over prompts; None: unknown.

    Traceable: called under jit, with parameters of the policy.
    """
    del policy, params, ks
    return None

  def close(self) -> None:  # noqa: B027 Nothing to end, for most.
    """Ends the processes that the task has for its verifier."""

  def __enter__(self) -> 'Task':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

"""What a task is: it gives prompts, and grades their completions."""

import abc
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import FieldError
from pkpo_jax.keys import step_keys
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Task(abc.ABC):
  """Prompts, and grades for completions of them.

  Attributes:
    completions: what completions are: 'text', tokens of the policy's tokenizer; 'arms', one token,
      the number of an arm; or 'numbers', one real number. A policy has to make the same.
    objectives: the names of the curves over k that grades give; training reports the first. They
      are ('pass@k',) where rewards are 0 or 1, ('max@k',) where they are any numbers, and
      ('pass@k', 'max@k') where rewards are shaped and samples are right or wrong, too.
    reward_range: the least and the greatest reward there can be.
    num_problems: problems to train on, with ids 0 to num_problems - 1; None where each step draws
      new ones.
    num_held_out: problems to evaluate on; None where each evaluation draws new ones.
    num_contexts: where completions are arms, how many prompts there are; a prompt's only token is
      its number.
    num_arms: where completions are arms, how many there are.
    grades_apart: whether the grades of a prompt do not depend on the other prompts, nor on the key;
      several processes then share the prompts out.
    fingerprint: of all problems there are; a resumed run has to have the same. None where the
      config alone decides on them.
  """

  completions: str
  objectives: tuple[str, ...] = ('pass@k',)
  reward_range: tuple[float, float] = (0.0, 1.0)
  num_problems: int | None = None
  num_held_out: int | None = None
  num_contexts: int | None = None
  num_arms: int | None = None
  grades_apart: bool = False
  fingerprint: int | None = None

  @abc.abstractmethod
  def prompts(self, step: int | jax.Array, num_prompts: int, key: Key) -> Prompts:
    """Returns the prompts of a training step; the same for the same arguments.

    Args:
      step: the step, from 0 on.
      num_prompts: how many.
      key: the run's `RunKeys.train`, the same at every step.
    """

  @abc.abstractmethod
  def held_out(self, num_prompts: int, key: Key) -> Prompts:
    """Returns the prompts of an evaluation; `key` draws them where none are held out."""

  @abc.abstractmethod
  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns the grades of the samples of each prompt; may run on the host.

    Args:
      prompts: the prompts, by this task.
      rollout: their samples, after `trim`.
      key: of what grading draws.
    """

  def trim(self, rollout: Rollout) -> Rollout:
    """Returns the rollout without the tokens that follow the end of an answer.

    The policy is not to be trained on them. A policy that ends its completions itself, with a stop
    token or after one arm, leaves nothing to trim.
    """
    return rollout

  def is_truncated(self, rollout: Rollout) -> np.ndarray | None:
    """Returns `[P, N]` bool, True where a completion was cut off; None where none can be."""
    del rollout
    return None

  def texts(self, prompts: Prompts, rollout: Rollout) -> tuple[list[str], list[list[str]]]:
    """Returns prompts `[P]` and completions `[P][N]` for people to read."""
    tokens, completions = jax.device_get((prompts.tokens, rollout.completions))
    show = lambda values: ' '.join(f'{value:.6g}' for value in np.ravel(values))
    return [show(row) for row in tokens], [[show(row) for row in group] for group in completions]

  def demonstrations(
    self, prompts: Prompts, num_samples: int, max_new_tokens: int, key: Key
  ) -> Rollout:
    """Returns `num_samples` completions to imitate of each prompt; log-probabilities are 0.

    Raises:
      FieldError: if the task has none, or one has more than max_new_tokens tokens.
    """
    del prompts, num_samples, max_new_tokens, key
    raise FieldError(
      'rollout.source', f"expected 'policy', as {type(self).__name__} has no demonstrations."
    )

  def check_demonstrations(self, max_new_tokens: int, key: Key) -> None:
    """Raises FieldError if there are no demonstrations, or one of them is too long."""
    self.demonstrations(self.prompts(0, 1, key), 1, max_new_tokens, key)

  def exact_objective(
    self, policy: Any, params: Any, ks: Sequence[int]
  ) -> Float[jax.Array, 'K'] | None:
    """Returns the first of `objectives` for each k, exactly, mean over prompts; None: unknown."""
    del policy, params, ks
    return None

  def best_objective(self, policy: Any, k: int) -> float | None:
    """Returns the largest value of the first of `objectives` that any such policy can reach."""
    del policy, k
    return None

  def close(self) -> None:  # noqa: B027 Most have nothing to end.
    """Ends the processes that the task has for its verifier."""

  def __enter__(self) -> 'Task':
    return self

  def __exit__(self, *exception) -> None:
    self.close()


class DrawnTask(Task):
  """A task that draws new prompts for each step and each evaluation."""

  @abc.abstractmethod
  def draw(self, num_prompts: int, key: Key) -> Prompts:
    """Returns prompts drawn with `key`."""

  def prompts(self, step: int | jax.Array, num_prompts: int, key: Key) -> Prompts:
    """Returns the prompts of a training step, drawn with its own key; traceable if `draw` is."""
    return self.draw(num_prompts, step_keys(key, step).prompts)

  def held_out(self, num_prompts: int, key: Key) -> Prompts:
    """Returns prompts drawn with `key`."""
    return self.draw(num_prompts, key)

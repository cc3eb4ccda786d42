"""Tasks: what gives prompts and rewards completions."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from pkpo_jax.tasks.arc.task import ArcTask
from pkpo_jax.tasks.code.task import CodeProblems
from pkpo_jax.tasks.copy import Copy
from pkpo_jax.tasks.countdown import CountdownTask
from pkpo_jax.tasks.hidden_answer import HiddenAnswer
from pkpo_jax.tasks.hidden_answer_text import HiddenAnswerText
from pkpo_jax.tasks.math.task import MathProblems
from pkpo_jax.tasks.maze import MazeTask
from pkpo_jax.tasks.parabola import Parabola
from pkpo_jax.tasks.puzzles.task import PuzzlesTask
from pkpo_jax.tasks.safe_risky import SafeRisky
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


@runtime_checkable
class Rewarder(Protocol):
  """What all tasks have in common.

  Attributes:
    is_binary: whether rewards are 0 or 1, so that max@k is pass@k.

  One with a verifier has `verdicts(prompts, rollout)`, `[P][N]`, too, which tell what is a success
  even where rewards are shaped; see `tasks.text.TextProblems`.
  """

  is_binary: bool

  def rewards(self, prompts: Prompts, rollout: Rollout, key: Key) -> Float[jax.Array, 'P N']:
    """Returns the reward of each completion; may run on the host."""


def has_success(task: Rewarder) -> bool:
  """Returns whether samples are right or wrong, so that there is a pass@k."""
  return task.is_binary or hasattr(task, 'verdicts')


@runtime_checkable
class Task(Rewarder, Protocol):
  """A distribution over prompts with a reward for completions."""

  def prompts(self, step: int | jax.Array, num_prompts: int, key: Key) -> Prompts:
    """Returns the prompts of a step; the same for the same step and key."""


@runtime_checkable
class FiniteTask(Rewarder, Protocol):
  """A finite set of problems, some of them held out; see `tasks.text.TextProblems`.

  Attributes:
    num_problems: problems to train on, with ids 0 to num_problems - 1.
    num_held_out: problems to evaluate on, with the ids that follow.
  """

  num_problems: int
  num_held_out: int

  def prompts_of(self, ids: np.ndarray) -> Prompts:
    """Returns the problems with these ids, `[P]`."""


@runtime_checkable
class ExactTask(Task, Protocol):
  """A task small enough that the objective and its optimum are known exactly."""

  def exact_max_at_k(self, policy: Any, params: Any, ks: Sequence[int]) -> Float[jax.Array, 'K']:
    """Returns max@k of the policy for each k, exactly, mean over prompts."""

  def best_max_at_k(self, policy: Any, k: int) -> float:
    """Returns the largest max@k that any policy of this kind can reach."""


@contextlib.contextmanager
def in_use(task: Rewarder) -> Iterator[None]:
  """Ends the processes that a task has for its verifier, when done with it."""
  try:
    yield
  finally:
    if hasattr(task, 'close'):
      task.close()


TASKS = {
  'arc': ArcTask,
  'code_problems': CodeProblems,
  'copy': Copy,
  'countdown': CountdownTask,
  'hidden_answer': HiddenAnswer,
  'hidden_answer_text': HiddenAnswerText,
  'math_problems': MathProblems,
  'maze': MazeTask,
  'parabola': Parabola,
  'puzzles': PuzzlesTask,
  'safe_risky': SafeRisky,
}

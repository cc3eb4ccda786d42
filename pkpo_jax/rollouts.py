"""Where a step's samples come from: the policy, or the task's demonstrations to imitate."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Float

from pkpo_jax import processes
from pkpo_jax.grading import trim_and_grade
from pkpo_jax.keys import StepKeys, piece_key
from pkpo_jax.metrics import Laps
from pkpo_jax.policies import Policy
from pkpo_jax.tasks import Task
from pkpo_jax.tasks.grades import Grades, answer_ids, concatenate
from pkpo_jax.train_step import AdvantageFn
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class RolloutSource(abc.ABC):
  """A source of rollouts, with the advantages that they are to be trained with.

  Attributes:
    ahead: rollouts of the next step that are sampled already, a list of pieces; None where each
      step samples its own.
  """

  ahead: list[Rollout] | None = None

  def __init__(
    self,
    task: Task,
    num_samples: int,
    over_prompts: NamedSharding,
    reference: Callable[[Rollout], jax.Array] | None,
  ):
    """Keeps its arguments; compiles nothing yet.

    Args:
      task: the task, which grades the rollouts.
      num_samples: N.
      over_prompts: how prompts are split over devices.
      reference: fn(rollout) -> the log-probabilities `[P, N, L]` under the reference policy; None
        without a KL penalty.
    """
    self._task, self._num_samples, self._over_prompts = task, num_samples, over_prompts
    self._reference = reference
    self._join = jax.jit(
      lambda *pieces: jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces),
      out_shardings=over_prompts,
    )

  def like_ahead(self) -> list[Rollout] | None:
    """Returns what `ahead` is like between two steps: shapes, dtypes and shardings."""
    return None

  @abc.abstractmethod
  def _pieces(
    self, step: int, params: Any, prompts: Prompts, key: Key
  ) -> list[tuple[Prompts, Rollout]]:
    """Returns equal pieces of the prompts, each with its rollout, without waiting for any."""

  @abc.abstractmethod
  def advantages(
    self, params: Any, rollout: Rollout, grades: Grades, k: jax.Array, key: Key
  ) -> Float[jax.Array, 'P N']:
    """Returns the advantages `[P, N]` of a rollout."""

  def collect(
    self, step: int, params: Any, prompts: Prompts, keys: StepKeys, laps: Laps
  ) -> tuple[Rollout, Grades]:
    """Returns the rollout of all prompts and its grades.

    While the host grades one piece, the device samples the next ones.

    Args:
      step: the training step.
      params: the policy's parameters.
      prompts: of the step.
      keys: of the step.
      laps: times sampling and grading.
    """
    pieces = self._pieces(step, params, prompts, keys.sample)
    if self._reference is not None:
      pieces = [
        (piece, rollout.replace(ref_log_probs=self._reference(rollout)))
        for piece, rollout in pieces
      ]
    rollouts, grades = [], []
    for i, (piece, rollout) in enumerate(pieces):
      laps.end('rollout', rollout)
      key = piece_key(keys.grade, i, len(pieces))
      rollout, graded = trim_and_grade(self._task, piece, rollout, key, self._over_prompts)
      laps.end('rewards', graded.rewards)
      rollouts.append(rollout)
      grades.append(graded)
    whole = rollouts[0] if len(rollouts) == 1 else self._join(*rollouts)
    return whole, concatenate(grades)


class PolicySamples(RolloutSource):
  """Samples of the policy that is trained, or of the one that it was a step before.

  Sampled a step ahead, the devices draw the samples of step t + 1 while the host grades those of
  step t; both come before the update of step t. What is drawn ahead is saved with the run, so that
  a resumed run goes on as if it had not stopped.
  """

  def __init__(
    self,
    *common,
    policy: Policy,
    advantage_fn: AdvantageFn,
    takes_answers: bool,
    num_pieces: int,
    batch_ahead: Callable[[int], tuple[Prompts, Key]] | None,
    params_like: Any,
    layout: Callable[[Any], Any],
  ):
    """Compiles the sampler and the advantages when they are first used.

    Args:
      *common: of `RolloutSource`.
      policy: draws the samples.
      advantage_fn: from `train_step.make_advantage_fn`.
      takes_answers: whether it compares answers.
      num_pieces: pieces that the prompts are sampled in.
      batch_ahead: fn(step) -> the prompts of a step and the key that samples them, to sample a step
        ahead; None samples when a step has begun.
      params_like: the policy's parameters, or their shapes.
      layout: fn(params) -> the parameters as sampling wants them on the devices.
    """
    super().__init__(*common)
    self._num_pieces, self._batch_ahead, self._layout = num_pieces, batch_ahead, layout
    self._takes_answers = takes_answers
    self._params_like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params_like)
    self._sample = jax.jit(policy.sample, static_argnums=2, out_shardings=self._over_prompts)
    self._advantage_fn = jax.jit(advantage_fn, out_shardings=self._over_prompts)

  def like_ahead(self) -> list[Rollout] | None:
    """Returns the shapes of the samples of a step, `None` if none are drawn ahead."""
    if self._batch_ahead is None:
      return None
    prompts, key = self._batch_ahead(0)
    sample = lambda params, piece, key: self._sample(params, piece, self._num_samples, key)
    likes = [
      jax.eval_shape(sample, self._params_like, piece, key) for piece in self._split(prompts)
    ]
    as_split = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._over_prompts)
    return jax.tree.map(as_split, likes)

  def _pieces(
    self, step: int, params: Any, prompts: Prompts, key: Key
  ) -> list[tuple[Prompts, Rollout]]:
    """Returns pieces of the prompts, with samples that the device may still be computing."""
    if self._batch_ahead is None:
      return self._draw(params, prompts, key)
    if self.ahead is None:
      pieces = self._draw(params, prompts, key)
    else:
      put = lambda piece: processes.put(piece, self._over_prompts)
      pieces = list(zip(map(put, self._split(prompts)), self.ahead, strict=True))
    self.ahead = [rollout for _, rollout in self._draw(params, *self._batch_ahead(step + 1))]
    return pieces

  def _split(self, prompts: Prompts) -> list[Prompts]:
    """Returns the prompts in equal pieces."""
    size = len(prompts.ids) // self._num_pieces
    part = lambda i: jax.tree.map(lambda x: x[i * size : (i + 1) * size], prompts)
    return [part(i) for i in range(self._num_pieces)]

  def _draw(self, params: Any, prompts: Prompts, key: Key) -> list[tuple[Prompts, Rollout]]:
    """Returns pieces of the prompts and their samples, which the device begins to compute."""
    pieces, params = [], self._layout(params)
    for i, piece in enumerate(self._split(prompts)):
      piece = processes.put(piece, self._over_prompts)
      sample_key = piece_key(key, i, self._num_pieces)
      pieces.append((piece, self._sample(params, piece, self._num_samples, sample_key)))
    return pieces

  def advantages(
    self, params: Any, rollout: Rollout, grades: Grades, k: jax.Array, key: Key
  ) -> Float[jax.Array, 'P N']:
    """Returns the advantages that config.advantage describes; 0 if a sample was not judged."""
    has_answers = self._takes_answers and grades.verdicts is not None
    answers = answer_ids(grades.verdicts) if has_answers else None
    given = processes.put((grades.rewards, grades.where, answers), self._over_prompts)
    rewards, where, answers = given
    return self._advantage_fn(params, rollout, rewards, where, k, key, answers)


class Demonstrations(RolloutSource):
  """Demonstrations of the task, each with advantage 1: the update imitates them."""

  def __init__(self, *common, max_new_tokens: int):
    """Takes the arguments of `RolloutSource`, and L, the most tokens of a demonstration."""
    super().__init__(*common)
    self._max_new_tokens = max_new_tokens

  def _pieces(
    self, step: int, params: Any, prompts: Prompts, key: Key
  ) -> list[tuple[Prompts, Rollout]]:
    """Returns the task's demonstrations in one piece, whatever the parameters are."""
    rollout = self._task.demonstrations(prompts, self._num_samples, self._max_new_tokens, key)
    return [processes.put((prompts, rollout), self._over_prompts)]

  def advantages(
    self, params: Any, rollout: Rollout, grades: Grades, k: jax.Array, key: Key
  ) -> Float[jax.Array, 'P N']:
    """Returns ones."""
    ones = jnp.ones(rollout.completions.shape[:2], jnp.float32)
    return processes.put(ones, self._over_prompts)

"""Schedules of k: step -> k, or one for each prompt; traceable, so that no k recompiles a step."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from pkpo_jax.errors import Choices, expect


@dataclasses.dataclass(frozen=True)
class Schedule:
  """What k is in a step: `schedule(step)` for all prompts, or one for each by its pass rate.

  Attributes:
    of_step: fn(step) -> k, int32; with a target the largest k of the step. Traceable.
    target: what pass@k is to reach at the pass rate of each prompt, see `k_for_pass_rate`; None
      gives all prompts the same k.
    memory: visits of a problem that its pass rate remembers; None without a target.
  """

  of_step: Callable[[int | jax.Array], jax.Array]
  target: float | None = None
  memory: float | None = None

  def __call__(
    self, step: int | jax.Array, pass_rates: Float[jax.typing.ArrayLike, '*p'] | None = None
  ) -> Int[jax.Array, '...']:
    """Returns the k of a step, int32.

    Args:
      step: the step.
      pass_rates: `[...]` of prompts, for a schedule with a target; NaN where a prompt was not seen
        yet. They have to come from other samples than those that k is used on. None takes the k of
        the step, whatever the prompts are.

    Returns:
      `[]`; with a target and pass rates `[...]`.
    """
    k = self.of_step(step)
    if self.target is None or pass_rates is None:
      return k
    return k_for_pass_rate(pass_rates, k, self.target)

  def ks(self, num_steps: int) -> Int[jax.Array, '_']:
    """Returns all that k may be in the first `num_steps` steps."""
    of_steps = jax.vmap(self.of_step)(jnp.arange(num_steps))
    return of_steps if self.target is None else jnp.arange(1, jnp.max(of_steps) + 1)


def constant(k: int) -> Schedule:
  """Returns the schedule that stays at k.

  >>> print(constant(8)(100))
  8
  """
  return piecewise(k, (), ())


def step(k: int, final_k: int = 1, at: int = 500) -> Schedule:
  """Returns the schedule that is k before step `at` and final_k from it on.

  k = 8 to step 1500 and 1 afterwards is Figure 3 of PKPO (arXiv 2505.15201).

  >>> schedule = step(8, final_k=1, at=1500)
  >>> print(schedule(1499), schedule(1500))
  8 1
  """
  expect(at >= 0, 'at', 'at least 0', at)
  expect(final_k >= 1, 'final_k', 'at least 1', final_k)
  return piecewise(k, (at,), (final_k,))


def linear(k: int, final_k: int = 1, begin: int = 0, end: int = 500) -> Schedule:
  """Returns the schedule that goes from k at step `begin` to final_k at `end`, rounded.

  >>> schedule = linear(8, final_k=1, begin=0, end=7)
  >>> print(schedule(0), schedule(3), schedule(100))
  8 5 1
  """
  expect(k >= 1, 'k', 'at least 1', k)
  expect(final_k >= 1, 'final_k', 'at least 1', final_k)
  expect(0 <= begin < end, 'end', f'0 <= begin < end, with begin = {begin}', end)

  def k_of(at):
    share = jnp.clip((jnp.asarray(at) - begin) / (end - begin), 0, 1)
    return jnp.round(k + (final_k - k) * share).astype(jnp.int32)

  return Schedule(k_of)


def piecewise(
  k: int, boundaries: tuple[int, ...] = (250, 500), values: tuple[int, ...] = (4, 1)
) -> Schedule:
  """Returns the schedule that is k at first and values[i] from step boundaries[i] on.

  >>> schedule = piecewise(8, boundaries=(10, 20), values=(4, 1))
  >>> print(schedule(9), schedule(10), schedule(20))
  8 4 1
  """
  expect(
    len(boundaries) == len(values), 'values', f'one value a boundary ({len(boundaries)})', values
  )
  expect(k >= 1, 'k', 'at least 1', k)
  expect(all(value >= 1 for value in values), 'values', 'values of k, each at least 1', values)
  ascending = all(a < b for a, b in zip((-1, *boundaries), boundaries, strict=False))
  expect(ascending, 'boundaries', 'ascending steps >= 0', boundaries)
  all_values = jnp.array((k, *values), jnp.int32)
  starts = jnp.array(boundaries, jnp.int32)

  return Schedule(lambda at: all_values[jnp.sum(jnp.asarray(at) >= starts)])


def pass1_passk_pass1(k: int, begin: int = 100, end: int = 700) -> Schedule:
  """Returns the schedule 1, then k from step `begin`, then 1 again from step `end`.

  The recipe of Pass@k Training (Chen et al. 2025, arXiv 2508.10751): a Pass@1 warm-up, Pass@k to
  explore, and the transfer back to Pass@1.

  >>> schedule = pass1_passk_pass1(8, begin=100, end=500)
  >>> print(schedule(0), schedule(100), schedule(500))
  1 8 1
  """
  expect(k >= 1, 'k', 'at least 1', k)
  expect(0 <= begin < end, 'end', f'0 <= begin < end, with begin = {begin}', end)
  return piecewise(1, (begin, end), (k, 1))


def by_pass_rate(k: int, target: float = 0.5, memory: float = 2.0) -> Schedule:
  """Returns the schedule that gives each prompt the k that it needs, at most k.

  A prompt that is solved often learns for a small k, one that is solved seldom for a large one. Its
  pass rate is that of its samples in the steps before. So k is independent of the samples that it
  is used on, given the policy that draws them, and what is unbiased for max@k is so for the k that
  was chosen. A k that is chosen by these samples' own rewards would make it biased.

  The trainer keeps the pass rates of a task with a fixed set of problems. At each visit of a
  problem, the counts of its right and of its judged samples shrink by the factor 1 - 1 / memory
  before the new ones are added. With memory 2 the last visit weighs as much as all before it; with
  1 it alone counts.

  Args:
    k: of prompts that were never seen or never solved; the largest there is.
    target: what pass@k is to reach at the prompt's pass rate, above 0 and below 1.
    memory: visits, at least 1; the larger, the less noise and the more lag.

  >>> schedule = by_pass_rate(8, target=0.5)
  >>> print(schedule(0, jnp.array([jnp.nan, 0.0, 0.1, 0.3, 0.5])), schedule(0))
  [8 8 7 2 1] 8
  """
  _check_target(target)
  expect(memory >= 1, 'memory', 'at least 1', memory)
  return dataclasses.replace(constant(k), target=target, memory=memory)


def k_for_pass_rate(
  pass_rate: Float[jax.typing.ArrayLike, '*p'],
  max_k: int | Int[jax.Array, ''],
  target: float = 0.5,
) -> Int[jax.Array, '*p']:
  """Returns the smallest k from 1 to max_k for which pass@k reaches the target.

  k = ceil(log(1 - target) / log(1 - p)), as pass@k = 1 - (1 - p)^k of independent samples; 1 where
  p >= target, and max_k where even that does not reach it. The quotient is rounded up from 1e-5 of
  itself above an integer on, so that float32 does not miss a target that is reached exactly.

  Args:
    pass_rate: `[...]`, p, the chance that one sample is right; NaN is unknown, and gets max_k.
    max_k: the largest k, at least 1.
    target: above 0 and below 1.

  Returns:
    `[...]` int32.

  Raises:
    FieldError: if the target is not above 0 and below 1.

  >>> print(k_for_pass_rate(jnp.array([0.5, 0.25, 0.05, 0.0, jnp.nan]), max_k=8, target=0.75))
  [2 5 8 8 8]
  """
  _check_target(target)
  p = jnp.asarray(pass_rate, jnp.float32)
  needed = jnp.ceil(math.log1p(-target) / jnp.log1p(-p) * (1 - 1e-5))
  k = jnp.where(p > 0, jnp.clip(needed, 1, max_k), max_k)
  return k.astype(jnp.int32)


def _check_target(target: float) -> None:
  expect(0 < target < 1, 'target', 'above 0 and below 1', target)


SCHEDULES = Choices(
  {
    'constant': constant,
    'step': step,
    'linear': linear,
    'piecewise': piecewise,
    'pass1_passk_pass1': pass1_passk_pass1,
    'by_pass_rate': by_pass_rate,
  }
)

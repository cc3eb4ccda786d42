"""Schedules of k: step -> k, traceable, so that annealing k never recompiles a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pkpo_jax.errors import Choices, expect

Schedule = Callable[[int | jax.Array], jax.Array]


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

  def schedule(at):
    share = jnp.clip((jnp.asarray(at) - begin) / (end - begin), 0, 1)
    return jnp.round(k + (final_k - k) * share).astype(jnp.int32)

  return schedule


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

  def schedule(at):
    return all_values[jnp.sum(jnp.asarray(at) >= starts)]

  return schedule


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


SCHEDULES = Choices(
  {
    'constant': constant,
    'step': step,
    'linear': linear,
    'piecewise': piecewise,
    'pass1_passk_pass1': pass1_passk_pass1,
  }
)

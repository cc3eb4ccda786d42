"""Advantages of flat rewards, as trainers hold them, in NumPy."""

import inspect
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pkpo_jax.advantages import ADVANTAGES, FROM_ROLLOUT
from pkpo_jax.errors import FieldError, expect, unknown_field
from pkpo_jax.groups import Layout, layout_of
from pkpo_jax.schedules import Schedule, constant


class FlatAdvantages:
  """An advantage, with its k, of samples in any order; keeps count of the steps for a schedule.

  Rewards, and what it returns, are flat: an entry a sample. A reward that is NaN is that of a
  sample which nobody judged: it gets 0, and its group is that of the others. A group of fewer than
  k samples gets 0.

  Attributes:
    calls: how often it was called; the step, for a schedule, is calls // calls_per_step.

  >>> loo = FlatAdvantages('pkpo_loo_minus_one', k=2)
  >>> print(loo(np.array([1., 0., 0., 1., 1., 0.]), ['a', 'b', 'a', 'b', 'a', 'b']).round(4))
  [1. 0. 0. 2. 1. 0.]
  """

  def __init__(
    self,
    name: str,
    k: int | Schedule = 1,
    calls_per_step: int = 1,
    seed: int = 0,
    **options,
  ):
    """Checks the name and the options.

    Args:
      name: a key of `pkpo_jax.ADVANTAGES`.
      k: the k of pass@k or max@k, or a schedule of `pkpo_jax.schedules`, such as
        `linear(8, final_k=1, end=500)`.
      calls_per_step: how often a trainer calls it in a step, such as once a micro-batch.
      seed: of advantages that draw.
      **options: of the advantage, such as beta.

    Raises:
      FieldError: if the name, an option or k is none of these.
    """
    expect(name in ADVANTAGES, 'name', f'one of {sorted(ADVANTAGES)}', name)
    expect(calls_per_step >= 1, 'calls_per_step', 'at least 1', calls_per_step)
    self.name, self._fn, self._options = name, ADVANTAGES[name], options
    self._parameters = inspect.signature(self._fn).parameters.keys() - {'rewards', 'k', 'where'}
    for option in options:
      if option not in self._parameters - FROM_ROLLOUT:
        raise FieldError(option, unknown_field(option, self._parameters - FROM_ROLLOUT))
    self._schedule = k if isinstance(k, Schedule) else constant(k)
    if self._schedule.target is not None:
      raise FieldError('k', 'expected a schedule of the step alone, got one by pass rate.')
    self._calls_per_step, self._key, self.calls = calls_per_step, jax.random.key(seed), 0

  @property
  def k(self) -> int:
    """The k of the next call."""
    return int(self._schedule(self.calls // self._calls_per_step))

  def __call__(
    self, rewards: Any, group_ids: Sequence[Hashable] | np.ndarray, **of_samples: Any
  ) -> np.ndarray:
    """Returns `[S]` float32 advantages, in the order of the rewards.

    Args:
      rewards: `[S]` array, or list, or what has `__dlpack__`, such as a tensor of torch.
      group_ids: `[S]` what the samples of one prompt share and no other prompt has.
      **of_samples: `[S]` each, what else the advantage takes: ratios, baseline_weights, answers; or
        entropy, the mean of each prompt's samples.

    Raises:
      FieldError: if the advantage takes something that is not given, shapes differ, or k is larger
        than the largest group (or, where it has to be smaller, as large).
    """
    rewards = as_numpy(rewards)
    expect(rewards.ndim == 1 and len(rewards) >= 1, 'rewards', 'shape [S]', rewards.shape)
    layout = layout_of(group_ids)
    expect(
      len(layout.rows) == len(rewards), 'group_ids', f'{len(rewards)} entries', len(layout.rows)
    )
    needed = self._parameters & FROM_ROLLOUT - {'key'}
    for name in sorted(needed ^ of_samples.keys()):
      problem = (
        f'expected {sorted(needed) or "nothing"} with {self.name}, got {sorted(of_samples)}.'
      )
      raise FieldError(name, problem)
    arguments = self._options | self._grouped(layout, len(rewards), of_samples)
    if 'key' in self._parameters:
      arguments['key'] = jax.random.fold_in(self._key, self.calls)
    is_judged = ~np.isnan(rewards.astype(np.float64))
    padded = layout.pad(np.where(is_judged, rewards, 0).astype(np.float32))
    result = self._fn(jnp.asarray(padded), k=self.k, where=layout.pad(is_judged), **arguments)
    self.calls += 1
    return np.asarray(result)[layout.rows, layout.columns].astype(np.float32)

  def _grouped(
    self, layout: Layout, num_samples: int, of_samples: Mapping[str, Any]
  ) -> dict[str, jax.Array]:
    """Returns arrays of samples as `[G, n]`, and the entropy as `[G]`."""
    grouped = {}
    for name, values in of_samples.items():
      values = as_numpy(values)
      expect(values.shape == (num_samples,), name, f'shape ({num_samples},)', values.shape)
      padded = layout.pad(values)
      if name == 'entropy':
        padded = padded.sum(-1) / np.bincount(layout.rows)
      grouped[name] = jnp.asarray(padded)
    return grouped


def as_numpy(values: Any) -> np.ndarray:
  """Returns an array on the host, of a list, or of what has `__dlpack__` or `__array__`."""
  detached = values.detach() if hasattr(values, 'detach') else values  # Of torch, from its graph.
  on_host = detached.cpu() if hasattr(detached, 'cpu') else detached
  on_host = on_host.float() if 'bfloat16' in str(getattr(on_host, 'dtype', '')) else on_host
  if hasattr(on_host, '__dlpack__') and not isinstance(on_host, np.ndarray | jax.Array):
    return np.from_dlpack(on_host)
  return np.asarray(on_host)


def like(array: np.ndarray, tensor: Any) -> Any:
  """Returns an array as a tensor of the same library, dtype and device as `tensor`."""
  if hasattr(tensor, 'new_tensor'):  # torch's.
    return tensor.new_tensor(array)
  return array.astype(tensor.dtype)

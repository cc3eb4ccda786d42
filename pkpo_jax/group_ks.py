"""An own k for each group: what every kernel that takes one k is made to take."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pkpo_jax.errors import FieldError, FieldTypeError, expect

# Arguments that are not of the groups, whatever their shape.
_OF_ALL = ('rank_weights',)


def takes_k_per_group(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """Returns a kernel whose k may also be an integer array over the leading axes of rewards.

  Each group gets what it would get alone with its k, in one program for all ks. What is unbiased
  for max@k stays so with a k that was chosen before the group's samples were drawn; a k that is
  chosen by these samples' rewards is not. A group that does not allow its k gets 0. Arguments are
  checked as traced ones are. A `key` is split, one for each group.

  Args:
    function: fn(rewards, k, ...), rewards `[..., n]`, which returns `[...]` or `[..., n]`.
  """
  signature = inspect.signature(function)

  @functools.wraps(function)
  def with_k(*args, **kwargs):
    k = kwargs['k'] if 'k' in kwargs else args[1] if len(args) > 1 else None
    if not np.ndim(k):
      return function(*args, **kwargs)
    arguments = signature.bind(*args, **kwargs).arguments
    leading = np.shape(arguments['rewards'])[:-1]
    arguments['k'] = _check(k, leading, np.shape(arguments['rewards'])[-1])
    num_groups = int(np.prod(leading))
    if 'key' in arguments:
      arguments['key'] = jax.random.split(arguments['key'], num_groups).reshape(leading)
    is_of_groups = lambda name, x: name not in _OF_ALL and np.shape(x)[: len(leading)] == leading
    of_groups = {name: x for name, x in arguments.items() if is_of_groups(name, x)}
    others = {name: x for name, x in arguments.items() if name not in of_groups}
    flat = jax.tree.map(lambda x: _flat(x, len(leading)), of_groups)
    results = jax.vmap(lambda group: function(**group, **others))(flat)
    return results.reshape(*leading, *results.shape[1:])

  return with_k


def _check(k: Any, leading: tuple[int, ...], n: int) -> jax.Array:
  """Returns k as int32.

  Raises:
    FieldTypeError: if they are not integers.
    FieldError: if there is not one for each group, or a known one is outside [1, n].
  """
  dtype = jnp.result_type(k)
  if not jnp.issubdtype(dtype, jnp.integer):
    raise FieldTypeError('k', f'expected integers, got dtype {dtype}.')
  one_a_group = f'an integer, or one for each group, shape {leading}'
  expect(np.shape(k) == leading, 'k', one_a_group, np.shape(k))
  if not isinstance(k, jax.Array):
    outside = np.asarray(k)[(np.asarray(k) < 1) | (np.asarray(k) > n)]
    if outside.size:
      raise FieldError('k', f'expected 1 <= k <= n = {n}, got {outside[0]}.')
  return jnp.asarray(k, jnp.int32)


def _flat(x: Any, num_axes: int) -> jax.Array:
  """Returns an array with its first axes as one."""
  x = jnp.asarray(x)
  return x.reshape(-1, *x.shape[num_axes:])

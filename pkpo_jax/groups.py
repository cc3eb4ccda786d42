"""A group, the samples of one prompt: its checks, its mask, its order and its center.

What the kernels share is jitted here, so that a kernel that is called as it stands, outside of jit,
runs as a few programs and not as dozens of operations, each compiled anew for every shape.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Shaped

from pkpo_jax.errors import FieldError, FieldTypeError
from pkpo_jax.typing import AnyArray, K, Mask, Rewards

# Up to this many samples, counting all pairs beats a sort (benchmarks/kernels.py).
COUNTING_MAX_N = 256
# XLA's CPU backend fuses a reduction of up to 32 entries with what makes them; it cuts a longer one
# in two and then stores all pairs.
_PAIRS_AT_A_TIME = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Group:
  """Checked rewards of groups, one per leading index.

  Attributes:
    rewards: `[*p, n]` float, without gradient; 0 where a sample does not exist.
    where: `[*p, n]` bool, True where a sample exists; None means everywhere.
    num_valid: `[*p]` int32, samples that exist; None means n everywhere.
  """

  rewards: jax.Array
  where: jax.Array | None
  num_valid: jax.Array | None

  @property
  def n(self) -> int:
    """Length of the sample axis."""
    return self.rewards.shape[-1]

  @property
  def count(self) -> jax.Array:
    """`[*p, 1]` or scalar float: samples that exist, at least 1 so that it can divide."""
    if self.num_valid is None:
      return jnp.asarray(self.n, self.rewards.dtype)
    return jnp.maximum(self.num_valid, 1).astype(self.rewards.dtype)[..., None]

  def sum(self, values: jax.Array) -> jax.Array:
    """Returns `[*p, 1]`: the sum of `values` over the samples that exist."""
    return jnp.sum(self.mask(values), axis=-1, keepdims=True)

  def mean(self, values: jax.Array) -> jax.Array:
    """Returns `[*p, 1]`: the mean of `values` over the samples that exist, 0 if there are none."""
    return self.sum(values) / self.count

  @jax.jit
  def max(self) -> jax.Array:
    """Returns `[*p, 1]`: the largest reward of each group, 0 if it has no sample."""
    if self.where is None:
      return jnp.max(self.rewards, axis=-1, keepdims=True)
    largest = jnp.max(jnp.where(self.where, self.rewards, -jnp.inf), axis=-1, keepdims=True)
    return jnp.where(self.num_valid[..., None] > 0, largest, 0)

  def count_right(self, success_threshold: float) -> jax.Array:
    """Returns `[*p, 1]` float: samples whose reward is at least `success_threshold`."""
    return self.sum((self.rewards >= success_threshold).astype(self.rewards.dtype))

  @jax.jit
  def centered(self) -> jax.Array:
    """Returns `[*p, n]`: rewards minus their group's mean; exactly 0 where all are equal.

    Taking the maximum off first keeps what is left exact in float32 for equal rewards and makes
    the result independent of a common offset.
    """
    below_max = self.mask(self.rewards - self.max())
    return self.mask(below_max - self.mean(below_max))

  @jax.jit
  def minus_mean_of_others(self) -> jax.Array:
    """Returns `[*p, n]`: each reward minus the mean of the other samples' rewards (RLOO)."""
    return self.centered() * self.count / jnp.maximum(self.count - 1, 1)

  def mask(self, values: jax.Array) -> jax.Array:
    """Returns `values` with 0 where a sample does not exist."""
    return values if self.where is None else jnp.where(self.where, values, 0)

  def zeros(self) -> jax.Array:
    """Returns `[*p, n]`: 0, but NaN where a reward is NaN."""
    return 0 * self.rewards

  @functools.partial(jax.jit, static_argnames='below_n')
  def allows(self, k: jax.Array, *, below_n: bool = False) -> jax.Array:
    """Returns `[*p, 1]` or scalar bool: whether 1 <= k <= num_valid (< if below_n)."""
    m = jnp.asarray(self.n if self.num_valid is None else self.num_valid[..., None])
    return (k >= 1) & ((k < m) if below_n else (k <= m))


def as_group(rewards: Rewards, where: Mask = None) -> Group:
  """Returns the checked group of `rewards`.

  A group with a NaN or an infinite reward among its samples becomes NaN throughout, so that every
  kernel returns NaN for it and the right numbers for all others; `where=jnp.isfinite(rewards)`
  leaves such samples out.

  Args:
    rewards: `[*p, n]` real numbers; bool, integer and half-precision rewards become float32.
    where: `[*p, n]` bool, or integers 0 and 1, True where a sample exists.

  Raises:
    ValueError: if there is no sample axis, it is empty, or `where` has another shape or values.
    TypeError: if rewards are not real numbers or `where` is neither bool nor integer.
  """
  try:
    rewards = jnp.asarray(rewards)
  except (TypeError, ValueError) as error:
    raise FieldTypeError(
      'rewards',
      'expected an array of real numbers; groups of unequal size need a mask, `where`, or '
      f'`by_group` for flat rewards ({error}).',
    ) from error
  if rewards.ndim < 1 or rewards.shape[-1] < 1:
    raise FieldError('rewards', f'expected shape [..., n] with n >= 1, got {rewards.shape}.')
  if jnp.issubdtype(rewards.dtype, jnp.floating):
    dtype = jnp.promote_types(rewards.dtype, jnp.float32)
  elif jnp.issubdtype(rewards.dtype, jnp.integer) or rewards.dtype == jnp.bool_:
    dtype = jnp.float32
  else:
    raise FieldTypeError('rewards', f'expected real numbers, got dtype {rewards.dtype}.')
  if where is not None:
    where = _as_bool(jnp.asarray(where))
    if where.shape != rewards.shape:
      raise FieldError(
        'where', f'expected the shape of rewards {rewards.shape}, got {where.shape}.'
      )
  return _make_group(rewards, where, dtype)


@functools.partial(jax.jit, static_argnames='dtype')
def _make_group(rewards: jax.Array, where: jax.Array | None, dtype: jax.typing.DTypeLike) -> Group:
  """Returns the group of checked arrays."""
  # The barrier: a compiler may compute a reward anew, rounded otherwise, wherever it is read, and
  # then the best reward does not equal the maximum, nor equal rewards each other.
  rewards = lax.optimization_barrier(lax.stop_gradient(rewards.astype(dtype)))
  if where is None:
    return Group(_poisoned(rewards, rewards), None, None)
  num_valid = jnp.sum(where, axis=-1, dtype=jnp.int32)
  existing = jnp.where(where, rewards, 0)
  return Group(jnp.where(where, _poisoned(rewards, existing), 0), where, num_valid)


def _poisoned(rewards: jax.Array, existing: jax.Array) -> jax.Array:
  """Returns the rewards, all NaN in a group that has a NaN or an infinite one.

  No estimate is left of such a group, and plausible numbers for some of its samples would hide it.
  """
  is_finite = jnp.all(jnp.isfinite(existing), axis=-1, keepdims=True)
  return jnp.where(is_finite, rewards, jnp.nan)


def _as_bool(where: jax.Array) -> jax.Array:
  """Returns a mask as bool; of traced integers, which cannot be refused, 1 alone is True.

  Raises:
    FieldTypeError: if the dtype is neither bool nor integer.
    FieldError: if a known integer is neither 0 nor 1.
  """
  if where.dtype == jnp.bool_:
    return where
  if not jnp.issubdtype(where.dtype, jnp.integer):
    raise FieldTypeError('where', f'expected dtype bool, or integers 0 and 1, got {where.dtype}.')
  if not isinstance(where, jax.core.Tracer) and bool(jnp.any((where != 0) & (where != 1))):
    raise FieldError('where', 'expected True and False, or 1 and 0, got other integers.')
  return where == 1


def by_group(
  rewards: Shaped[AnyArray, 'S'] | Sequence[float],
  group_ids: Shaped[AnyArray, 'S'] | Sequence[Hashable],
  fn: Callable[..., jax.Array],
  *,
  where: Shaped[AnyArray, 'S'] | Sequence[bool] | None = None,
  **kwargs,
) -> jax.Array:
  """Returns fn of each group of flat rewards, in any order and of any sizes, on the host.

  The kernels take one group per leading index: flat rewards `[P * N]`, as TRL and tunix hand them
  over, would silently be taken for one group of P * N samples. Here `group_ids` says which are of
  one prompt.

  Args:
    rewards: `[S]` rewards of all samples.
    group_ids: `[S]` what the samples of one prompt share and no other prompt has.
    fn: an advantage, or an estimator that returns one number a group, such as `max_at_k`; called
      once as fn(rewards `[G, n]`, where=`[G, n]`, **kwargs), n the size of the largest group.
    where: `[S]` bool, or integers 0 and 1, True where a sample counts; None means everywhere.
    **kwargs: further arguments of fn, such as k. They are handed on as they are: an array of them
      needs the shape that fn wants, with groups in the order in which their ids first come.

  Returns:
    `[S]` what fn returns for each sample, in the order of `rewards`; or `[G]`, if fn returns one
    number a group, in the order in which their ids first come. As elsewhere with a mask, a group of
    fewer than k samples gets 0.

  Raises:
    ValueError: if rewards are not flat, there are none, the lengths differ, `where` has other
      values, or fn returns another shape.
    TypeError: if an id cannot be hashed, or `where` is neither bool nor integer.

  >>> from pkpo_jax import rloo
  >>> print(by_group(np.array([1., 0., 2., 0.]), ['a', 'b', 'a', 'b'], rloo))
  [-1.  0.  1.  0.]
  >>> from pkpo_jax import max_at_k
  >>> print(by_group(np.array([1., 0., 2., 0.]), ['a', 'b', 'a', 'b'], max_at_k, k=1))
  [1.5 0. ]
  """
  rewards = _flat('rewards', rewards)
  if rewards.size == 0:
    raise FieldError('rewards', 'expected at least one sample, got none.')
  masks = np.ones(rewards.shape, bool) if where is None else _flat('where', where)
  layout = layout_of(group_ids)
  for name, length in (('group_ids', len(layout.rows)), ('where', len(masks))):
    if length != len(rewards):
      raise FieldError(name, f'expected {len(rewards)} entries, one per reward, got {length}.')
  masks = np.asarray(_as_bool(jnp.asarray(masks)))
  padded, exists = layout.pad(rewards), layout.pad(masks)
  result = fn(jnp.asarray(padded), where=jnp.asarray(exists), **kwargs)
  if result.shape not in (layout.shape, layout.shape[:1]):
    raise FieldError(
      'fn', f'expected it to return {layout.shape} or {layout.shape[:1]}, got {result.shape}.'
    )
  return result[layout.rows, layout.columns] if result.shape == layout.shape else result


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the samples of flat arrays stand in arrays with a row a group.

  Attributes:
    rows: `[S]` the group of each sample, in the order in which their ids first come.
    columns: `[S]` its place in the group, in the given order.
    shape: (G, n), n the size of the largest group.
  """

  rows: np.ndarray
  columns: np.ndarray
  shape: tuple[int, int]

  def pad(self, values: np.ndarray) -> np.ndarray:
    """Returns `[S]` as `[G, n]`, with 0 where there is no sample."""
    padded = np.zeros(self.shape, values.dtype)
    padded[self.rows, self.columns] = values
    return padded


def layout_of(group_ids: Shaped[AnyArray, 'S'] | Sequence[Hashable]) -> Layout:
  """Returns the layout of samples whose groups have these ids.

  Raises:
    FieldTypeError: if an id cannot be hashed.
  """
  ids = group_ids.tolist() if isinstance(group_ids, np.ndarray | jax.Array) else list(group_ids)
  numbers: dict[Hashable, int] = {}
  try:
    rows = np.asarray([numbers.setdefault(each, len(numbers)) for each in ids], int)
  except TypeError as error:
    raise FieldTypeError('group_ids', f'expected an id per sample, flat ({error}).') from error
  order = np.argsort(rows, kind='stable')
  sizes = np.bincount(rows)
  columns = np.empty_like(rows)
  columns[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
  return Layout(rows, columns, (len(sizes), int(sizes.max(initial=0))))


def _flat(name: str, values: Any) -> np.ndarray:
  """Returns values `[S]` on the host.

  Raises:
    FieldError: if they are not flat.
  """
  try:
    values = np.asarray(values)
    shape = values.shape
  except ValueError:  # Lists of unequal length.
    shape = 'nested lists'
  if len(shape) != 1:
    raise FieldError(name, f'expected flat values, shape [S], got {shape}.')
  return values


def check_key(key: Any) -> None:
  """Raises FieldTypeError if `key` is neither a typed nor a raw PRNG key but, say, a seed."""
  dtype, ndim = getattr(key, 'dtype', None), getattr(key, 'ndim', None)
  is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and ndim == 0
  is_raw = dtype == jnp.uint32 and ndim == 1
  if not (is_typed or is_raw):
    raise FieldTypeError(
      'key', f'expected a PRNG key, such as jax.random.key(0), got {key!r} of {type(key).__name__}.'
    )


def check_k(k: K, n: int, *, below_n: bool = False) -> jax.Array:
  """Returns `k` as int32, checked where it is known.

  Args:
    k: a Python (or NumPy) int, which is checked, or a traced or device int32, which is not.
    n: samples per group.
    below_n: whether the estimator needs k < n (for n > 1 or not).

  Raises:
    ValueError: if a Python int k is outside [1, n], or equals n where k < n is needed.
    TypeError: if k is not an integer scalar.
  """
  if isinstance(k, jax.Array):
    if not jnp.issubdtype(k.dtype, jnp.integer) or k.ndim:
      raise FieldTypeError('k', f'expected an integer scalar, got {k.dtype} of shape {k.shape}.')
    return k.astype(jnp.int32)
  try:
    value = operator.index(k)
  except TypeError:
    value = None
  if value is None or isinstance(k, (bool, np.bool_)):
    raise FieldTypeError('k', f'expected an integer, got {k!r}.')
  if not 1 <= value <= n:
    raise FieldError('k', f'expected 1 <= k <= n = {n}, got {value}.')
  if below_n and value == n:
    raise FieldError(
      'k', f'this advantage is undefined at k = n; expected k < n = {n}, got {value}.'
    )
  return jnp.asarray(value, jnp.int32)


def require_other_samples(group: Group) -> None:
  """Raises FieldError if groups have one sample, so that leaving it out leaves none."""
  if group.n < 2:
    raise FieldError('rewards', 'a leave-one-out baseline needs n >= 2 samples, got n = 1.')


def require_rewards(group: Group, is_allowed: Callable, expected: str) -> jax.Array:
  """Returns `[*p, 1]` bool: whether all rewards of a group are in an advantage's domain.

  Args:
    group: the group.
    is_allowed: fn(rewards) -> `[*p, n]` bool.
    expected: the domain in words.

  Raises:
    FieldError: if a known (not traced) reward is outside.
  """
  allowed = is_allowed(group.rewards) | jnp.isnan(group.rewards)
  if group.where is not None:
    allowed |= ~group.where
  if not isinstance(allowed, jax.core.Tracer) and not bool(jnp.all(allowed)):
    outside = np.asarray(group.rewards)[~np.asarray(allowed)]
    # As a string: the digits of its own dtype, not those of float64.
    raise FieldError('rewards', f'expected {expected}, got {outside[0]!s}.')
  return jnp.all(allowed, axis=-1, keepdims=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Order:
  """The order statistics of groups.

  Attributes:
    values: `[*p, n]` rewards ascending; past a group's num_valid its maximum repeats, so that
      gaps there are 0.
    ranks: `[*p, n]` int32, 0-based place of each sample in `values`; equal rewards share the
      lowest of their places, so that what is gathered by rank is bit-equal for them.
  """

  values: jax.Array
  ranks: jax.Array

  @jax.jit
  def gaps(self) -> jax.Array:
    """Returns `[*p, n]`: D_t = g_(t+1) - g_(t) >= 0 for t = 1..n, with D_n = 0."""
    return jnp.diff(self.values, axis=-1, append=self.values[..., -1:])

  @jax.jit
  def steps(self) -> jax.Array:
    """Returns `[*p, n]`: g_(t) - g_(t-1) >= 0 for t = 1..n, with 0 at t = 1."""
    return jnp.diff(self.values, axis=-1, prepend=self.values[..., :1])

  @jax.jit
  def to_samples(self, by_rank: jax.Array) -> jax.Array:
    """Returns `[*p, n]`: for each sample the entry of `by_rank` at its rank."""
    return jnp.take_along_axis(by_rank, self.ranks, axis=-1)

  @jax.jit
  def sum_by_rank(self, by_sample: jax.Array) -> jax.Array:
    """Returns `[*p, n]`: at each rank the sum of `by_sample` over the samples of that rank."""

    def sum_one(ranks, values):
      return jnp.zeros_like(values).at[ranks].add(values)

    return jnp.vectorize(sum_one, signature='(n),(n)->(n)')(self.ranks, by_sample)


@jax.jit
def order(group: Group) -> Order:
  """Returns the order statistics of each group, O(n log n) for large n.

  XLA's sort is slow, on CPU and on TPU; small groups are ordered by counting pairs instead, n^2
  comparisons without a branch, a scatter or a collective. Samples that do not exist go last.
  """
  keys = _float_to_int(group.rewards)
  if group.where is not None:
    keys = jnp.where(group.where, keys, jnp.iinfo(keys.dtype).max)
  places = lax.broadcasted_iota(jnp.int32, keys.shape, keys.ndim - 1)
  if group.n <= COUNTING_MAX_N:
    sorted_keys, ranks = _order_by_counting(keys)
  else:
    sorted_keys, from_place = lax.sort((keys, places), dimension=-1, num_keys=1, is_stable=False)
    # The roll brings the last key to the first place, which is 0 with or without a tie.
    starts = jnp.where(sorted_keys == jnp.roll(sorted_keys, 1, axis=-1), 0, places)
    ranks = _put(from_place, lax.cummax(starts, axis=keys.ndim - 1))
  values = _int_to_float(sorted_keys, group.rewards.dtype)
  if group.where is not None:
    values = jnp.where(places < group.num_valid[..., None], values, group.max())
  return Order(values, ranks)


def _float_to_int(values: jax.Array) -> jax.Array:
  """Returns integers in the order of `values`, -0 with 0: XLA orders them far faster on CPU.

  A compiler may vectorize a sum or a maximum of integers, and a sort need not look for NaN.
  """
  bits = jnp.iinfo(f'int{8 * values.dtype.itemsize}')
  ints = lax.bitcast_convert_type(jnp.where(values == 0, 0, values), bits.dtype)
  # Below 0 a float's magnitude bits ascend as it descends: flip them.
  return jnp.where(ints < 0, ints ^ bits.max, ints)


def _int_to_float(ints: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  """Returns the values `_float_to_int` was given."""
  largest = jnp.iinfo(ints.dtype).max
  return lax.bitcast_convert_type(jnp.where(ints < 0, ints ^ largest, ints), dtype)


def _order_by_counting(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the integer keys `[*p, n]` ascending, and their ranks, comparing all pairs."""
  n = keys.shape[-1]
  blocks = [slice(i, i + _PAIRS_AT_A_TIME) for i in range(0, n, _PAIRS_AT_A_TIME)]
  # Barriers, or each of the n readers of an entry would compute it again.
  keys = lax.optimization_barrier(keys)
  below = [keys[..., b, None] < keys[..., None, :] for b in blocks]
  ranks = sum(jnp.sum(x, axis=-2, dtype=jnp.int32) for x in below)
  ranks = lax.optimization_barrier(ranks)
  # The t-th smallest is the largest of those with at most t - 1 below them, however many tie.
  lowest = jnp.iinfo(keys.dtype).min
  within = [ranks[..., b, None] <= jnp.arange(n, dtype=jnp.int32) for b in blocks]
  candidates = [
    jnp.max(jnp.where(x, keys[..., b, None], lowest), axis=-2)
    for b, x in zip(blocks, within, strict=True)
  ]
  return lax.optimization_barrier((functools.reduce(jnp.maximum, candidates), ranks))


@functools.partial(jax.jit, static_argnames='reverse')
def cumulative_sum(values: AnyArray, *, reverse: bool = False) -> jax.Array:
  """Returns `[*p, n]`: sum of values_s over s <= t, or over s >= t if `reverse`."""
  n = values.shape[-1]
  if n > COUNTING_MAX_N:
    return lax.cumsum(values, axis=values.ndim - 1, reverse=reverse)
  # Such a product takes half the time of XLA's scan up to n = 128, and no more at 256.
  ones = jnp.ones((n, n), values.dtype)
  triangle = jnp.tril(ones) if reverse else jnp.triu(ones)
  return jnp.matmul(values, triangle, precision=lax.Precision.HIGHEST)


def _put(places: jax.Array, values: jax.Array) -> jax.Array:
  """Returns `[*p, n]` with `values` moved to `places` (a permutation) along the last axis.

  Mapped over the leading axes, not indexed by them: the scatter then has batch dimensions, which
  XLA splits over devices without moving rewards between them.
  """

  def put_one(places, values):
    return jnp.zeros_like(values).at[places].set(values, unique_indices=True)

  return jnp.vectorize(put_one, signature='(n),(n)->(n)')(places, values)

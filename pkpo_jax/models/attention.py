"""Attention over groups of completions that share a prompt, and the keys and values it looks at.

Keys and values come in two parts: those of the prompt, stored once for its N completions, and
those of each completion. Sampling and training run the same code. It is plain JAX on every device:
`jax.nn.dot_product_attention` has no soft cap, and neither it nor Pallas' splash attention takes
keys in two parts.
"""

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

# The position of padding and of empty cache slots: after every query, so that none attends there.
NOWHERE = 2**30
MASKED = -(2.0**100)  # A logit that no softmax in float32 sees.
# Exponentials up to this one, their sums and one over these are finite float32 numbers.
_LARGEST_EXPONENT = 70


@flax.struct.dataclass
class KeyValues:
  """Keys and values of one layer.

  Attributes:
    keys: `[P, K, T, H]` of the prompts, or `[P, N, K, S, H]` of the completions.
    values: like keys. Both may be of a smaller dtype than the queries; they are read as these.
    positions: `[P, T]` or `[P, N, S]` int32; NOWHERE for padding and empty slots.
  """

  keys: jax.Array
  values: jax.Array
  positions: jax.Array


def attend_in_groups(
  query: Float[jax.Array, 'R S N H'],
  key: Float[jax.Array, 'R S K H'],
  value: Float[jax.Array, 'R S K H'],
  positions: Int[jax.Array, 'P M S'],
  memory: KeyValues | None = None,
  cache: KeyValues | None = None,
  index: Int[jax.Array, ''] | None = None,
  window: int | None = None,
  soft_cap: float | None = None,
  block: int | None = None,
) -> tuple[Float[jax.Array, 'R S N H'], KeyValues]:
  """Returns what the tokens of completions take from their prompt and from their own past.

  Args:
    query: `[R, S, N, H]` of the R = P M completions, rotated and scaled; N heads.
    key: `[R, S, K, H]`, rotated; N is a multiple of K.
    value: `[R, S, K, H]`.
    positions: `[P, M, S]`, M completions of each prompt.
    memory: of the prompts; None without.
    cache: of completion tokens before these; then S = 1.
    index: `[]` with a cache: how many tokens of the completions came before.
    window: a query sees this many positions up to its own; None for all.
    soft_cap: of the logits; None for none.
    block: how many tokens of each completion look at their keys at a time. Memory is then linear in
      S, in the backward pass too, where the logits are computed again; the numbers stay the same.
      None is all S.

  Returns:
    `[R, S, N, H]`, and the keys and values: those of the tokens, or the cache with theirs in it.
  """
  num_kv_heads = key.shape[2]
  # [P, M, K, S, H], the layout in which the products over heads need no copy of the cache.
  by_head = lambda y: jnp.moveaxis(y.reshape(*positions.shape, num_kv_heads, -1), 2, 3)
  own = KeyValues(by_head(key), by_head(value), positions)
  if cache is not None:
    own = _write(cache, own, index)
  parts = (own,) if memory is None else (memory, own)
  needs_maximum = cache is None or not 0 < (soft_cap or 0) < _LARGEST_EXPONENT

  def attend_at(query, positions):
    length, num_heads, size = query.shape[1:]
    # The G query heads that share a head of keys stand together, with S: [P, M, K, G S, H].
    query = query.reshape(*positions.shape, num_kv_heads, -1, size)
    query = jnp.moveaxis(query, 2, 4)
    num_shared = query.shape[3]
    query = query.reshape(*query.shape[:3], -1, size)
    query_positions = jnp.tile(positions, (1, 1, num_shared))
    attended = attend(query, query_positions, parts, window, soft_cap, needs_maximum)
    attended = attended.reshape(*query.shape[:3], num_shared, length, -1)
    return jnp.moveaxis(attended, 4, 2).reshape(-1, length, num_heads, size)

  if block is None or query.shape[1] <= block:
    return attend_at(query, positions), own
  return _in_blocks(attend_at, query, positions, block), own


def _in_blocks(attend_at, query, positions, block):
  """Returns `attend_at(query, positions)`, `[R, S, N, H]`, for `block` of the S at a time."""
  length = query.shape[1]
  num_blocks = -(-length // block)

  def split(x, axis, **fill):
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, num_blocks * block - length)
    x = jnp.pad(x, padding, **fill)
    return jnp.moveaxis(
      x.reshape(*x.shape[:axis], num_blocks, block, *x.shape[axis + 1 :]), axis, 0
    )

  blocks = split(query, 1), split(positions, 2, constant_values=NOWHERE)
  attended = lax.map(jax.checkpoint(lambda arrays: attend_at(*arrays)), blocks)
  attended = jnp.moveaxis(attended, 0, 1)
  return attended.reshape(query.shape[0], -1, *query.shape[2:])[:, :length]


def attend(
  query: Float[jax.Array, 'P N K M H'],
  positions: Int[jax.Array, 'P N M'],
  parts: Sequence[KeyValues],
  window: int | None,
  soft_cap: float | None,
  needs_maximum: bool,
) -> Float[jax.Array, 'P N K M H']:
  """Returns `[P, N, K, M, H]`: one softmax over the keys of all parts.

  Args:
    query: `[P, N, K, M, H]`, scaled; M queries look at each of K heads of keys.
    positions: `[P, N, M]` of the queries.
    parts: KeyValues of the prompts, of the completions, or both.
    window: a query sees this many positions up to its own; None for all.
    soft_cap: of the logits.
    needs_maximum: whether to take the largest logit off before the exponential. Without, a soft cap
      keeps the exponentials in range, but not their gradient.
  """
  num_prompts, num_samples, num_heads, num_queries, _ = query.shape

  def to_part(x, part):
    """Queries of all completions of a prompt look at its keys together: [P, K, N M, ...]."""
    if not _is_shared(part):
      return x
    return jnp.moveaxis(x, 1, 2).reshape(num_prompts, x.shape[2], -1, *x.shape[4:])

  def from_part(x, part):
    if not _is_shared(part):
      return x
    shape = (num_prompts, num_heads, num_samples, num_queries)
    return jnp.moveaxis(x.reshape(*shape, *x.shape[3:]), 2, 1)

  def score(part):
    scores = jnp.einsum(
      '...mh,...th->...mt', to_part(query, part), part.keys, preferred_element_type=jnp.float32
    )
    distance = to_part(positions[:, :, None], part)[..., None] - part.positions[..., None, None, :]
    is_seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    return jnp.where(is_seen, capped(scores, soft_cap), MASKED)

  logits = [score(part) for part in parts]
  if needs_maximum:
    largest = [from_part(jnp.max(x, axis=-1), part) for x, part in zip(logits, parts, strict=True)]
    largest = lax.stop_gradient(functools.reduce(jnp.maximum, largest))
    logits = [x - to_part(largest, part)[..., None] for x, part in zip(logits, parts, strict=True)]
  attended, total = 0, 0
  for x, part in zip(logits, parts, strict=True):
    weights = jnp.exp(x)
    total += from_part(jnp.sum(weights, axis=-1), part)
    values = jnp.einsum(
      '...mt,...th->...mh',
      weights.astype(query.dtype),
      part.values,
      preferred_element_type=jnp.float32,
    )
    attended += from_part(values, part)
  return (attended / total[..., None]).astype(query.dtype)


def _is_shared(part):
  """Whether these are a prompt's keys and values, without the axis N."""
  return part.positions.ndim == 2


def _write(cache, own, index):
  """Returns the cache with one token's keys and values in the slot that is its turn."""
  slot = index % cache.positions.shape[-1]
  put = lambda old, new, axis: lax.dynamic_update_slice_in_dim(
    old, new.astype(old.dtype), slot, axis
  )
  return KeyValues(
    keys=put(cache.keys, own.keys, 3),
    values=put(cache.values, own.values, 3),
    positions=put(cache.positions, own.positions, 2),
  )


def capped(x: Float[jax.Array, '*b'], cap: float | None) -> Float[jax.Array, '*b']:
  """Returns logits that a tanh keeps within the soft cap; as they are where there is none."""
  return x if cap is None else cap * jnp.tanh(x / cap)

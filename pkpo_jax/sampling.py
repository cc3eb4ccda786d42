"""The jitted sampler: one prefill a prompt, then tokens one by one with a key-value cache.

Pure functions of a model like `pkpo_jax.models.transformer.Transformer`. The random numbers of a
completion come from its own key alone, so it does not depend on what else is in the batch.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from pkpo_jax import packing
from pkpo_jax.typing import Key

PAD_ID = 0  # What stands where a mask says that there is no token.


def bucket(length: int, smallest: int = 16) -> int:
  """Returns the length that prompts of up to `length` tokens are padded to.

  Buckets are smallest * 2^i and smallest * 3 * 2^(i-1), so that the lengths up to T need at most
  2 log2(T / smallest) + 2 compilations, and beyond `smallest` at most a third of a row is padding.

  >>> [bucket(n) for n in (1, 16, 17, 25, 33, 100)]
  [16, 16, 24, 32, 48, 128]
  """
  size = smallest
  while size < length:
    if size * 3 // 2 >= length:
      return size * 3 // 2
    size *= 2
  return size


class _Rows(NamedTuple):
  """What belongs to completions, `[G, M, ...]` in G groups of one prompt each.

  Attributes:
    ids: which of the completions of its shard a row is; their number where it is none.
    token: its last token.
    has_ended: True for a row that is none, too.
    uniforms: `[G, M, L]` its random numbers.
    cache: its keys and values, as the model has them.
    written: tokens, masks and log-probabilities, `[G, M, L]` each.
  """

  ids: Int[jax.Array, 'G M']
  token: Int[jax.Array, 'G M']
  has_ended: Bool[jax.Array, 'G M']
  uniforms: Float[jax.Array, 'G M L']
  cache: Any
  written: tuple[Int[jax.Array, 'G M L'], Bool[jax.Array, 'G M L'], Float[jax.Array, 'G M L']]


def sample(
  model: Any,
  params: Mapping[str, Any],
  prompt_tokens: Int[jax.Array, 'P T'],
  prompt_mask: Bool[jax.Array, 'P T'],
  keys: Key,
  *,
  max_new_tokens: int,
  stop_ids: tuple[int, ...],
  temperature: float | Float[jax.Array, ''] = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  num_packings: int = 0,
  num_shards: int = 1,
  cache_dtype: jax.typing.DTypeLike | None = None,
) -> tuple[Int[jax.Array, 'P N L'], Bool[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
  """Draws N completions of each prompt.

  Each prompt is read once, its keys and values are shared by its completions. Ends early when all
  completions have ended.

  With packings there is a loop for each of `packing.layouts`: as soon as the completions that have
  not ended fit into a quarter of the rows, they alone go on. A packing changes no token, and
  log-probabilities by rounding alone. It copies the keys and values of the completions that go on
  and of their prompts. So the most memory is that without packings, a quarter of the completions'
  cache and once the prompts' keys and values.

  Args:
    model: a Transformer.
    params: its parameters.
    prompt_tokens: `[P, T]`, padded on the left.
    prompt_mask: `[P, T]` True where a prompt has a token.
    keys: `[P, N]` typed keys, one a completion.
    max_new_tokens: L.
    stop_ids: tokens that end a completion; they belong to it.
    temperature: `[]`, divides the logits; 0 is greedy. May be traced.
    top_k: draw among this many most likely tokens; None is all.
    top_p: draw among the most likely tokens that together have this probability; None is all.
    num_packings: how often the rows are quartered. Each takes another compilation of the model.
    num_shards: equal parts of the prompts, which are packed each by itself: as many as the devices
      that they are split over, so that no completion moves to another.
    cache_dtype: that keys and values are kept in, of the completions and of their prompts; None is
      the model's.

  Returns:
    Tokens `[P, N, L]` int32, PAD_ID after the end; True where a completion has a token; the tokens'
    log-probabilities under exactly the distribution that they were drawn from, nats, 0 after the
    end.
  """
  num_prompts, num_samples = keys.shape
  stop = jnp.asarray(stop_ids, jnp.int32)

  def draw(hidden, uniforms):
    logits = model.logits(params, hidden)
    log_probs = sampling_log_probs(logits, temperature, top_k, top_p)
    token = draw_tokens(log_probs, uniforms)
    return token, jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]

  def write(arrays, values, index):
    put = lambda array, value: lax.dynamic_update_index_in_dim(array, value, index, 2)
    return jax.tree.map(put, arrays, values)

  def kept(x):
    is_cast = cache_dtype is not None and jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(cache_dtype) if is_cast else x

  def step(start, memory, index, rows):
    position = jnp.broadcast_to(start[:, None] + index - 1, rows.token.shape)
    hidden, cache = model(
      *(params, rows.token[..., None], position[..., None], memory, rows.cache, index - 1)
    )
    uniforms = lax.dynamic_index_in_dim(rows.uniforms, index, 2, keepdims=False)
    token, log_prob = draw(hidden[:, :, 0], uniforms)
    token = jnp.where(rows.has_ended, PAD_ID, token)
    log_prob = jnp.where(rows.has_ended, 0.0, log_prob)
    return rows._replace(
      token=token,
      has_ended=rows.has_ended | jnp.isin(token, stop),
      cache=cache,
      written=write(rows.written, (token, ~rows.has_ended, log_prob), index),
    )

  def decode(group, index, rows, is_over):
    """Draws tokens until there are L, or is_over(ids, has_ended)."""

    def is_going_on(carry):
      index, rows = carry
      return (index < max_new_tokens) & ~is_over(rows.ids, rows.has_ended)

    def go_on(carry):
      index, rows = carry
      return index + 1, step(*group, index, rows)

    return lax.while_loop(is_going_on, go_on, (index, rows))

  uniforms = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (max_new_tokens,))))(keys)
  positions = model.prompt_positions(prompt_mask)
  hidden, key_values = model(params, prompt_tokens[:, None], positions[:, None])
  last = jnp.broadcast_to(hidden[:, :, -1], (num_prompts, num_samples, hidden.shape[-1]))
  token, log_prob = draw(last, uniforms[..., 0])
  shape = (num_prompts, num_samples, max_new_tokens)
  empty = (jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
  rows_per_shard = num_prompts * num_samples // num_shards
  rows = _Rows(
    ids=jnp.arange(num_prompts * num_samples).reshape(shape[:2]) % rows_per_shard,
    token=token,
    has_ended=jnp.isin(token, stop),
    uniforms=uniforms,
    cache=jax.tree.map(kept, model.empty_cache(num_prompts, num_samples, max_new_tokens)),
    written=write(empty, (token, jnp.ones(token.shape, bool), log_prob), 0),
  )
  # Of each group: the position of the first new token, and what is seen of the prompt.
  start = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)
  group = start, jax.tree.map(kept, model.prompt_memory(key_values))
  shards = packing.Shards(num_shards, num_prompts // num_shards, num_samples)
  index, written = jnp.int32(1), rows.written
  for layout in packing.layouts(shards.num_prompts, num_samples, num_packings)[1:]:
    index, rows = decode(group, index, rows, functools.partial(shards.fits, layout))
    written = shards.put_rows(written, rows.written, rows.ids)
    ids, source = shards.pack(layout, rows.ids, rows.has_ended)
    group = shards.take_groups(group, source, rows.ids.shape[1])
    rows = shards.take_rows(rows, source)._replace(ids=ids, has_ended=ids == rows_per_shard)
  _, rows = decode(group, index, rows, lambda ids, has_ended: jnp.all(has_ended))
  return shards.put_rows(written, rows.written, rows.ids)


def sampling_log_probs(
  logits: Float[jax.Array, '*b V'],
  temperature: float | Float[jax.Array, ''],
  top_k: int | None = None,
  top_p: float | None = None,
) -> Float[jax.Array, '*b V']:
  """Returns the log-probabilities that tokens are drawn with, nats; -inf for those cut off.

  Args:
    logits: `[..., V]` nats.
    temperature: `[]`, divides the logits; 0 puts all probability on the largest.
    top_k: keep this many tokens; None is all.
    top_p: keep the fewest most likely tokens that have this probability; None is all.
  """
  log_probs = jax.nn.log_softmax(logits / jnp.where(temperature == 0, 1.0, temperature), axis=-1)
  if top_k is not None or top_p is not None:
    log_probs = jax.nn.log_softmax(_cut(log_probs, top_k, top_p), axis=-1)
  is_best = jnp.arange(logits.shape[-1]) == jnp.argmax(logits, axis=-1, keepdims=True)
  return jnp.where(temperature == 0, jnp.where(is_best, 0.0, -jnp.inf), log_probs)


def draw_tokens(
  log_probs: Float[jax.Array, '*b V'], uniforms: Float[jax.Array, '*b']
) -> Int[jax.Array, '*b']:
  """Returns tokens drawn by inversion: the first whose cumulative probability exceeds u.

  In two stages, a block of tokens and a token of the block, which reads the vocabulary once. A
  token of probability 0 is never drawn.

  Args:
    log_probs: `[..., V]` nats.
    uniforms: `[...]` in [0, 1).
  """
  vocab_size = log_probs.shape[-1]
  width = _block_width(vocab_size)
  probs = jnp.exp(log_probs).reshape(*log_probs.shape[:-1], vocab_size // width, width)
  block_probs = jnp.sum(probs, axis=-1)
  by_block = jnp.cumsum(block_probs, axis=-1)
  threshold = uniforms * by_block[..., -1]
  block = _first_beyond(threshold, by_block, block_probs)
  take = lambda x: jnp.take_along_axis(x, block[..., None], axis=-1)[..., 0]
  threshold -= take(by_block) - take(block_probs)
  probs = jnp.take_along_axis(probs, block[..., None, None], axis=-2)[..., 0, :]
  token = _first_beyond(threshold, jnp.cumsum(probs, axis=-1), probs)
  return (block * width + token).astype(jnp.int32)


def _first_beyond(threshold, cumulative, probs):
  """Returns the first entry of positive probability whose cumulative one exceeds the threshold.

  Where the rounding of sums leaves none, the likeliest.
  """
  is_beyond = (cumulative > threshold[..., None]) & (probs > 0)
  first, likeliest = jnp.argmax(is_beyond, axis=-1), jnp.argmax(probs, axis=-1)
  return jnp.where(jnp.any(is_beyond, axis=-1), first, likeliest)


def _block_width(vocab_size: int) -> int:
  """Returns the divisor of the vocabulary's size that is nearest below its square root."""
  return next(width for width in range(math.isqrt(vocab_size), 0, -1) if vocab_size % width == 0)


def _cut(log_probs, top_k, top_p):
  """Returns the log-probabilities with -inf for all but the most likely tokens."""
  order = jnp.argsort(-log_probs, axis=-1)
  ranked = jnp.exp(jnp.take_along_axis(log_probs, order, axis=-1))
  is_kept = jnp.ones_like(ranked, bool)
  if top_k is not None:
    is_kept &= jnp.arange(ranked.shape[-1]) < top_k
  if top_p is not None:
    is_kept &= jnp.cumsum(ranked, axis=-1) - ranked < top_p
  is_kept = jnp.take_along_axis(is_kept, jnp.argsort(order, axis=-1), axis=-1)
  return jnp.where(is_kept, log_probs, -jnp.inf)

"""The jitted sampler: one prefill a prompt, then tokens one by one with a key-value cache.

Pure functions of a model like `pkpo_jax.models.transformer.Transformer`. The random numbers of a
completion come from its own key alone, so it does not depend on what else is in the batch.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

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
) -> tuple[Int[jax.Array, 'P N L'], Bool[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
  """Draws N completions of each prompt.

  Each prompt is read once, its keys and values are shared by its completions. Ends early when all
  completions have ended.

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

  Returns:
    Tokens `[P, N, L]` int32, PAD_ID after the end; True where a completion has a token; the tokens'
    log-probabilities under exactly the distribution that they were drawn from, nats, 0 after the
    end.
  """
  num_prompts, num_samples = keys.shape
  uniforms = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (max_new_tokens,))))(keys)
  stop = jnp.asarray(stop_ids, jnp.int32)
  # [P], position of the first new token.
  start = jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32)[:, None]

  def draw(hidden, index):
    logits = model.logits(params, hidden)
    log_probs = sampling_log_probs(logits, temperature, top_k, top_p)
    token = draw_tokens(log_probs, lax.dynamic_index_in_dim(uniforms, index, 2, keepdims=False))
    return token, jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]

  def write(arrays, values, index):
    put = lambda array, value: lax.dynamic_update_index_in_dim(array, value, index, 2)
    return jax.tree.map(put, arrays, values)

  positions = model.prompt_positions(prompt_mask)
  hidden, key_values = model(params, prompt_tokens[:, None], positions[:, None])
  memory = model.prompt_memory(key_values)
  last = jnp.broadcast_to(hidden[:, :, -1], (num_prompts, num_samples, hidden.shape[-1]))
  token, log_prob = draw(last, 0)
  shape = (num_prompts, num_samples, max_new_tokens)
  empty = (jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape, jnp.float32))
  is_first = jnp.ones(token.shape, bool)
  written = write(empty, (token, is_first, log_prob), 0)
  has_ended = jnp.isin(token, stop)

  def is_going_on(carry):
    index, _, has_ended, _, _ = carry
    return (index < max_new_tokens) & ~jnp.all(has_ended)

  def step(carry):
    index, token, has_ended, cache, written = carry
    position = jnp.broadcast_to(start + index - 1, token.shape)
    hidden, cache = model(params, token[..., None], position[..., None], memory, cache, index - 1)
    token, log_prob = draw(hidden[:, :, 0], index)
    token, log_prob = jnp.where(has_ended, PAD_ID, token), jnp.where(has_ended, 0.0, log_prob)
    written = write(written, (token, ~has_ended, log_prob), index)
    return index + 1, token, has_ended | jnp.isin(token, stop), cache, written

  cache = model.empty_cache(num_prompts, num_samples, max_new_tokens)
  carry = (jnp.int32(1), token, has_ended, cache, written)
  return lax.while_loop(is_going_on, step, carry)[-1]


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

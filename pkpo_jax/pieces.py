"""The pieces that an update, or the log-probabilities of a rollout, are computed in, one at a time.

There are blocks of prompts, and of each block's samples; a piece is as long as its longest
completion asks for. Arrays with samples have three axes, `[P, N, L]` or `[P, N, 1]`, those of the
prompts alone two, `[P, T]`. A prompt stays on its device, and the samples of a piece share it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Int


def num_tokens(mask: Bool[jax.Array, '*b L']) -> Int[jax.Array, '*b']:
  """Returns the tokens up to the last of each completion: what it can be cut to.

  >>> print(num_tokens(jnp.array([[True, True, False], [False, False, False]])))
  [2 0]
  """
  return jnp.max(jnp.where(mask, jnp.arange(1, mask.shape[-1] + 1), 0), axis=-1)


def halved(length: int, num_lengths: int) -> tuple[int, ...]:
  """Returns `length` and its halves, rounded up, in increasing order.

  >>> halved(50, 3), halved(1, 3)
  ((13, 25, 50), (1,))
  """
  return tuple(sorted({-(-length // 2**i) for i in range(num_lengths)}))


def sort_samples(tree: Any, lengths: Int[jax.Array, 'P N']) -> tuple[Any, jax.Array]:
  """Returns the tree with the short samples of each prompt first, and what sorts them back.

  Args:
    tree: arrays with leading axis P.
    lengths: `[P, N]`.

  Returns:
    The tree, and `[P, N]` indices for `take`.
  """
  order = jnp.argsort(lengths, axis=1)
  in_order = jax.tree.map(lambda x: take(x, order) if x.ndim == 3 else x, tree)
  return in_order, jnp.argsort(order, axis=1)


def sort_prompts(
  tree: Any, lengths: Int[jax.Array, 'P N'], num_blocks: int, num_shards: int
) -> Any:
  """Returns the tree with prompts in an order in which `split` makes blocks of similar ones.

  Prompts are sorted by their total length within each shard, so that none leaves its device.

  Args:
    tree: arrays with leading axis P.
    lengths: `[P, N]`.
    num_blocks: of prompts.
    num_shards: parts of neighboring prompts, each on devices of its own.
  """
  by_shard = lambda x: x.reshape(num_shards, -1, *x.shape[1:])
  order = jnp.argsort(by_shard(jnp.sum(lengths, axis=1)), axis=1)
  # Where the prompts of a block stand: see `split_prompts`.
  order = order.reshape(num_shards, num_blocks, -1).swapaxes(1, 2).reshape(num_shards, -1)
  return jax.tree.map(lambda x: take(by_shard(x), order).reshape(x.shape), tree)


def take(x: jax.Array, order: Int[jax.Array, 'A B']) -> jax.Array:
  """Returns `x[a, order[a, b]]` for all a and b.

  >>> print(take(jnp.array([[1, 2], [3, 4]]), jnp.array([[1, 0], [0, 1]])))
  [[2 1]
   [3 4]]
  """
  return jax.vmap(lambda x, order: x[order])(x, order)


def split(tree: Any, num_prompt_blocks: int, num_sample_blocks: int) -> Any:
  """Returns the pieces of a tree along a new first axis, for a scan.

  Pieces of one block of prompts follow each other, and each has these prompts. With M blocks of
  prompts and B of samples, `[P, N, L]` becomes `[M B, P / M, N / B, L]` and `[P, T]` becomes
  `[M B, P / M, T]`.
  """

  def split_samples(x):
    if x.ndim == 4:
      x = x.reshape(*x.shape[:2], num_sample_blocks, -1, x.shape[-1])
      x = jnp.moveaxis(x, 2, 1)
    else:
      x = jnp.broadcast_to(x[:, None], (x.shape[0], num_sample_blocks, *x.shape[1:]))
    return x.reshape(-1, *x.shape[2:])

  return jax.tree.map(split_samples, split_prompts(tree, num_prompt_blocks))


def join(x: jax.Array, num_sample_blocks: int) -> jax.Array:
  """Returns the `[P, N, L]` that `split` split."""
  x = jnp.moveaxis(x.reshape(-1, num_sample_blocks, *x.shape[1:]), 1, 2)
  return join_prompts(x.reshape(*x.shape[:2], -1, x.shape[-1]))


def split_prompts(tree: Any, num_pieces: int) -> Any:
  """Returns arrays `[P, ...]` as `[num_pieces, P / num_pieces, ...]`, for a scan.

  Piece m has the prompts m, m + num_pieces, ...: devices hold blocks of neighboring prompts, so
  each already has its part of every piece. Pieces of neighboring prompts would have to be sent to
  the devices that idle.
  """
  split = lambda x: jnp.moveaxis(x.reshape(-1, num_pieces, *x.shape[1:]), 1, 0)
  return jax.tree.map(split, tree)


def join_prompts(x: jax.Array) -> jax.Array:
  """Returns what `split_prompts` split."""
  return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])


def cut(tree: Any, length: int) -> Any:
  """Returns a piece with at most `length` tokens of each completion."""
  return jax.tree.map(lambda x: x[..., :length] if x.ndim == 3 else x, tree)


def at_length(
  fn: Callable[..., Any], lengths: Sequence[int], mask: Bool[jax.Array, 'P N L'], *operands: Any
) -> Any:
  """Returns `fn(length, *operands)` for the smallest of `lengths` that holds all tokens.

  It is compiled once for each length; which one is run is decided on the device.

  Args:
    fn: gets the length as an int, for shapes. Its results have the same shapes for all lengths.
    lengths: in increasing order; the last is L.
    mask: `[P, N, L]` True where a completion has a token.
    *operands: further arguments of fn.
  """
  if len(lengths) == 1:
    return fn(lengths[0], *operands)
  is_too_short = jnp.max(num_tokens(mask)) > jnp.array(lengths[:-1])
  branches = [lambda *operands, length=length: fn(length, *operands) for length in lengths]
  return lax.switch(jnp.sum(is_too_short), branches, *operands)

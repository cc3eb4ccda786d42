"""Batches in pieces: which prompts and samples come together, and how long a piece is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pkpo_jax import pieces


def test_prompts_are_strided_and_join_again():
  split = pieces.split_prompts({'x': jnp.arange(24).reshape(12, 2)}, 3)['x']
  assert split.shape == (3, 4, 2)
  np.testing.assert_array_equal(split[1, :, 0] // 2, [1, 4, 7, 10])
  np.testing.assert_array_equal(pieces.join_prompts(split), np.arange(24).reshape(12, 2))


def test_pieces_share_their_prompts_and_join_again():
  x = jnp.arange(4 * 6 * 3).reshape(4, 6, 3)
  prompts, samples = pieces.split((x[:, 0], x), 2, 3)
  assert prompts.shape == (6, 2, 3) and samples.shape == (6, 2, 2, 3)
  for m in range(2):
    for b in range(3):
      np.testing.assert_array_equal(prompts[3 * m + b], x[m::2, 0])
      np.testing.assert_array_equal(samples[3 * m + b], x[m::2, 2 * b : 2 * b + 2])
  np.testing.assert_array_equal(pieces.join(samples, 3), x)


@pytest.mark.parametrize('num_blocks, num_shards', [(1, 1), (4, 1), (2, 2), (1, 4), (3, 4)])
def test_similar_lengths_come_together(num_blocks, num_shards):
  """Within each shard, against a loop."""
  lengths = np.random.default_rng(0).integers(0, 50, (24, 4))
  x = jnp.asarray(lengths)[..., None]
  (ids, x), back = pieces.sort_samples((jnp.arange(24)[:, None], x), jnp.asarray(lengths))
  np.testing.assert_array_equal(x[..., 0], np.sort(lengths, axis=1))
  np.testing.assert_array_equal(pieces.take(x, back)[..., 0], lengths)
  ids, x = pieces.sort_prompts((ids, x), jnp.asarray(lengths), num_blocks, num_shards)
  np.testing.assert_array_equal(x[..., 0], np.sort(lengths[ids[:, 0]], axis=1))
  by_shard = np.asarray(ids).reshape(num_shards, -1)
  np.testing.assert_array_equal(np.sort(by_shard, axis=1), np.arange(24).reshape(num_shards, -1))
  blocks, _ = pieces.split((ids, x), num_blocks, 1)
  for s, block in enumerate(np.moveaxis(np.reshape(blocks, (num_blocks, num_shards, -1)), 1, 0)):
    shard = slice(s * 24 // num_shards, (s + 1) * 24 // num_shards)
    totals = np.sort(lengths[shard].sum(1)).reshape(num_blocks, -1)
    np.testing.assert_array_equal(np.sort(lengths[block].sum(-1), axis=1), totals)


@pytest.mark.parametrize('length, expected', [(0, 0), (1, 2), (2, 2), (3, 4), (4, 4), (7, 7)])
def test_a_piece_gets_the_smallest_length_that_holds_it(length, expected):
  mask = jnp.zeros((2, 3, 7), bool).at[1, 2, :length].set(True)
  actual = jax.jit(lambda mask: pieces.at_length(jnp.add, (0, 2, 4, 7), mask, 10))(mask)
  assert actual == 10 + expected
  # A completion without its first tokens is not shorter.
  assert pieces.num_tokens(mask.at[..., 0].set(False))[1, 2] == (length if length > 1 else 0)

"""Which completions the sampler goes on with, so that those that have ended take no time.

Completions stand in groups of one prompt each, as the model takes them, and so share the keys and
values of the prompt. A packing leaves as many groups, and makes them narrower: a prompt with many
completions left takes the groups of others that have none. All shapes are static. Each shard of the
prompts is packed by itself, so that nothing moves between devices.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

Layout = tuple[int, int]  # How many groups a shard has, and how many completions a group.


class Shards(NamedTuple):
  """Equal parts of the prompts.

  In arrays of groups, `[S G, ...]` or `[S G, M, ...]`, those of a shard follow each other.

  Attributes:
    num_shards: S.
    num_prompts: P of one shard.
    num_samples: N.
  """

  num_shards: int
  num_prompts: int
  num_samples: int

  def fits(
    self, layout: Layout, ids: Int[jax.Array, 'SG M'], has_ended: Bool[jax.Array, 'SG M']
  ) -> Bool[jax.Array, '']:
    """Returns whether the completions that go on fit into a layout, in every shard."""
    needed = jax.vmap(
      lambda *rows: groups_needed(*rows, self.num_prompts, self.num_samples, layout[1])
    )(self._split(ids), self._split(~has_ended))
    return jnp.all(needed <= layout[0])

  def pack(
    self, layout: Layout, ids: Int[jax.Array, 'SG M'], has_ended: Bool[jax.Array, 'SG M']
  ) -> tuple[Int[jax.Array, 'SH W'], Int[jax.Array, 'SH W']]:
    """Returns `regroup` of each shard."""
    found = jax.vmap(lambda *rows: regroup(*rows, self.num_prompts, self.num_samples, layout))(
      self._split(ids), self._split(~has_ended)
    )
    return jax.tree.map(lambda x: x.reshape(-1, layout[1]), found)

  def take_rows(self, tree: Any, source: Int[jax.Array, 'SH W']) -> Any:
    """Returns arrays `[S H, W, ...]` of arrays `[S G, M, ...]`, by places of `pack`."""

    def take(x):
      rows = x.reshape(self.num_shards, -1, *x.shape[2:])
      taken = jax.vmap(lambda rows, places: rows[places])(rows, self._split(source))
      return taken.reshape(*source.shape, *x.shape[2:])

    return jax.tree.map(take, tree)

  def take_groups(self, tree: Any, source: Int[jax.Array, 'SH W'], width: int) -> Any:
    """Returns arrays `[S H, ...]` of arrays `[S G, ...]`, whose groups have `width` places."""
    groups = self._split(source[:, 0] // width)

    def take(x):
      taken = jax.vmap(lambda x, groups: x[groups])(self._split(x), groups)
      return taken.reshape(-1, *x.shape[1:])

    return jax.tree.map(take, tree)

  def put_rows(self, whole: Any, tree: Any, ids: Int[jax.Array, 'SH W']) -> Any:
    """Returns arrays `[S P, N, ...]` with the rows of arrays `[S H, W, ...]` at their ids."""

    def put(whole, x):
      rows = whole.reshape(self.num_shards, -1, *whole.shape[2:])
      new = x.reshape(self.num_shards, -1, *x.shape[2:])
      place = ids.reshape(self.num_shards, -1)
      rows = jax.vmap(lambda rows, place, new: rows.at[place].set(new, mode='drop'))(
        rows, place, new
      )
      return rows.reshape(whole.shape)

    return jax.tree.map(put, whole, tree)

  def _split(self, x):
    return x.reshape(self.num_shards, -1, *x.shape[1:])


def layouts(num_prompts: int, num_samples: int, num_packings: int) -> list[Layout]:
  """Returns the groups and their width, at first and after each packing.

  Each layout has at most a quarter of the rows of the one before: fewer loops to compile than with
  halves, for the same time (`benchmarks.packing` compares). Groups become narrower; only those of
  fewer than four completions become fewer. There are fewer packings where no row would be left.

  >>> layouts(8, 16, 3)
  [(8, 16), (8, 4), (8, 1), (2, 1)]
  """
  found = [(num_prompts, num_samples)]
  for _ in range(num_packings):
    num_groups, width = found[-1]
    found.append((num_groups, width // 4) if width >= 4 else (num_groups * width // 4, 1))
  return [layout for layout in found if layout[0]]


def groups_needed(
  ids: Int[jax.Array, 'G M'],
  is_live: Bool[jax.Array, 'G M'],
  num_prompts: int,
  num_samples: int,
  width: int,
) -> Int[jax.Array, '']:
  """Returns how many groups of a width hold the completions that go on.

  Args:
    ids: `[G, M]` which of the P N completions stands where; P N where none does. A group without
      one in its first place is empty.
    is_live: `[G, M]` whether it goes on.
    num_prompts: P.
    num_samples: N.
    width: completions of a group.
  """
  counts = jnp.zeros(num_prompts + 1, jnp.int32)  # The last is that of empty groups.
  counts = counts.at[ids[:, 0] // num_samples].add(jnp.sum(is_live, axis=-1, dtype=jnp.int32))
  return jnp.sum(-(-counts // width))


def regroup(
  ids: Int[jax.Array, 'G M'],
  is_live: Bool[jax.Array, 'G M'],
  num_prompts: int,
  num_samples: int,
  layout: Layout,
) -> tuple[Int[jax.Array, 'H W'], Int[jax.Array, 'H W']]:
  """Returns which completion stands where after a packing, and where it stood before.

  Those that go on keep their order. Those for which there is no room are dropped.

  Args:
    ids: `[G, M]`, like the next, as in `groups_needed`.
    is_live: `[G, M]`.
    num_prompts: P.
    num_samples: N.
    layout: groups H and their width W.

  Returns:
    `[H, W]` ids, and `[H, W]` places among the G M; any place where the id is P N.
  """
  num_groups, width = layout
  num_rows, num_places = num_prompts * num_samples, num_groups * width
  # By completion, with one more for the places that are empty.
  by_id = lambda x: jnp.zeros(num_rows + 1, x.dtype).at[ids.ravel()].set(x.ravel())
  goes_on = by_id(is_live)[:-1].reshape(num_prompts, num_samples)
  num_taken = -(-jnp.sum(goes_on, axis=-1, dtype=jnp.int32) // width)
  first = jnp.cumsum(num_taken) - num_taken
  rank = jnp.cumsum(goes_on, axis=-1) - 1
  # A prompt's places follow each other, from the first of its groups on.
  place = jnp.where(goes_on, first[:, None] * width + rank, num_places)
  new_ids = jnp.full(num_places, num_rows, jnp.int32)
  new_ids = new_ids.at[place.ravel()].set(jnp.arange(num_rows, dtype=jnp.int32), mode='drop')
  source = by_id(jnp.arange(ids.size, dtype=jnp.int32))[new_ids]
  return new_ids.reshape(layout), source.reshape(layout)

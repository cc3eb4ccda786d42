"""Splits of problems that are drawn at random."""

from collections.abc import Sequence

from pkpo_jax.data.base import Record


def drawn_splits(records: Sequence[Record], num_train: int) -> dict[str, list[Record]]:
  """Returns 'train', the first num_train records, and 'held_out', the others, with their ids."""
  splits = {'train': records[:num_train], 'held_out': records[num_train:]}
  return {
    split: [{'id': f'{split}/{i}'} | record for i, record in enumerate(found)]
    for split, found in splits.items()
  }

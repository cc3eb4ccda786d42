"""A bar for work that is quick on little data."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm


def progress_if_slow(
  items: Iterable[Any] | None, name: str, unit: str, total: int | None = None
) -> tqdm.tqdm:
  """Returns a bar with an ETA, over items or to be updated, that shows after three seconds."""
  return tqdm.tqdm(
    items,
    name,
    total,
    unit=f' {unit}',
    delay=3,
    # A log file gets a line now and then, a terminal a moving bar.
    mininterval=0.2 if sys.stderr.isatty() else 10,
  )

"""Progress with an ETA: a bar on a terminal, lines in a log."""

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


def progress(first_step: int, num_steps: int, name: str) -> tqdm.tqdm:
  """Returns a bar of num_steps steps, first_step of them done, with an ETA; update() after each."""
  return tqdm.tqdm(
    desc=name,
    initial=first_step,
    total=num_steps,
    unit='step',
    bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, ETA {remaining}, {rate_fmt}]',
    # A log file gets a line now and then, a terminal a moving bar.
    mininterval=0.2 if sys.stderr.isatty() else 10,
  )

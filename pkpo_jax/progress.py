"""Progress with an ETA: a bar on a terminal, lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import tqdm

from pkpo_jax import processes

_LINE_EVERY_S = 10.0  # Between lines of a log.
_FIRST_AFTER_S = 3.0  # Work that is over sooner shows nothing.
_STEPS_BEFORE_ETA = 3  # The first ones compile programs, and say nothing of those that follow.


class Progress:
  """How far some work is, on stderr; `update` after each step, or iterate over it.

  On a terminal it is a bar. In a log it is a line every ten seconds, with nothing redrawn. The ETA
  is that of the rate since the third step here, and is given from then on. Of several processes
  the first alone shows it.
  """

  def __init__(
    self,
    name: str,
    total: int | None = None,
    *,
    initial: int = 0,
    unit: str = 'step',
    items: Iterable[Any] | None = None,
    after_s: float = 0.0,
  ):
    """Shows nothing yet.

    Args:
      name: what is done.
      total: number of steps; None is not known, or that of `items`.
      initial: steps that were done before.
      unit: what a step is.
      items: to iterate over.
      after_s: seconds before anything is shown.
    """
    if total is None and items is not None:
      total = len(items) if isinstance(items, list | tuple) else None
    self._name, self._total, self._initial, self._items = name, total, initial, items
    self._unit, self._done = unit, initial
    self._start, self._rate_from = time.monotonic(), None
    self._next_line = self._start + max(after_s, _FIRST_AFTER_S)
    self._is_shown = processes.is_first()
    self._bar, self._has_written = None, False
    if self._is_shown and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        desc=name,
        initial=initial,
        total=total,
        unit=f' {unit}',
        delay=after_s,
        bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]',
      )

  def update(self, steps: int = 1) -> None:
    """Counts steps as done."""
    self._done += steps
    now = time.monotonic()
    if self._rate_from is None and self._done - self._initial >= _STEPS_BEFORE_ETA:
      self._rate_from = now, self._done
    if self._bar is not None:
      self._bar.set_postfix_str(self._pace(now), refresh=False)
      self._bar.update(steps)
    elif self._is_shown and now >= self._next_line:
      self._next_line = now + _LINE_EVERY_S
      self._write(now)

  def note(self, text: str) -> None:
    """Writes a line about what goes on, above the bar if there is one."""
    if self._is_shown:
      tqdm.tqdm.write(f'{self._name}: {text}', file=sys.stderr)

  def close(self) -> None:
    """Ends the bar, or writes the last line of a log that has some."""
    if self._bar is not None:
      self._bar.close()
    elif self._has_written:
      self._write(time.monotonic())

  def _write(self, now: float) -> None:
    self._has_written = True
    total = '' if self._total is None else f'/{self._total}'
    pace = self._pace(now)
    print(
      f'{self._name}: {self._done}{total} {self._unit}s, {_clock(now - self._start)}'
      f'{", " if pace else ""}{pace}',
      file=sys.stderr,
      flush=True,
    )

  def _pace(self, now: float) -> str:
    """Returns the ETA and the rate, '' as long as they mean nothing."""
    if self._rate_from is None or self._done <= self._rate_from[1]:
      return ''
    seconds, steps = now - self._rate_from[0], self._done - self._rate_from[1]
    rate = f'{steps / max(seconds, 1e-9):.3g} {self._unit}s/s'
    if self._total is None:
      return rate
    return f'ETA {_clock((self._total - self._done) * seconds / steps)}, {rate}'

  def __iter__(self) -> Iterator[Any]:
    with self:
      for item in self._items:
        yield item
        self.update()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *exception) -> None:
    self.close()


def progress(first_step: int, num_steps: int, name: str) -> Progress:
  """Returns the progress of num_steps steps, first_step of which are done."""
  return Progress(name, num_steps, initial=first_step)


def progress_if_slow(
  items: Iterable[Any] | None, name: str, unit: str, total: int | None = None
) -> Progress:
  """Returns progress over items, or to be updated, that shows after three seconds."""
  return Progress(name, total, unit=unit.removesuffix('s'), items=items, after_s=_FIRST_AFTER_S)


def _clock(seconds: float) -> str:
  """Returns h:mm:ss, or mm:ss below an hour."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes:02d}:{seconds:02d}'

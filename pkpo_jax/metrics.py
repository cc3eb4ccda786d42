"""Where metrics go: JSON lines, TensorBoard, and trackers."""

import json
import math
import os
import pathlib
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from pkpo_jax.errors import DataError, SaveError
from pkpo_jax.light_imports import stand_in

# tensorboardX looks for it, for files in buckets; importing it takes as long as flax and optax.
with stand_in('google.cloud.storage', None):
  from tensorboardX import summary
  from tensorboardX.event_file_writer import EventsWriter
  from tensorboardX.proto import event_pb2, summary_pb2


class MetricWriter:
  """Writes scalars to workdir/metrics.jsonl and, if asked, to TensorBoard event files.

  A resumed run drops what an earlier one wrote for steps it will repeat, so that every step
  stands in the file once.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    first_step: int,
    tensorboard: bool,
    trackers: Sequence[Any] = (),
  ):
    """Opens the files.

    Args:
      workdir: their folder.
      first_step: the first step that will be written.
      tensorboard: whether to write for TensorBoard, too.
      trackers: those of `pkpo_jax.trackers` that get the metrics, too; they are closed with this.
    """
    self._path = workdir / 'metrics.jsonl'
    if self._path.exists():
      _drop_from_step(self._path, first_step)
    self._file = self._path.open('a')
    self._tensorboard = _TensorBoard(workdir / 'tensorboard', first_step) if tensorboard else None
    self._trackers = trackers

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Writes one line of scalar metrics, named group/name, for `step`.

    Raises:
      FloatingPointError: if a metric is NaN or infinite.
    """
    scalars = {name: float(value) for name, value in metrics.items()}
    for name, value in scalars.items():
      if not math.isfinite(value):
        raise FloatingPointError(f'{name}: expected a finite number at step {step}, got {value}.')
    try:
      self._file.write(json.dumps({'step': step, **scalars}) + '\n')
      self._file.flush()  # Somebody may be following the run.
    except OSError as error:
      raise SaveError(f'{self._path}: step {step} could not be written: {error}.') from error
    if self._tensorboard is not None:
      self._tensorboard.write(step, scalars)
    for tracker in self._trackers:
      tracker.write(step, scalars)

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a text to TensorBoard alone, which shows it as it is."""
    if self._tensorboard is not None and text:
      self._tensorboard.write_text(step, name, text)

  def flush(self) -> None:
    """Hands everything written so far to the operating system."""
    self._file.flush()
    if self._tensorboard is not None:
      self._tensorboard.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()
    for tracker in self._trackers:
      tracker.close()

  def __enter__(self) -> 'MetricWriter':
    return self

  def __exit__(self, *exception) -> None:
    self.close()


class _TensorBoard:
  """An event file of scalars and texts.

  tensorboardX's own SummaryWriter writes from a queue, which its flush() does not wait for: a
  killed run would lack steps that its checkpoint is past.
  """

  def __init__(self, folder: pathlib.Path, first_step: int):
    """Opens a new file in `folder`; TensorBoard drops what older ones have from `first_step` on."""
    folder.mkdir(parents=True, exist_ok=True)
    # Files are named after the second; two runs may begin in the same one.
    self._file = EventsWriter(str(folder / 'events'), filename_suffix=f'.{os.getpid()}')
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(first_step, session_log=start)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes the scalars of a step."""
    values = [summary_pb2.Summary.Value(tag=x, simple_value=y) for x, y in scalars.items()]
    self._write(step, summary=summary_pb2.Summary(value=values))

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a text; TensorBoard reads Markdown, in which indented lines are left alone."""
    self._write(step, summary=summary.text(name, textwrap.indent(text, '    ', lambda _: True)))

  def _write(self, step: int, **content) -> None:
    self._file.write_event(event_pb2.Event(step=step, wall_time=time.time(), **content))

  def flush(self) -> None:
    self._file.flush()

  def close(self) -> None:
    self._file.close()


def read_metrics(
  workdir: str | pathlib.Path, is_growing: bool = False
) -> list[dict[str, int | float]]:
  """Returns the lines of workdir/metrics.jsonl, in order.

  Args:
    workdir: of the run.
    is_growing: whether the run may be writing; a last line that is not whole is left out.

  Raises:
    DataError: if a line is damaged; names file and line.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  text = path.read_text(errors='replace')
  lines = (text[: text.rfind('\n') + 1] if is_growing else text).splitlines()
  return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


class Laps:
  """Times the parts of a step, each until its result is there; does nothing if not enabled.

  A part that comes several times counts with the sum.
  """

  def __init__(self, enabled: bool, before: Any):
    """Starts once `before`, any arrays, is there."""
    self.metrics: dict[str, float] = {}
    self._enabled = enabled
    self._last = self._now(before)

  def end(self, name: str, result: Any) -> None:
    """Ends the part whose `result`, any arrays, is waited for: metrics[time/name_s]."""
    if self._enabled:
      now = self._now(result)
      field = f'time/{name}_s'
      self.metrics[field] = self.metrics.get(field, 0.0) + now - self._last
      self._last = now

  def _now(self, result: Any) -> float:
    if self._enabled:
      jax.block_until_ready(result)
    return time.perf_counter()


def _parse(path: pathlib.Path, number: int, line: str) -> dict[str, int | float]:
  """Returns the metrics in a line of a file."""
  try:
    metrics = json.loads(line)
  except ValueError as error:
    raise DataError(
      f'{path}, line {number}: expected JSON, got {line.strip()[:80]!r} ({error}). A run that is '
      'resumed writes the lines of its last steps anew; remove what follows the damage.'
    ) from error
  if not isinstance(metrics, dict) or 'step' not in metrics:
    raise DataError(
      f"{path}, line {number}: expected an object with 'step', got {line.strip()[:80]!r}."
    )
  return metrics


def _drop_from_step(path: pathlib.Path, first_step: int) -> None:
  """Removes the lines of steps >= first_step, and a last line that was cut short."""
  kept = []
  for line in path.read_text(errors='replace').splitlines(keepends=True):
    if not line.endswith('\n') or _parse(path, len(kept) + 1, line)['step'] >= first_step:
      break
    kept.append(line)
  rewritten = path.with_suffix('.tmp')
  rewritten.write_text(''.join(kept))
  rewritten.replace(path)

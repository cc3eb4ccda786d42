"""Keeps samples of a run, with what became of them, in a file that `pkpo_jax.samples` reads."""

import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from pkpo_jax.errors import SaveError
from pkpo_jax.samples import LEFT_OUT, lines_of
from pkpo_jax.settings import LogSettings
from pkpo_jax.tasks import Task
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts, Rollout


class SampleWriter:
  """Keeps samples in a file of JSON lines, a few of each training step or all of an evaluation.

  The file has as many of the newest steps as fit into its bound, each of them whole; older ones are
  dropped. A step that is larger than the bound by itself is cut: its first samples are kept, and a
  last line says how many were left out, as does stderr:
    {"step": 10, "split": "eval", "left_out": 300}

  A resumed run first drops the steps that it will repeat. What the file has follows from all
  samples so far, so that a run that is killed and resumed ends with the same bytes as a whole run.
  """

  def __init__(
    self,
    path: pathlib.Path,
    task: Task,
    split: str,
    settings: LogSettings,
    first_step: int = 0,
  ):
    """Drops what the file has from `first_step` on.

    Args:
      path: the file.
      task: turns tokens to text.
      split: 'train' keeps a few samples of a step, 'eval' all.
      settings: how many are a few (see `choose`), and the bound of the file.
      first_step: the first step that will be written.
    """
    self._path, self._task, self._split = path, task, split
    self._num_few, self._max_bytes = settings.samples_per_step, settings.max_samples_mib * 2**20
    self._keeps_all = split == 'eval' and self._max_bytes > 0
    self._sizes = _drop_from_step(path, first_step) if path.exists() else {}
    self._lines: list[bytes] = []
    self._few: list[dict[str, Any]] = []
    self._num_groups = 0

  def add(
    self, step: int, prompts: Prompts, rollout: Rollout, grades: Grades, **trained: Any
  ) -> None:
    """Takes samples of a step, or of a piece of it; `write` puts them into the file.

    Args:
      step: the training step.
      prompts: P prompts.
      rollout: their samples.
      grades: of them.
      **trained: `advantages`, `[P, N]`, and `k`, `[]` or `[P]`, if the step trains on the samples.
    """
    few = choose(grades, self._num_few)
    places = list(np.ndindex(*np.shape(grades.rewards))) if self._keeps_all else few
    if not places:
      return
    records = _records(self._task, prompts, rollout, grades, places, **trained)
    for record in records:
      record['group'] += self._num_groups
    records = [{'step': step, 'split': self._split, **record} for record in records]
    self._step = step
    self._num_groups += len(grades.rewards)
    if self._max_bytes:
      self._lines += map(_line, records)
    few = set(few)
    chosen = (record for place, record in zip(places, records, strict=True) if place in few)
    self._few += list(chosen)[: self._num_few - len(self._few)]

  def write(self) -> list[dict[str, Any]]:
    """Writes the samples of one step that were added; returns a few of them.

    Raises:
      SaveError: if they cannot be written.
    """
    lines, few = self._lines, self._few
    self._lines, self._few, self._num_groups = [], [], 0
    if lines:
      try:
        self._append(self._step, lines)
      except OSError as error:
        raise SaveError(
          f'{self._path}: step {self._step} could not be written: {error}.'
        ) from error
    return few

  def _append(self, step: int, lines: list[bytes]) -> None:
    """Appends the lines of a step, for which the oldest steps make room."""
    data = b''.join(self._fitting(step, lines))
    # Of the whole step: where it has to be cut, nothing older stays.
    surplus = sum(self._sizes.values()) + sum(map(len, lines)) - self._max_bytes
    num_dropped = 0
    for old in list(self._sizes):
      if num_dropped >= surplus:
        break
      num_dropped += self._sizes.pop(old)
    self._sizes[step] = len(data)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    if num_dropped:
      _replace(self._path, self._path.read_bytes()[num_dropped:] + data)
    else:
      with self._path.open('ab') as file:
        file.write(data)

  def _fitting(self, step: int, lines: list[bytes]) -> list[bytes]:
    """Returns the lines; if they do not fit, the first, and one that says how many do not."""
    if sum(map(len, lines)) <= self._max_bytes:
      return lines
    note = lambda number: _line({'step': step, 'split': self._split, LEFT_OUT: number})
    num_kept, size = 0, len(note(len(lines)))
    while size + len(lines[num_kept]) <= self._max_bytes:
      size += len(lines[num_kept])
      num_kept += 1
    print(
      f'{self._path}: {num_kept} of {len(lines)} samples of step {step} were kept, as the others '
      'do not fit into log.max_samples_mib.',
      file=sys.stderr,
    )
    return [*lines[:num_kept], note(len(lines) - num_kept)]


def choose(grades: Grades, num: int) -> list[tuple[int, int]]:
  """Returns the places (prompt, sample) of a few samples that show what a step is like.

  Prompts whose rewards differ come first, then the others, in their order. From each come as many
  samples as are still wanted, evenly spaced by the rank of their reward, so that the best and the
  worst are among them. A sample that was not judged ranks below all others.

  Args:
    grades: of `[P, N]` samples.
    num: how many; fewer if there are not so many.
  """
  rewards = np.asarray(grades.rewards, np.float32)
  if grades.where is not None:
    rewards = np.where(grades.where, rewards, -np.inf)
  num_samples = rewards.shape[1]
  is_uniform = rewards.max(axis=1) == rewards.min(axis=1)
  chosen = []
  for p in np.argsort(is_uniform, kind='stable'):
    size = min(num - len(chosen), num_samples)
    if not size:
      break
    ranks = np.linspace(num_samples - 1, 0, size).round().astype(int)
    chosen += [(int(p), int(i)) for i in np.argsort(rewards[p], kind='stable')[ranks]]
  return sorted(chosen)


def _records(
  task: Task,
  prompts: Prompts,
  rollout: Rollout,
  grades: Grades,
  places: list[tuple[int, int]],
  advantages: Any = None,
  k: Any = None,
) -> list[dict[str, Any]]:
  """Returns what is known of the samples at these places; see `samples.read_samples`."""
  rows = sorted({p for p, _ in places})  # Only their texts are decoded.
  row_of = {p: row for row, p in enumerate(rows)}
  prompts, rollout = jax.tree.map(lambda x: x[rows], jax.device_get((prompts, rollout)))
  texts, completions = task.texts(prompts, rollout)
  num_tokens = np.sum(rollout.completion_mask, axis=-1)
  is_truncated = task.is_truncated(rollout)
  rewards, successes, where, advantages, k = jax.device_get((*grades[:3], advantages, k))
  ks = None if k is None else np.broadcast_to(k, len(rewards))
  records = []
  for p, i in places:
    row = row_of[p]
    is_judged = where is None or bool(where[p, i])
    verdict, answer = (None, None) if grades.verdicts is None else grades.verdicts[p][i][:2]
    record = {
      'prompt_id': int(prompts.ids[row]),
      'group': p,
      'sample': i,
      'prompt': texts[row],
      'completion': completions[row][i],
      'num_tokens': int(num_tokens[row, i]),
      'is_truncated': is_truncated is not None and bool(is_truncated[row, i]),
      'verdict': verdict,
      'answer': answer,
      'reward': _number(rewards[p, i]) if is_judged else None,
      'success': bool(successes[p, i]) if is_judged and successes is not None else None,
    }
    if ks is not None:
      record |= {'advantage': _number(advantages[p, i]), 'k': int(ks[p])}
    records.append(record)
  return records


def _number(value: Any) -> float | None:
  """Returns a float32 with the fewest digits that tell it from others; None if it is not finite."""
  return float(str(np.float32(value))) if np.isfinite(value) else None


def _line(record: dict[str, Any]) -> bytes:
  return json.dumps(record, allow_nan=False).encode() + b'\n'


def _drop_from_step(path: pathlib.Path, first_step: int) -> dict[int, int]:
  """Removes lines of steps >= first_step and a half-written one; returns the bytes of each step."""
  sizes: dict[int, int] = {}
  for line, record in lines_of(path):
    if record['step'] >= first_step:
      break
    sizes[record['step']] = sizes.get(record['step'], 0) + len(line)
  size = sum(sizes.values())
  if size < path.stat().st_size:
    _replace(path, path.read_bytes()[:size])
  return sizes


def _replace(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole or not at all."""
  written = path.with_suffix('.tmp')
  written.write_bytes(data)
  written.replace(path)

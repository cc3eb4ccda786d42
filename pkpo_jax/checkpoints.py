"""Saves and resumes a run: workdir/checkpoints/."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jax.sharding import SingleDeviceSharding

from pkpo_jax import processes
from pkpo_jax.errors import DataError, MissingDataError, SaveError, WorkdirError
from pkpo_jax.settings import CheckpointSettings
from pkpo_jax.types import Snapshot, TrainState

# A checkpoint's items that are arrays; 'ahead' only where rollouts are sampled ahead.
_ARRAYS = ('params', 'optimizer', 'tally', 'key', 'ahead')
_RECORDS = ('position', 'score', 'checksums')  # Its items that are JSON.


class UnreadableCheckpoint(WorkdirError):
  """A checkpoint that is damaged: files are missing or changed."""


class Checkpoints:
  """The last checkpoints of a run, and the best one. Saving is asynchronous and atomic."""

  def __init__(self, workdir: pathlib.Path, settings: CheckpointSettings):
    """Opens workdir/checkpoints, making it if need be."""
    self._workdir, self._best_metric = workdir, settings.best_metric
    self._retention = _Retention(settings.max_to_keep)
    self._in_flight: int | None = None  # The step that is being saved.
    self._manager = _open(
      workdir, create=True, cleanup_tmp_directories=True, preservation_policy=self._retention
    )
    if self._best_metric is not None:
      self._retention.scores = _read_scores(self._manager, self._best_metric)

  def restore(self, snapshot: Snapshot) -> Snapshot:
    """Returns the newest readable snapshot in the shardings of this one; this, if none was saved.

    A state that is not returned is deleted first: two may be more than the devices hold. Newer
    checkpoints that cannot be read are named on stderr, and moved to workdir/corrupt once there
    is a snapshot to go on from.

    Raises:
      UnreadableCheckpoint: if there are checkpoints, but none can be read.
    """
    steps = self._manager.all_steps()
    if not steps:
      return snapshot
    like = jax.tree.map(_abstract, _arrays(snapshot))
    jax.tree.map(lambda x: x.delete(), snapshot.state)
    read = lambda step: _read_snapshot(self._manager, step, like)
    step, found = _newest_readable(self._manager, read)
    for newer in steps[steps.index(step) + 1 :]:
      self._set_aside(newer)
    state = TrainState(params=found['params'], **found['optimizer'])
    impl = jax.random.key_impl(snapshot.key)
    key = jax.random.wrap_key_data(found['key']['data'], impl=impl)
    return Snapshot(state, key, found['tally'], found['position'], found.get('ahead'))

  def save(self, snapshot: Snapshot, evaluation: Mapping[str, float]) -> None:
    """Starts to save `snapshot` under its step.

    Args:
      snapshot: the run after some steps.
      evaluation: metrics of that very state; may lack settings.best_metric, and then this
        checkpoint is never the best.
    """
    step = snapshot.position['step']
    score = {'name': self._best_metric, 'value': evaluation.get(self._best_metric)}
    if score['value'] is not None:
      self._retention.scores[step] = score['value']
    arrays, records = _arrays(snapshot), {'position': snapshot.position, 'score': score}
    records['checksums'] = _checksums(arrays | records)
    args = {name: ocp.args.StandardSave(item) for name, item in arrays.items()}
    args |= {name: ocp.args.JsonSave(item) for name, item in records.items()}
    with self._saving(self._in_flight):
      self._manager.wait_until_finished()
    self._in_flight = step
    with self._saving(step):
      # Without `force`, a step that should not be saved would be passed over in silence.
      self._manager.save(step, args=ocp.args.Composite(**args), force=True)

  def close(self) -> None:
    """Waits for what is being saved.

    Raises:
      SaveError: if it could not be written.
    """
    with self._saving(self._in_flight):
      self._manager.wait_until_finished()
      self._manager.close()  # It, too, raises what a thread in the background met.

  @contextlib.contextmanager
  def _saving(self, step: int | None) -> Iterator[None]:
    """Turns what writing a step raises, at once or in the background, into SaveError."""
    try:
      yield
    except Exception as error:  # Of many types: what the file system raises comes wrapped.
      cause = str(error).strip().partition('\n')[0].rstrip('.') + '.'
      rest = 'The ones before are still there, and the same command goes on from the last.'
      folder = self._manager.directory
      earlier = [x for x in self._manager.all_steps() if x != step]
      if not folder.exists() or earlier and not any((folder / str(x)).exists() for x in earlier):
        cause = f'somebody has removed {folder}.'
        rest = 'Put it back, or the same command begins at step 0.'
      raise SaveError(
        f'{self._workdir}: the checkpoint of step {step} could not be saved: {cause} {rest}'
      ) from error

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, *exception) -> None:
    # What is raised already says what is wrong.
    with contextlib.suppress(*[] if kind is None else [SaveError]):
      self.close()

  def _set_aside(self, step: int) -> None:
    """Moves a checkpoint out of the way, so that its step can be saved again."""
    processes.by_first(lambda: self._move_aside(step))
    self._retention.scores.pop(step, None)
    self._manager.reload()

  def _move_aside(self, step: int) -> None:
    """Moves the folder of a checkpoint to workdir/corrupt."""
    folder = self._workdir / 'corrupt'
    folder.mkdir(exist_ok=True)
    names = itertools.chain([str(step)], (f'{step}.{i}' for i in itertools.count(1)))
    free = next(name for name in names if not (folder / name).exists())
    (self._manager.directory / str(step)).rename(folder / free)
    print(f'Moved checkpoint {step} to {folder / free}.', file=sys.stderr)


def restore_params(
  workdir: str | pathlib.Path, like: Any, step: int | Literal['best'] | None = None
) -> tuple[int, Any]:
  """Returns a saved step of a run and its parameters, in the dtypes and shardings of `like`.

  Reads the parameters that the run trained and nothing else of it, so it does not matter which
  optimizer it had. The run may be going on.

  Args:
    workdir: the run's.
    like: the parameters as `jax.ShapeDtypeStruct`; without a sharding they go on one device.
    step: None is the newest that can be read, 'best' the best by checkpoint.best_metric, by the
      newest such metric if there were several.

  Raises:
    FileNotFoundError: if workdir, its checkpoints or this step are not there.
    ValueError: if names or shapes differ, or the checkpoint is damaged.
  """
  workdir = pathlib.Path(workdir)
  if not workdir.is_dir():
    raise MissingDataError(f'{workdir}: expected the workdir of a run, found no such folder.')
  with _open(workdir) as manager:
    steps = manager.all_steps()
    if not steps:
      raise MissingDataError(f'{workdir}: expected the workdir of a run, found no checkpoint.')
    if step == 'best':
      scores = _read_scores(manager)
      if not scores:
        raise MissingDataError(
          f'{workdir}: no checkpoint knows its evaluation; checkpoint.best_metric must be set.'
        )
      step = _best(scores)
    if step is not None and step not in steps:
      raise MissingDataError(f'{workdir}: no checkpoint of step {step}, only of {steps}.')
    read = lambda step: _read_params(manager, step, like)
    return _newest_readable(manager, read) if step is None else (step, read(step))


@dataclasses.dataclass
class _Retention:
  """Which checkpoints stay: the last `num_last`, and the one with the largest score."""

  num_last: int
  scores: dict[int, float] = dataclasses.field(default_factory=dict)

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Implements orbax's PreservationPolicy."""
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    scores = {step: self.scores[step] for step in steps if step in self.scores}
    kept = {*steps[-self.num_last :], *([_best(scores)] if scores else [])}
    return [step in kept for step in steps]


def _best(scores: Mapping[int, float]) -> int:
  """Returns the step with the largest score; the first of several."""
  return max(sorted(scores), key=scores.__getitem__)


def _open(workdir: pathlib.Path, **options) -> ocp.CheckpointManager:
  handlers = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
  handlers |= {name: ocp.JsonCheckpointHandler() for name in _RECORDS}
  return ocp.CheckpointManager(
    (workdir / 'checkpoints').absolute(),
    options=ocp.CheckpointManagerOptions(**({'create': False} | options)),
    item_handlers=handlers,
  )


def _arrays(snapshot: Snapshot) -> dict[str, Any]:
  """Returns the items of a checkpoint that are arrays; parameters can be read on their own."""
  state = snapshot.state
  ahead = {} if snapshot.ahead is None else {'ahead': snapshot.ahead}
  return ahead | {
    'params': state.params,
    'optimizer': {'step': state.step, 'opt_state': state.opt_state},
    'tally': snapshot.tally,
    'key': {'data': np.asarray(jax.random.key_data(snapshot.key))},
  }


def _abstract(x: Any) -> Any:
  """Returns what a jax.Array is restored like; a host array is its own model."""
  return ocp.utils.to_shape_dtype_struct(x) if isinstance(x, jax.Array) else x


def _read(
  manager: ocp.CheckpointManager, step: int, like: Mapping[str, Any], records: Sequence[str]
) -> dict[str, Any]:
  """Returns items of a checkpoint, those of `like` and `records`, and checks that they are whole.

  Raises:
    UnreadableCheckpoint: if they are not.
  """
  args = {name: ocp.args.StandardRestore(item) for name, item in like.items()}
  args |= {name: ocp.args.JsonRestore() for name in (*records, 'checksums')}
  try:
    # What one process cannot read, no other goes on with.
    found = processes.together(
      lambda: dict(manager.restore(step, args=ocp.args.Composite(**args)).items())
    )
    there, now = found.pop('checksums'), _checksums(found)
  except Exception as error:  # Of many types, as damage shows anywhere in the reader.
    raise _unreadable(manager, step, error) from error
  for name, checksum in now.items():
    if there.get(name) != checksum:
      raise _unreadable(manager, step, f'the checksum of {name} is wrong')
  return found


def _read_snapshot(
  manager: ocp.CheckpointManager, step: int, like: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns all items of a checkpoint but its checksums."""
  found = _read(manager, step, like, ('position', 'score'))
  if found['position']['step'] != step:
    raise _unreadable(manager, step, f'it holds step {found["position"]["step"]}')
  return found


def _read_params(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
  """Returns the parameters of a checkpoint; see `restore_params`."""
  try:
    stored = _by_name(manager.item_metadata(step)['params'])
  except Exception as error:  # As above.
    raise _unreadable(manager, step, error) from error
  wanted = _by_name(like)
  for name in sorted(stored.keys() | wanted.keys()):
    there, here = (tuple(x[name].shape) if name in x else None for x in (stored, wanted))
    if there != here:
      path = manager.directory / str(step)
      raise DataError(
        f'{path}, parameter {name}: expected {_of_shape(here)}, found {_of_shape(there)}.'
      )
  # Checksums are those of the dtypes that were saved.
  one_device = SingleDeviceSharding(jax.devices()[0])
  as_saved = jax.tree.map_with_path(
    lambda path, x: jax.ShapeDtypeStruct(
      x.shape, stored[_name(path)].dtype, sharding=x.sharding or one_device
    ),
    like,
  )
  found = _read(manager, step, {'params': as_saved}, ())['params']
  return jax.tree.map(lambda x, model: x.astype(model.dtype), found, like)


def _newest_readable(manager: ocp.CheckpointManager, read: Callable[[int], Any]) -> tuple[int, Any]:
  """Returns the newest step that can be read, and what `read` gave; names newer ones on stderr.

  Raises:
    UnreadableCheckpoint: if none can be read.
  """
  errors = []
  for step in reversed(manager.all_steps()):
    try:
      return step, read(step)
    except UnreadableCheckpoint as error:
      errors.append(str(error))
      print(error, file=sys.stderr)
  raise UnreadableCheckpoint(
    f'{manager.directory}: none of the checkpoints can be read ({" ".join(errors)}) Put good '
    'copies there, or begin again in another workdir.'
  )


def _read_scores(manager: ocp.CheckpointManager, metric: str | None = None) -> dict[int, float]:
  """Returns the score of each step that has one; names those that cannot be read on stderr.

  Args:
    manager: the checkpoints.
    metric: which score; those of another metric do not count. None is that of the newest checkpoint
      that has a score.
  """
  scores = {}
  for step in reversed(manager.all_steps()):
    try:
      score = _read(manager, step, {}, ('score',))['score']
    except UnreadableCheckpoint as error:
      print(f'{error} It does not count as the best.', file=sys.stderr)
      continue
    if score['value'] is None:
      continue
    metric = metric or score['name']
    if score['name'] == metric:
      scores[step] = score['value']
  return scores


def _checksums(items: Mapping[str, Any]) -> dict[str, int]:
  """Returns a checksum of each array and each record, by name.

  What orbax and tensorstore read is not checked by them: a changed byte gives other numbers.
  """
  sums = {}
  for item, content in items.items():
    if item in _RECORDS:
      sums[item] = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    else:
      named = _by_name(content)
      values = processes.to_host(_sums_of_bits(list(named.values()))).tolist()
      sums |= {f'{item}/{name}': value for name, value in zip(named, values, strict=True)}
  return sums


@jax.jit
def _sums_of_bits(arrays: list[jax.Array]) -> jax.Array:
  return jnp.stack([_sum_of_bits(x) for x in arrays])


def _sum_of_bits(x: jax.Array) -> jax.Array:
  """Returns sum_i (2 i + 1) * (the bits of x_i), modulo 2^32.

  Changes if one element does, as the factors are odd; the same however x is split over devices.
  """
  if x.dtype == bool:
    bits = x.astype(jnp.uint32)
  else:
    width = 8 * min(x.dtype.itemsize, 4)
    bits = lax.bitcast_convert_type(x, f'uint{width}').astype(jnp.uint32)
  index = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    index = index * np.uint32(size) + lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
  return jnp.sum((2 * index + 1) * bits, dtype=jnp.uint32)


def _by_name(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their names, such as 'head/kernel'."""
  return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _of_shape(shape: tuple[int, ...] | None) -> str:
  return 'none' if shape is None else f'one of shape {shape}'


def _unreadable(
  manager: ocp.CheckpointManager, step: int, reason: Exception | str
) -> UnreadableCheckpoint:
  if isinstance(reason, Exception):
    reason = f'{type(reason).__name__}: {str(reason).strip().partition("\n")[0]}'
  path = manager.directory / str(step)
  return UnreadableCheckpoint(f'Cannot read checkpoint {path}: {reason.rstrip(".")}.')

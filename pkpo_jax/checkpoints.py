"""Saves and resumes a run: workdir/config.json and workdir/checkpoints/."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from pkpo_jax.settings import CheckpointSettings
from pkpo_jax.types import TrainState


class Checkpoints:
  """The newest training states of a run. Saving is asynchronous and atomic."""

  def __init__(self, workdir: pathlib.Path, settings: CheckpointSettings):
    """Opens workdir/checkpoints, making it if need be."""
    self._manager = ocp.CheckpointManager(
      (workdir / 'checkpoints').absolute(),
      options=ocp.CheckpointManagerOptions(max_to_keep=settings.max_to_keep, create=True),
    )

  def restore(self, state: TrainState) -> TrainState:
    """Returns the newest saved state in the shardings of `state`, or `state` if there is none.

    A `state` that is not returned is deleted first: two may be more than the devices hold.
    """
    step = self._manager.latest_step()
    if step is None:
      return state
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    jax.tree.map(lambda x: x.delete(), state)
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def save(self, state: TrainState) -> None:
    """Starts to save `state` under its step."""
    self._manager.save(int(state.step), args=ocp.args.StandardSave(state))

  def close(self) -> None:
    """Waits for what is being saved."""
    self._manager.wait_until_finished()
    self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *exception) -> None:
    self.close()


def restore_params(workdir: str, like: Any) -> Any:
  """Returns the newest parameters in `workdir`, in the shapes and shardings of `like`."""
  path = pathlib.Path(workdir).absolute() / 'checkpoints'
  with ocp.CheckpointManager(path) as manager:
    whole = manager.restore(manager.latest_step())
  return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), whole['params'], like)


def claim_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Writes workdir/config.json, or checks that the run that is there had the same config.

  Raises:
    ValueError: if workdir belongs to a run with another config; names the fields that differ.
  """
  path = workdir / 'config.json'
  config = json.loads(json.dumps(config))
  if path.exists():
    old, new = flatten(json.loads(path.read_text())), flatten(config)
    fields = sorted(f for f in old.keys() | new.keys() if old.get(f) != new.get(f))
    if fields:
      differences = '; '.join(f'{f}: {old.get(f)!r} there, {new.get(f)!r} now' for f in fields)
      raise ValueError(f'workdir: {workdir} holds a run with another config: {differences}.')
  elif jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2) + '\n')


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns nested dicts as one dict with dotted names; an empty one inside stays as it is."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping) and value:
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat

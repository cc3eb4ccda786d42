"""Several processes of one run: how they find each other, what each does, and what they exchange.

JAX is the distributed engine: every process runs the same program on its own devices, and arrays
span the devices of all. What is on the host (prompts, grades, metrics) every process has in whole,
and it is the same everywhere; only grading is shared out. With one process all of this is free.
"""

import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from pkpo_jax.errors import FieldError, OtherProcessError, expect

# Without a sign of life for so long JAX itself gives a process up; see `pkpo_jax.watch`.
_HEARTBEAT_S = 50


def connect(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  from_environment: bool = False,
) -> None:
  """Makes this process one of several; does nothing where no argument asks for that.

  To be called before anything else uses JAX. Returns once all processes are there.

  Args:
    coordinator_address: 'host:port' of the first process, on which all others reach it.
    num_processes: how many there are.
    process_id: which of them this is, from 0 on.
    from_environment: take all three from what started the processes: a TPU pod, SLURM, Kubernetes
      or MPI.

  Raises:
    FieldError: if only some of the three are given, one is out of range, or the environment has
      none of them.
  """
  given = {
    'coordinator_address': coordinator_address,
    'num_processes': num_processes,
    'process_id': process_id,
  }
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given) and not from_environment:
    return
  expect(
    not from_environment or len(missing) == len(given),
    'from_environment',
    f'no {", ".join(x for x in given if x not in missing)} beside it',
    from_environment,
  )
  if not from_environment:
    if missing:
      raise FieldError(missing[0], 'expected a value, as others of the three are given, got None.')
    expect(num_processes >= 1, 'num_processes', 'at least 1', num_processes)
    is_one = 0 <= process_id < num_processes
    expect(is_one, 'process_id', f'0 to num_processes - 1 = {num_processes - 1}', process_id)
    port = coordinator_address.rpartition(':')[2]
    expect(port.isdigit(), 'coordinator_address', 'host:port', coordinator_address)
  # A run looks for SIGTERM itself, and saves then; see `pkpo_jax.stopping`.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(**given, heartbeat_timeout_seconds=_HEARTBEAT_S)
  except ValueError as error:
    expect(not from_environment, 'from_environment', f'processes to be found ({error})', True)
    raise


def count() -> int:
  """Returns how many processes there are."""
  return jax.process_count()


def is_first() -> bool:
  """Returns whether this process is the one that writes files and speaks for all.

  A process that is not connected is alone; it does not make jax look for devices to say so.
  """
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def put(tree: Any, sharding: NamedSharding | None) -> Any:
  """Returns arrays of the host, the same in every process, on the devices.

  Args:
    tree: arrays.
    sharding: how they are split over the devices of all processes; None is one device.
  """
  if count() == 1:
    return jax.device_put(tree, sharding)

  def place(x):
    x = np.asarray(x)
    # Not device_put, which compares the array between processes.
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(place, tree)


def to_host(tree: Any) -> Any:
  """Returns arrays of the devices as NumPy's, whole in every process; all have to call it."""
  if count() == 1:
    return jax.device_get(tree)

  def fetch(x):
    is_spread = isinstance(x, jax.Array) and not x.is_fully_addressable
    return multihost_utils.process_allgather(x, tiled=True) if is_spread else jax.device_get(x)

  return jax.tree.map(fetch, tree)


def gather(value: Any) -> list[Any]:
  """Returns the values of all processes, in their order; all have to call it.

  Args:
    value: of this process; anything that can be pickled.
  """
  if count() == 1:
    return [value]
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(data.size)).ravel()
  # A power of two, as each length is a program of its own.
  padded = np.zeros(1 << int(lengths.max() - 1).bit_length(), np.uint8)
  padded[: data.size] = data
  rows = multihost_utils.process_allgather(padded)
  return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, lengths, strict=True)]


def any_of(flag: bool) -> bool:
  """Returns whether the flag of any process is True; all have to call it."""
  if count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def together[T](function: Callable[[], T]) -> T:
  """Returns what a function gives in this process, once all processes have called it.

  Raises:
    OtherProcessError: if the function has raised in another process but not in this one.
    Exception: what the function raises in this process.
  """
  result = error = None
  try:
    result = function()
  except Exception as raised:
    error = raised
  messages = gather(error and f'{type(error).__name__}: {error}')
  if error is not None:
    raise error
  for process, message in enumerate(messages):
    if message is not None:
      raise OtherProcessError(f'process {process} of {count()}: {message}')
  return result


def by_first(function: Callable[[], Any]) -> None:
  """Calls a function in the first process, while the others wait; all have to call it.

  Raises:
    OtherProcessError: in the other processes, if the function raises.
    Exception: what the function raises, in the first.
  """
  together(function if is_first() else lambda: None)


def share(size: int) -> np.ndarray:
  """Returns the indices of the part of `size` items that this process does; all do all of them."""
  return np.array_split(np.arange(size), count())[jax.process_index()]


def leave() -> NoReturn:
  """Ends this process with exit code 1, and does not wait for what others or threads still do."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)

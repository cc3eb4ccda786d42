"""The processes of a run watch each other: when one is gone, the others stop and say which.

Without that they would wait in a collective operation, on a TPU for ever. Each process shows in a
file of the workdir, which all of them share, that it is alive: a number that grows.
"""

import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any

import jax

from pkpo_jax import processes
from pkpo_jax.errors import USER_ERRORS, WorkdirError

_EVERY_S = 2.0  # Between signs of life.
# Without a sign for so long a process is gone. A shared file system may be slow, and a process may
# be stuck for some seconds in the operating system.
_DEADLINE_S = 40.0


class Watch:
  """A context manager that keeps the processes of a run together; nothing with one process.

  Should another process die, hang or fail, it says so on stderr and ends this one with code 1,
  wherever this one waits. Should this one fail, the others learn why.
  """

  def __init__(self, workdir: pathlib.Path):
    """Starts nothing yet."""
    self._folder = workdir / 'processes'
    self._is_over, self._lock = threading.Event(), threading.Lock()
    self._record = {'host': socket.gethostname(), 'pid': os.getpid(), 'count': 0, 'state': 'runs'}

  def __enter__(self) -> 'Watch':
    if processes.count() > 1:
      processes.by_first(lambda: _empty(self._folder))
      processes.together(self._begin)
      self._thread = threading.Thread(target=self._watch, daemon=True)
      self._thread.start()
    return self

  def _begin(self) -> None:
    """Gives the first sign of life; raises WorkdirError where the workdir is not shared."""
    if not self._folder.is_dir():
      raise WorkdirError(
        f'workdir: expected a folder that all processes share, but {self._folder}, made by the '
        'first, is not there.'
      )
    self._own = self._path(jax.process_index()).open('w')
    fcntl.flock(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    self._write()

  def __exit__(
    self, kind: type | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if processes.count() == 1:
      return
    if kind is None or isinstance(error, SystemExit) and not error.code:
      processes.any_of(False)  # Nobody leaves before all are here.
      self._write('done')
      self._is_over.set()
      self._thread.join()
      self._own.close()
      return
    if isinstance(error, jax.errors.JaxRuntimeError):
      # Most likely because another process is gone: the thread finds out which, and ends this one.
      time.sleep(_DEADLINE_S + 3 * _EVERY_S)
    if isinstance(error, USER_ERRORS):
      print(error, file=sys.stderr)
    else:
      traceback.print_exception(kind, error, trace)
    self._write('failed', f'{kind.__name__}: {error}'.partition('\n')[0])
    _exit()  # On the way out, JAX would wait for the others.

  def _path(self, process: int) -> pathlib.Path:
    return self._folder / f'{process}.json'

  def _write(self, state: str | None = None, reason: str = '') -> None:
    """Writes this process's file in place, so that it stays locked."""
    with self._lock:  # The thread writes, too.
      if state is not None:
        self._record |= {'state': state, 'reason': reason}
      self._record['count'] += 1
      self._own.seek(0)
      self._own.write(json.dumps(self._record) + '\n')
      self._own.truncate()
      self._own.flush()

  def _watch(self) -> None:
    """Gives signs of life and looks for those of the others, until the run is over."""
    others = [i for i in range(processes.count()) if i != jax.process_index()]
    last: dict[int, tuple[int, float]] = {i: (0, time.monotonic()) for i in others}
    known: dict[int, dict[str, Any]] = {}
    while not self._is_over.wait(_EVERY_S):
      self._write()
      for i in list(others):
        known[i] = record = self._read(i) or known.get(i, {})
        count, since = last[i]
        if record.get('count', 0) != count:
          count, since = last[i] = record['count'], time.monotonic()
        if record.get('state') == 'done':
          others.remove(i)
          continue
        silent = time.monotonic() - since
        if record.get('state') == 'failed':
          self._stop(i, record, f'has failed: {record["reason"]}')
        elif self._is_dead(i, record):
          self._stop(i, record, 'has died')
        elif silent > _DEADLINE_S:
          self._stop(i, record, f'has given no sign of life for {silent:.0f} s')

  def _read(self, process: int) -> dict[str, Any] | None:
    """Returns the record of a process, None where it cannot be read just now."""
    try:
      return json.loads(self._path(process).read_text())
    except (OSError, ValueError):
      return None

  def _is_dead(self, process: int, record: dict[str, Any]) -> bool:
    """Returns whether a process of this host is gone, and its lock with it."""
    if record.get('host') != socket.gethostname():
      return False
    with self._path(process).open() as file:
      try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
      except BlockingIOError:
        return False
      # It may have written its last words since.
      return (self._read(process) or record)['state'] == 'runs'

  def _stop(self, process: int, record: dict[str, Any], what: str) -> None:
    place = f'{record["host"]}, pid {record["pid"]}' if record else 'never seen'
    print(
      f'Process {process} of {processes.count()} ({place}) {what}. Process {jax.process_index()} '
      'stops; the same command goes on from the last checkpoint.',
      file=sys.stderr,
    )
    _exit()


def _empty(folder: pathlib.Path) -> None:
  """Makes a folder, and removes what earlier processes left there."""
  folder.mkdir(exist_ok=True)
  for path in folder.iterdir():
    path.unlink()


def _exit() -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)

"""The processes of a run watch each other: when one is gone, the others stop and say which.

Without that they would wait in a collective operation, on a TPU for ever. Beside each process runs
`watch_main.py`, which outlives it: it shows in a file of the workdir, which all processes share,
how its process is, and looks at the files of the others.
"""

import json
import pathlib
import subprocess
import sys
import threading
import time
import traceback
from types import TracebackType

import jax

from pkpo_jax import processes
from pkpo_jax.errors import USER_ERRORS, WorkdirError
from pkpo_jax.watch_main import DEADLINE_S, EVERY_S

_MAIN = pathlib.Path(__file__).with_name('watch_main.py')


class Watch:
  """A context manager that keeps the processes of a run together; nothing with one process.

  Should another process die, hang or fail, a line on stderr says so and this one ends with code 1,
  wherever it waits. Should this one fail, the others learn why.
  """

  def __init__(self, workdir: pathlib.Path):
    """Starts nothing yet."""
    self._folder = workdir / 'processes'
    self._lock = threading.Lock()  # Of what is said to the companion.

  def __enter__(self) -> 'Watch':
    if processes.count() > 1:
      processes.by_first(lambda: _empty(self._folder))
      processes.together(self._begin)
    return self

  def _begin(self) -> None:
    """Starts the companion; raises WorkdirError where the workdir is not shared."""
    if not self._folder.is_dir():
      raise WorkdirError(
        f'workdir: expected a folder that all processes share, but {self._folder}, made by the '
        'first, is not there.'
      )
    place = [str(self._folder), str(jax.process_index()), str(processes.count())]
    self._companion = subprocess.Popen(
      [sys.executable, '-P', str(_MAIN), *place],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      start_new_session=True,  # What ends this process should not end it, too.
    )
    self._say('alive')
    for target in (self._give_signs, self._obey):
      threading.Thread(target=target, daemon=True).start()

  def __exit__(
    self, kind: type | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    if processes.count() == 1:
      return
    if kind is None or isinstance(error, SystemExit) and not error.code:
      processes.any_of(False)  # Nobody leaves before all are here.
      self._say('done')
      self._companion.wait()
      return
    if _may_be_of_others(error):
      # The companion finds out which process is gone, if one is, and this one ends.
      time.sleep(DEADLINE_S + 3 * EVERY_S)
    if isinstance(error, USER_ERRORS):
      print(error, file=sys.stderr)
    else:
      traceback.print_exception(kind, error, trace)
    self._say('failed', f'{kind.__name__}: {error}'.partition('\n')[0])
    self._companion.wait()
    processes.leave()  # On the way out, JAX would wait for the others.

  def _say(self, state: str, reason: str = '') -> None:
    """Tells the companion how this process is."""
    line = json.dumps({'state': state, 'reason': reason}) + '\n'
    with self._lock:
      self._companion.stdin.write(line.encode())
      self._companion.stdin.flush()

  def _give_signs(self) -> None:
    while self._companion.poll() is None:
      try:
        self._say('alive')
      except OSError:  # It has come to its end meanwhile.
        return
      time.sleep(EVERY_S)

  def _obey(self) -> None:
    """Ends this process when the companion says so."""
    if self._companion.stdout.readline():
      processes.leave()


def _may_be_of_others(error: BaseException) -> bool:
  """Returns whether an error may be that of a collective operation that another process has left.

  Those of CPUs, by Gloo, come as errors of several types.
  """
  return isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error)


def _empty(folder: pathlib.Path) -> None:
  """Makes a folder, and removes what earlier processes left there."""
  folder.mkdir(exist_ok=True)
  for path in folder.iterdir():
    path.unlink()

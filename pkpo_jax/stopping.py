"""SIGTERM asks a run to stop; the training loop looks whether it has come."""

import signal
import threading
from collections.abc import Callable
from types import FrameType


class _Interrupted(BaseException):
  """Ends a call early; no Exception, so that nothing on the way takes it for a failure."""


class Stopping:
  """Whether SIGTERM has come since the `with` statement was entered.

  The signal's former handler is put back on leaving. Signals reach the main thread alone: in
  others this does nothing.
  """

  def __init__(self, interrupts: bool = True):
    """Takes whether `interruptible` ends early; not where other processes join in the work."""
    self.requested = False
    self._interrupts, self._may_interrupt = interrupts, False

  def interruptible(self, function: Callable, *args):
    """Returns function(*args), or None if SIGTERM has come or comes meanwhile and ends the call.

    For work that leaves nothing half done. A signal waits until the Python interpreter is in
    control again: what a compiled program has begun, it ends.
    """
    if not self._interrupts:
      return function(*args)
    try:
      self._may_interrupt = True
      if self.requested:
        return None
      result = function(*args)
      self._may_interrupt = False
      return result
    except _Interrupted:
      return None
    finally:
      self._may_interrupt = False

  def _handle(self, signum: int, frame: FrameType | None) -> None:
    self.requested = True
    if self._may_interrupt:
      self._may_interrupt = False  # Once.
      raise _Interrupted

  def __enter__(self) -> 'Stopping':
    self._in_main_thread = threading.current_thread() is threading.main_thread()
    if self._in_main_thread:
      self._former = signal.signal(signal.SIGTERM, self._handle)
    return self

  def __exit__(self, *exception) -> None:
    if self._in_main_thread:
      # None is a handler that was not set from Python, and cannot be put back.
      signal.signal(signal.SIGTERM, self._former or signal.SIG_DFL)

"""Worker processes for verifiers whose code may hang, crash or eat up memory."""

import collections
import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

from pkpo_jax.errors import expect

START_DEADLINE_S = 120  # Until a worker has imported its libraries, from a cold disk.
MAX_REPLY_BYTES = 2**24
_EXIT_DEADLINE_S = 5  # From the end of a worker's last words to that of the worker.
# What a process does not bring upon itself by what it computes.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_MAIN = pathlib.Path(__file__).with_name('worker_main.py')
_LENGTH = struct.Struct('>I')


class Reply(NamedTuple):
  """What became of an item.

  Attributes:
    status: 'done'; 'timeout', not done at its deadline; 'crashed', its worker came to its end by
      itself, twice: at a limit of its memory or CPU, by a fault, by leaving, or with words that are
      no reply; 'killed', somebody else ended its worker, twice: the kernel that was out of memory,
      an operator, another process.
    value: what the worker's handler returned; None if it is not done.
  """

  status: str
  value: Any = None


class WorkerPool:
  """Processes that each handle one item at a time, and are killed when one takes too long.

  A worker is a Python file with `make_handler(*arguments)` that returns `handle(item) -> value`,
  items and values being JSON. `worker_main.py` runs it, in an interpreter and a session of its own,
  without this package. The pool keeps the deadlines, in whatever thread `map` is called. A worker
  is replaced after `items_per_worker` items, and when it hangs, dies or answers what is no reply.
  An item whose worker died is tried once more, in a fresh one. Workers start when there is work for
  them and end with the pool, with `close` or with this process, however that ends.

  What is not done says nothing of the item, unless the handler makes sure that the item is to
  blame: where it keeps limits of its own, below those of the pool, a worker that has 'crashed' was
  brought to that by its item, twice. 'timeout' and 'killed' are the pool's own failures.

  A pool that cannot work raises: before its first items, and after a batch of which no more than
  half was done, it handles `checks`, whose values are known.
  """

  def __init__(
    self,
    worker: pathlib.Path,
    num_workers: int,
    deadline_s: float,
    items_per_worker: int,
    checks: Sequence[tuple[Any, Any]],
    memory_mib: int | None = None,
    arguments: Sequence[str] = (),
  ):
    """Starts nothing yet.

    Args:
      worker: the Python file.
      num_workers: processes at a time.
      deadline_s: seconds that an item may take, by the clock on the wall.
      items_per_worker: items until a worker is replaced, as libraries' caches grow.
      checks: items, each with the value that the worker has to return.
      memory_mib: address space of a worker and of each process it starts; None: no limit.
      arguments: of the worker's `make_handler`.
    """
    expect(worker.is_file(), 'worker', 'a Python file', str(worker))
    expect(num_workers >= 1, 'num_workers', 'at least 1', num_workers)
    expect(deadline_s > 0, 'deadline_s', 'more than 0', deadline_s)
    expect(items_per_worker >= 1, 'items_per_worker', 'at least 1', items_per_worker)
    expect(len(checks) >= 1, 'checks', 'at least one', checks)
    expect(memory_mib is None or memory_mib >= 1, 'memory_mib', 'at least 1', memory_mib)
    self._worker, self._num_workers, self._deadline_s = worker, num_workers, deadline_s
    self._items_per_worker, self._checks, self._is_checked = items_per_worker, checks, False
    self._arguments = [str(deadline_s), str(memory_mib or 0), *arguments]
    self._last_words = ''
    self._idle: list[_Worker] = []
    # Also when nobody closes the pool, and when the interpreter exits.
    weakref.finalize(self, _kill_all, self._idle)

  def __enter__(self) -> 'WorkerPool':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def close(self) -> None:
    """Ends all workers; a later `map` starts new ones."""
    _kill_all(self._idle)

  def map(self, items: Sequence[Any]) -> list[Reply]:
    """Returns what became of each item, in order; one call at a time.

    An exception, KeyboardInterrupt too, leaves no worker behind.

    Raises:
      RuntimeError: if the handler raised (with its traceback), a worker cannot be started, or
        `checks` fail.
    """
    if not items:
      return []
    if not self._is_checked:
      self.check()
      self._is_checked = True
    replies = self._run(items)
    if sum(reply.status == 'done' for reply in replies) <= len(replies) / 2:
      self.check()
    return replies

  def check(self) -> None:
    """Raises RuntimeError if the workers do not say of `checks` what they should."""
    items, values = zip(*self._checks, strict=True)
    for item, value, reply in zip(items, values, self._run(items), strict=True):
      if reply != Reply('done', value):
        self.close()
        raise RuntimeError(
          f'{self._worker}: the check {item!r} should give {value!r}, got {reply}.'
          f'{self._last_words}'
        )

  def _run(self, items: Sequence[Any]) -> list[Reply]:
    todo = collections.deque((i, _encode(item)) for i, item in enumerate(items))
    replies, died = [Reply('timeout')] * len(items), set()
    busy: dict[_Worker, tuple[int, bytes]] = {}
    self._last_words = ''
    try:
      while todo or busy:
        while todo and len(busy) < self._num_workers:
          i, message = todo.popleft()
          if i in died:
            _kill_all(self._idle)
          worker = self._idle.pop() if self._idle else _Worker(self._worker, self._arguments)
          busy[worker] = i, message
          worker.give(message, self._deadline_s)
        first_deadline = min(worker.deadline for worker in busy)
        connection.wait(list(busy), max(0.0, first_deadline - time.monotonic()))
        for worker in list(busy):
          reply = worker.receive()
          if reply is None:
            continue
          i, message = busy.pop(worker)
          if reply.status in ('crashed', 'killed') and i not in died:
            died.add(i)
            todo.appendleft((i, message))
          else:
            replies[i] = reply
          if reply.status == 'done' and worker.num_items < self._items_per_worker:
            self._idle.append(worker)
          else:
            self._last_words = worker.last_words()
            worker.kill()
    except BaseException:
      self._idle.extend(busy)
      self.close()
      raise
    return replies


class _Worker:
  """A process that has at most one item at a time.

  Attributes:
    deadline: of what it is doing, by time.monotonic.
    num_items: how many it was given.
  """

  def __init__(self, worker: pathlib.Path, arguments: Sequence[str]):
    """Starts the process and does not wait until it is ready."""
    self.num_items, self.deadline = 0, time.monotonic() + START_DEADLINE_S
    self._worker, self._is_ready, self._received = worker, False, bytearray()
    self._stderr = tempfile.TemporaryFile()
    self._socket, theirs = socket.socketpair()
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, '-P', str(_MAIN), str(worker), *arguments],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=self._stderr,
        start_new_session=True,  # An interrupt from the keyboard does not reach it.
      )

  def fileno(self) -> int:
    """Returns what to wait for."""
    return self._socket.fileno()

  def give(self, message: bytes, deadline_s: float) -> None:
    """Gives it an item as soon as it is ready; the item's time runs from then on."""
    self._message, self._deadline_s = message, deadline_s
    self.num_items += 1
    if self._is_ready:
      self._send()

  def _send(self) -> None:
    self.deadline = time.monotonic() + self._deadline_s
    self._socket.settimeout(self._deadline_s)
    with contextlib.suppress(OSError):  # It is dead or does not read, and will not reply.
      self._socket.sendall(self._message)

  def receive(self) -> Reply | None:
    """Returns what became of the item, None as long as that is open.

    Raises:
      RuntimeError: if the process does not start or its handler raised.
    """
    is_late = time.monotonic() >= self.deadline
    try:
      message = self._next_message()
    except OSError:
      return self._without_reply('timeout' if is_late else self._end())
    except (RecursionError, ValueError):
      return self._without_reply('timeout' if is_late else 'crashed')
    if message is None:
      return self._without_reply('timeout') if is_late else None
    if not self._is_ready:
      self._is_ready = True
      self._send()
      return None
    if 'error' in message:
      raise RuntimeError(
        f'{self._worker}: {message["error"]}The item: {self._message[_LENGTH.size :][:500]!r}.'
      )
    return Reply('done', message['value'])

  def _next_message(self) -> dict[str, Any] | None:
    """Returns the message that has come, None as long as it is not whole.

    Raises:
      OSError: if the other end of the socket is closed.
      RecursionError, ValueError: if it is none of `worker_main.py`.
    """
    self._socket.setblocking(False)
    try:
      received = self._socket.recv(2**16)
    except BlockingIOError:
      return None
    if not received:
      raise ConnectionResetError
    self._received += received
    if len(self._received) < _LENGTH.size:
      return None
    (length,) = _LENGTH.unpack_from(self._received)
    expect(length <= MAX_REPLY_BYTES, 'reply', f'at most {MAX_REPLY_BYTES} bytes', length)
    if len(self._received) < _LENGTH.size + length:
      return None
    message = json.loads(self._received[_LENGTH.size :])
    self._received.clear()
    names = [['value'], ['error']] if self._is_ready else [[]]
    is_known = isinstance(message, dict) and list(message) in names
    expect(is_known, 'reply', f'one of {names}', message)
    return message

  def _without_reply(self, status: str) -> Reply:
    if not self._is_ready:
      raise RuntimeError(f'{self._worker}: a worker did not start: {status}.{self.last_words()}')
    return Reply(status)

  def _end(self) -> str:
    """Returns how the process ended, whose end of the socket is closed: 'crashed' or 'killed'."""
    try:
      code = self._process.wait(_EXIT_DEADLINE_S)
    except subprocess.TimeoutExpired:  # It hangs in its end, or nobody lets it run.
      return 'killed'
    return 'killed' if -code in _FROM_OUTSIDE else 'crashed'

  def last_words(self) -> str:
    """Returns a sentence with the end of what the process wrote to its stderr."""
    self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4000))
    return f' Its stderr ends in:\n{self._stderr.read().decode(errors="replace")}'

  def kill(self) -> None:
    """Ends the process and what it has started in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # It may have ended by itself.
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()
    self._socket.close()
    self._stderr.close()


def _kill_all(workers: list[_Worker]) -> None:
  """Ends all workers of a list and empties it."""
  while workers:
    workers.pop().kill()


def _encode(item: Any) -> bytes:
  """Returns the message with an item, for `worker_main.py`."""
  text = json.dumps(item).encode('ascii')
  return _LENGTH.pack(len(text)) + text

"""Calls of functions in another process, one that may lie in every word.

As a program, this file is the other process: `python remote_calls.py CPU_S MEMORY_MIB` limits
itself, says {} and then runs the source that it is sent and calls what that defines, as it is told.
As a module, it has `RemoteProgram`, what tells it.

Messages are JSON behind their length in 4 bytes. Values cross as plain data, rebuilt on this side:
None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range, and
iterators with what they yield; subclasses (Counter, a namedtuple, an IntEnum) as what they derive
from. An object that would compare equal to everything has no way to cross. Arguments are copies: a
function that changes one changes nothing here.

Loaded by path, too, in processes that do without the rest of pkpo_jax: imports nothing from it.
"""

import builtins
import io
import json
import os
import resource
import select
import struct
import sys
import time
import types
from collections.abc import Iterator, MappingView
from typing import Any

START_DEADLINE_S = 30.0  # Until the other process is ready, on a machine with much else to do.
MAX_MESSAGE_BYTES = 2**22
_MAX_OPEN_FILES = 64
_LENGTH = struct.Struct('>I')
_COLLECTIONS = {'tuple': tuple, 'set': set, 'frozenset': frozenset}


class CannotCrossError(TypeError):
  """A value is none of those that cross."""


class Ended(BaseException):  # noqa: N818 - no error of this side
  """The other process hangs ('timeout') or is gone or talks nonsense ('crashed')."""


def encode(value: Any) -> Any:
  """Returns what json.dumps takes.

  Raises:
    CannotCrossError: if there is something else than plain data in it.

  >>> encode((1, {'a': [None]}))
  {'tuple': [1, {'dict': [['a', [None]]]}]}
  """
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, list):
    return [encode(x) for x in value]
  for tag, kind in _COLLECTIONS.items():
    if isinstance(value, kind):
      return {tag: [encode(x) for x in value]}
  if isinstance(value, dict):
    return {'dict': [[encode(k), encode(v)] for k, v in value.items()]}
  if isinstance(value, complex):
    return {'complex': [value.real, value.imag]}
  if isinstance(value, (bytes, bytearray)):
    return {'bytes': value.hex()}
  if isinstance(value, range):
    return {'range': [value.start, value.stop, value.step]}
  if isinstance(value, (Iterator, MappingView)):
    return {'iterator': [encode(x) for x in value]}
  raise CannotCrossError(f'a value of type {type(value).__name__} cannot cross')


def decode(message: Any) -> Any:
  """Returns the value of what `encode` returned; raises almost anything for what it did not.

  >>> decode({'tuple': [1, {'dict': [['a', [None]]]}]})
  (1, {'a': [None]})
  """
  if isinstance(message, list):
    return [decode(x) for x in message]
  if not isinstance(message, dict):
    return message
  ((tag, content),) = message.items()
  if tag in _COLLECTIONS:
    return _COLLECTIONS[tag](decode(x) for x in content)
  if tag == 'dict':
    return {decode(k): decode(v) for k, v in content}
  return {
    'complex': lambda: complex(*content),
    'bytes': lambda: bytes.fromhex(content),
    'range': lambda: range(*content),
    'iterator': lambda: iter([decode(x) for x in content]),
  }[tag]()


class RemoteProgram:
  """A program in another process.

  Attributes:
    ended: 'timeout' or 'crashed' once it has; it is not asked any more.
  """

  def __init__(self, requests: int, replies: int):
    """Waits until the process is ready, so that its start takes none of the program's time.

    Args:
      requests: file descriptor to write to.
      replies: file descriptor to read from.

    Raises:
      Ended: if it does not come to that; the program is not to blame.
    """
    self.ended = None
    self._requests, self._replies = requests, replies
    os.set_blocking(requests, False)
    os.set_blocking(replies, False)
    self._deadline = time.monotonic() + START_DEADLINE_S
    if self._receive() != {}:
      raise Ended('crashed')

  def load(self, source: str, deadline_s: float) -> bool:
    """Runs the source and returns whether it came to its end, rather than raise something.

    Args:
      source: defines the functions.
      deadline_s: seconds for this and all calls together.

    Raises:
      Ended: if the process has.
    """
    self._deadline = time.monotonic() + deadline_s
    _, error = self._exchange({'source': source})
    return error is None

  def call(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Returns `name(*args, **kwargs)`.

    Raises:
      CannotCrossError: if an argument cannot cross.
      Ended: if the process has.
      BaseException: of the type that the function raises, or of what that derives from; a TypeError
        if its result cannot cross.
    """
    message = {'call': name, 'args': encode(args), 'kwargs': encode(kwargs)}
    value, error = self._exchange(message)
    if error is not None:
      raise error
    return value

  def _exchange(self, message: dict[str, Any]) -> tuple[Any, BaseException | None]:
    """Returns a value, or what the program raised."""
    if self.ended:
      raise Ended(self.ended)
    data = json.dumps(message).encode('ascii')
    try:
      self._send(_LENGTH.pack(len(data)) + data)
      ((kind, content),) = self._receive().items()
      if kind == 'value':
        return decode(content), None
      return None, _exception(**content)
    except Ended as end:
      (self.ended,) = end.args
      raise
    except Exception as nonsense:
      self.ended = 'crashed'
      raise Ended('crashed') from nonsense

  def _send(self, data: bytes) -> None:
    while data:
      self._wait(self._requests, select.POLLOUT)
      data = data[os.write(self._requests, data) :]

  def _receive(self) -> Any:
    (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
    if length > MAX_MESSAGE_BYTES:
      raise Ended('crashed')
    return json.loads(self._read(length))

  def _read(self, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
      self._wait(self._replies, select.POLLIN)
      received = os.read(self._replies, size - len(data))
      if not received:
        raise Ended('crashed')
      data += received
    return bytes(data)

  def _wait(self, fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, 1000 * (self._deadline - time.monotonic()))):
      raise Ended('timeout')


def _exception(names, text) -> BaseException:
  """Returns an exception of the first of these types that is Python's and takes just a text."""
  for name in names:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
      try:
        return kind(text)
      except TypeError:
        continue
  raise ValueError(names)


# What follows runs in the other process.


class _Nowhere(io.RawIOBase):
  def writable(self) -> bool:
    return True

  def write(self, data) -> int:
    return len(data)


def _serve(cpu_s: str, memory_mib: str) -> None:
  """Answers until nobody asks."""
  for limit, value in (
    (resource.RLIMIT_AS, int(memory_mib) * 2**20),
    (resource.RLIMIT_CPU, int(cpu_s)),
    (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NPROC, 0),
  ):
    resource.setrlimit(limit, (value, value))
  requests, replies = os.dup(0), os.dup(1)
  for fd in (0, 1, 2):
    os.close(fd)
  # Nothing to read; what the program prints is lost, without a device that would take it.
  sys.stdin = io.TextIOWrapper(io.BytesIO())
  sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Nowhere()))
  _write(replies, {})
  module = types.ModuleType('program')
  sys.modules['program'] = module  # Where dataclasses look for it.
  while header := _read_exactly(requests, _LENGTH.size):
    message = json.loads(_read_exactly(requests, *_LENGTH.unpack(header)))
    try:
      reply = {'value': _answer(module, message)}
      if len(json.dumps(reply)) > MAX_MESSAGE_BYTES:
        raise OverflowError('the result is too large to cross')
    except BaseException as error:
      names = [kind.__name__ for kind in type(error).__mro__]
      reply = {'error': {'names': names, 'text': str(error)[:1000]}}
    _write(replies, reply)


def _answer(module: types.ModuleType, message: dict[str, Any]) -> Any:
  if 'source' in message:
    exec(compile(message['source'], '<program>', 'exec', dont_inherit=True), vars(module))
    return None
  if message['call'] not in vars(module):
    raise NameError(f'name {message["call"]!r} is not defined')
  function = vars(module)[message['call']]
  return encode(function(*decode(message['args']), **decode(message['kwargs'])))


def _write(fd: int, message: dict[str, Any]) -> None:
  text = json.dumps(message).encode('ascii')
  data = _LENGTH.pack(len(text)) + text
  while data:
    data = data[os.write(fd, data) :]


def _read_exactly(fd: int, size: int) -> bytes:
  """Returns so many bytes, or none at the end."""
  data = b''
  while len(data) < size:
    received = os.read(fd, size - len(data))
    if not received:
      return b''
    data += received
  return data


if __name__ == '__main__':
  _serve(*sys.argv[1:])

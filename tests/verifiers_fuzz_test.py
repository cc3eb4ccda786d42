"""The verifiers against checkers that share nothing with them, on 20,000 completions and more."""

import functools
import itertools
import random
import re
from collections import Counter

import numpy as np
import pytest

from pkpo_jax.tasks.countdown import draw_countdown, infix, verify_countdown
from pkpo_jax.tasks.grades import KINDS, Verdict
from pkpo_jax.tasks.maze import draw_maze, shortest_way, verify_maze

# Those of verifiers that judge in this process.
PURE_KINDS = set(KINDS) - {'timeout', 'crashed', 'unjudged'}
NUM_CASES = 11_000  # Of each verifier.

# Independent checkers. They return 'right', 'wrong' or, for what is no answer, None.


def check_maze(rows, text):
  """Walks over the set of free cells, column + 1j * row."""
  moves = re.fullmatch(r'\s*([UDLR]+)\s*', text)
  if not moves:
    return None
  free = {complex(c, r): cell for r, row in enumerate(rows) for c, cell in enumerate(row)}
  free = {place: cell for place, cell in free.items() if cell != '*'}
  place = next(place for place, cell in free.items() if cell == 'S')
  steps = dict(U=-1j, D=1j, L=-1, R=1)
  places = list(itertools.accumulate((steps[m] for m in moves[1]), initial=place))
  return 'right' if free.keys() >= set(places) and free[places[-1]] == 'E' else 'wrong'


def check_countdown(numbers, target, text):
  """Shunts operators to a stack, ahead of which values wait as pairs of whole numbers."""
  tokens = re.findall(r'[0-9]+|[-+*/()]|\S', text)
  values, waiting, used = [], [], Counter()
  rank = {'(': 0, '+': 1, '-': 1, '*': 2, '/': 2, 'negate': 3}

  def apply(operator):
    if operator == 'negate':
      n, d = values.pop()
      return values.append((-n, d))
    (c, d), (a, b) = values.pop(), values.pop()
    values.append(
      {
        '+': (a * d + c * b, b * d),
        '-': (a * d - c * b, b * d),
        '*': (a * c, b * d),
        '/': (a * d, b * c * bool(d)),  # 1 / (1 / 0) is no number either
      }[operator]
    )

  expects_term = True
  for token in tokens:
    if expects_term and re.fullmatch('0+|[1-9][0-9]*', token):
      values.append((int(token), 1))
      used[int(token)] += 1
      expects_term = False
    elif expects_term and token in '(-':
      waiting.append('(' if token == '(' else 'negate')
    elif not expects_term and token == ')':
      while waiting and waiting[-1] != '(':
        apply(waiting.pop())
      if not waiting:
        return None
      waiting.pop()
    elif not expects_term and token in '+-*/':
      while waiting and rank[waiting[-1]] >= rank[token]:
        apply(waiting.pop())
      waiting.append(token)
      expects_term = True
    else:
      return None
  if expects_term or '(' in waiting:
    return None
  while waiting:
    apply(waiting.pop())
  ((n, d),) = values
  return 'right' if d and n == target * d and used == Counter(numbers) else 'wrong'


def expected_kinds(checker, problem, text, max_length):
  """Returns what kinds a verdict may have, by a checker that is asked only what is not too long."""
  if len(text) > max_length:
    return {'overlong'}
  if re.fullmatch(r'\s*', text):
    return {'empty'}
  answer = checker(*problem, text)
  return {answer} if answer else {'malformed', 'hostile'}


# Problems.


def problems_of(draw, count):
  """Returns `count` problems of a generator that rejects some."""
  rng = np.random.default_rng(0)
  return list(itertools.islice(filter(None, (draw(rng) for _ in itertools.count())), count))


@functools.cache
def mazes():
  """Returns pairs of a maze and a right answer."""
  rows = [
    rows
    for size in (2, 3, 5)
    for rows in problems_of(lambda rng, size=size: draw_maze(rng, size, 0.3, 1, 9), 6)
  ]
  rng = np.random.default_rng(0)
  return [(maze, shortest_way(maze, rng)) for maze in rows]


@functools.cache
def countdowns():
  """Returns triples of numbers, a target and a right answer."""
  found = [
    problem
    for n in (2, 3, 4)
    for problem in problems_of(lambda rng, n=n: draw_countdown(rng, n, 12, 99), 2)
  ]
  # With numbers left out, used twice or rounded these can be had more easily.
  easy = [((2, 3), 1, '3-2'), ((3, 4), 1, '4-3'), ((1, 2, 3), 6, '1*2*3'), ((2, 2, 4), 4, '2*4/2')]
  return easy + [(problem.numbers, problem.target, infix(problem.solution)) for problem in found]


# Completions.

HOSTILE = [
  "__import__('os').system('x')",
  'eval("1+1")',
  '().__class__.__base__.__subclasses__()',
  '9**9**9',
  '2**-1',
  '7//2',
  '7%2',
  '1<<9999999',
  'lambda: 0',
  '(lambda x: x(x))(lambda x: x(x))',
  '[x for x in ().__class__.__bases__]',
  '(x:=3)',
  '3 if 1 else 2',
  '1if 1else 2',
  '3 is 3',
  '3or 2',
  '3 < 5 < 7',
  'not 0',
  '~3',
  '+3',
  'True',
  'None',
  '...',
  'nan',
  'f"{3}"',
  '"{}".format(3)',
  '"%s" % 3',
  'b"3"',
  '"\\d"',
  '3.0',
  '1e9',
  '3j',
  '0x10',
  '0b1',
  '0o7',
  '007',
  '00',
  '1_0',
  '3,',
  '(3, 5)',
  '{3: 5}',
  'x[0]',
  '3 # 5',
  '# 5',
  '3 \\\n + 5',
  '(3 +\n 5)',
  '3; 5',
  'await 3',
  'yield 3',
  '*3',
  'print(3)',
  'import os',
  '\x00',
  '3\x00+5',
  '\ud800',
  '\udfff+3',
  '３＋５',
  '٣+٥',
  '3×5',
  '3−5',
  '²',
  '¹+1',
  'Ⅷ',
  '3\u200b+5',
  '\u202e3+5\u202c',
  '\ufeff3',
  '3\u00a0+\u20285',
  '9' * 100,
  '9' * 5000,
  '(' * 60 + '3' + ')' * 60,
  '(' * 10_000 + '3' + ')' * 10_000,
  '-' * 100 + '3',
  '-' * 10_000 + '3',
  '[' * 100,
  '(' * 128,
  '1**' * 40,
  'f(*' * 40,
  'R\x00D',
  'ＲＤ',
  'rd',
  'R,D',
  'right',
  '→↓',
  '\u202eDR',
  'RD' * 5000,
  '',
  ' ',
  '\t\n\x0b\x0c\r\x1c\x85\u2003\u2029',
]
WRAPS = [
  ' {} ',
  '\n{}\n',
  '\u3000{}\x1f',
  'The answer is {}',
  '{}.',
  '{} is right',
  '"{}"',
  '`{}`',
  '\\boxed{{{}}}',
  '({})',
  '(({}))',
  '-(-({}))',
  '{}={}',
  '{} {}',
  '{}\n{}',
  '{}{}',
  '{}+0',
  '{}*1',
  '1*{}',
  '{}#',
  '{}\x00',
  '\ud800{}',
  '{},',
  '[{}][0]',
  'int({})',
  '{} or 0',
]


def mutated(answer, alphabet, rng):
  """Returns an answer with one to three characters deleted, replaced, inserted or moved."""
  text = list(answer)
  for _ in range(rng.randint(1, 3)):
    i = rng.randrange(len(text) + 1)
    kind = rng.randrange(4)
    text[i : i + (kind < 2)] = [rng.choice(alphabet)] if kind else []
    if kind == 3 and len(text) > 1:
      text.insert(rng.randrange(len(text)), text.pop(rng.randrange(len(text))))
  return ''.join(text)


def random_way(way, rng):
  """Returns random moves, or a way with detours of one move and back, some of them forbidden."""
  if rng.random() < 0.5:
    return ''.join(rng.choices('UDLR', k=rng.randint(1, 16)))
  moves = list(way)
  for _ in range(rng.randint(1, 2)):
    moves.insert(rng.randrange(len(moves) + 1), rng.choice(['UD', 'DU', 'LR', 'RL']))
  return ''.join(moves)


def random_expression(numbers, rng):
  """Returns numbers, most often those given and each once, joined by random operators."""
  terms = rng.sample([str(n) for n in numbers], len(numbers))
  if rng.random() < 0.2:
    terms[0] = terms[-1]
  while len(terms) > 1:
    a, b = terms.pop(), terms.pop()
    joined = rng.choice(['{}+{}', '{} - {}', '{}*{}', '{}/{}', '-{}/{}']).format(a, b)
    terms.insert(rng.randrange(len(terms) + 1), rng.choice(['{}', '({})']).format(joined))
  return terms[0]


def random_text(rng, max_length):
  """Returns characters of all planes, surrogates too, half of them ASCII."""
  tops = (0x80, 0x110000)
  return ''.join(chr(rng.randrange(rng.choice(tops))) for _ in range(rng.randint(0, max_length)))


def random_completion(rng, answer, alphabet, parts, random_answer):
  """Returns a completion, often one that is almost right.

  Args:
    rng: draws.
    answer: a right answer.
    alphabet: characters to mutate it with.
    parts: what answers are made of.
    random_answer: rng -> an answer, right or wrong.
  """
  hostile = rng.choice(HOSTILE)
  makers = [
    lambda: random_text(rng, 30),
    lambda: ''.join(rng.choices(alphabet, k=rng.randint(0, 20))),
    lambda: ''.join(rng.choices(parts, k=rng.randint(0, 16))),
    lambda: hostile,
    lambda: ''.join(rng.sample([hostile, answer], 2)),
    lambda: f'{answer}+({hostile})',
    lambda: rng.choice(WRAPS).format(answer, answer),
    lambda: answer * rng.randint(1, 200),
    *[lambda: mutated(answer, alphabet, rng)] * 3,
    *[lambda: random_answer(rng)] * 5,
  ]
  return rng.choice(makers)()


@functools.cache
def maze_cases():
  """Returns NUM_CASES pairs of a problem and a completion."""
  rng, cases = random.Random(0), []
  for _ in range(NUM_CASES):
    maze, way = rng.choice(mazes())
    random_answer = functools.partial(random_way, way)
    text = random_completion(rng, way, 'UDLRudlr ESx\n', 'UDLR', random_answer)
    cases.append(((maze,), text))
  return cases


@functools.cache
def countdown_cases():
  """Returns NUM_CASES pairs of a problem and a completion."""
  rng, cases = random.Random(0), []
  for _ in range(NUM_CASES):
    numbers, target, answer = rng.choice(countdowns())
    parts = [*map(str, numbers), *map(str, numbers), *'+-*/()']
    random_answer = functools.partial(random_expression, numbers)
    text = random_completion(rng, answer, '0123456789+-*/() .=_x\n', parts, random_answer)
    cases.append(((numbers, target), text))
  return cases


def check(cases, max_length, checker, verify):
  """Compares a verifier with a checker on completions; returns how many of each kind.

  Args:
    cases: pairs (problem, completion), problems being tuples of arguments.
    max_length: fn(*problem) -> characters beyond which a completion is overlong.
    checker: fn(*problem, text) -> 'right', 'wrong' or None.
    verify: fn(*problem, text) -> Verdict.
  """
  counts = Counter()
  for problem, text in cases:
    verdict = verify(*problem, text)
    kinds = expected_kinds(checker, problem, text, max_length(*problem))
    assert verdict.kind in kinds & set(KINDS), f'{verdict} of {text!r} for {problem}'
    assert (verdict.answer is None) == (verdict.kind not in ('right', 'wrong'))
    assert verdict.reward == (verdict.kind == 'right')
    counts[verdict.kind] += 1
  return counts


def check_mazes(verify, num_cases):
  max_length = lambda rows: 4 * len(rows) * len(rows[0])
  return check(maze_cases()[:num_cases], max_length, check_maze, verify)


def check_countdowns(verify, num_cases):
  return check(countdown_cases()[:num_cases], lambda *_: 128, check_countdown, verify)


# The tests.


def test_maze_verifier_accepts_what_leads_to_the_end_and_nothing_else():
  counts = check_mazes(verify_maze, NUM_CASES)
  assert counts.total() >= NUM_CASES
  assert min(counts[kind] for kind in PURE_KINDS - {'hostile'}) > 50, counts


def test_countdown_verifier_accepts_what_reaches_the_target_and_nothing_else():
  counts = check_countdowns(verify_countdown, NUM_CASES)
  assert counts.total() >= NUM_CASES
  assert min(counts[kind] for kind in PURE_KINDS) > 50, counts


def test_every_way_of_up_to_six_moves_through_small_mazes():
  num_right = 0
  for maze in (('S.', '*E'), ('S.E', '.*.', '...'), ('ES', '..'), ('*E*', '.S.', '**.')):
    for length in range(1, 7):
      for moves in map(''.join, itertools.product('UDLR', repeat=length)):
        verdict = verify_maze(maze, moves)
        assert verdict == Verdict(check_maze(maze, moves), moves)
        num_right += verdict.kind == 'right'
  assert num_right > 50


def test_every_string_of_up_to_five_symbols_against_the_checker():
  numbers, target, num_right = (2, 3), 6, 0
  for length in range(1, 6):
    for text in map(''.join, itertools.product('23*/-()', repeat=length)):
      kind = verify_countdown(numbers, target, text).kind
      assert kind in expected_kinds(check_countdown, (numbers, target), text, 128), text
      num_right += kind == 'right'
  assert num_right > 10


# What would be noticed.


def _without_walls(rows, text):
  return verify_maze([row.replace('*', '.') for row in rows], text)


def _without_an_end(rows, text):
  verdict = verify_maze(rows, text)
  if verdict.kind != 'wrong':
    return verdict
  everywhere = [row.replace('.', 'E') for row in rows]
  return Verdict(verify_maze(everywhere, text).kind, verdict.answer)


def _with_a_rest_behind_the_end(rows, text):
  verdict = verify_maze(rows, text)
  if verdict.kind != 'wrong':
    return verdict
  starts = [verify_maze(rows, verdict.answer[:i]).kind for i in range(len(verdict.answer))]
  return Verdict('right' if 'right' in starts else 'wrong', verdict.answer)


def _around_the_edge(rows, text):
  verdict, size = verify_maze(rows, text), len(rows)
  if verdict.kind != 'wrong':
    return verdict
  r, c = next((r, row.index('S')) for r, row in enumerate(rows) if 'S' in row)
  for move in verdict.answer:
    r, c = r + (move == 'D') - (move == 'U'), c + (move == 'R') - (move == 'L')
    if rows[r % size][c % size] == '*':
      return verdict
  return Verdict('right' if rows[r % size][c % size] == 'E' else 'wrong', verdict.answer)


def _in_lower_case(rows, text):
  return verify_maze(rows, text.upper())


def _somewhere_in_the_text(rows, text):
  verdict = verify_maze(rows, text)
  found = re.findall('[UDLR]+', text)
  return verify_maze(rows, found[-1]) if verdict.kind == 'malformed' and found else verdict


@pytest.mark.parametrize(
  'verify',
  [
    _without_walls,
    _without_an_end,
    _with_a_rest_behind_the_end,
    _around_the_edge,
    _in_lower_case,
    _somewhere_in_the_text,
    lambda rows, text: Verdict(verify_maze(rows, text).kind, text),  # An answer that is none.
    lambda rows, text: verify_maze(rows, ''.join(text.split())),  # Gaps between moves.
    lambda rows, text: verify_maze(rows, text[: 4 * len(rows) ** 2]),  # Overlong.
  ],
)
def test_broken_maze_verifiers_are_noticed(verify):
  with pytest.raises(AssertionError, match='Verdict|answer'):
    check_mazes(verify, 3000)


def _judged(numbers, target, text, is_right):
  """Returns the verdict with another opinion on what is right among answers."""
  verdict = verify_countdown(numbers, target, text)
  if verdict.answer is None:
    return verdict
  return Verdict('right' if is_right(verdict.answer) else 'wrong', verdict.answer)


def _evaluated(answer):
  try:
    return eval(answer)  # Of digits, operators and parentheses only.
  except ZeroDivisionError:
    return None


def _used(answer):
  return [int(number) for number in re.findall(r'\d+', answer)]


def _numbers_used_twice(numbers, target, text):
  is_right = lambda x: _evaluated(x) == target and set(_used(x)) == set(numbers)
  return _judged(numbers, target, text, is_right)


def _numbers_left_out(numbers, target, text):
  is_right = lambda x: _evaluated(x) == target and not Counter(_used(x)) - Counter(numbers)
  return _judged(numbers, target, text, is_right)


def _any_numbers(numbers, target, text):
  return _judged(numbers, target, text, lambda x: _evaluated(x) == target)


def _any_value(numbers, target, text):
  return _judged(numbers, target, text, lambda x: sorted(_used(x)) == sorted(numbers))


def _any_sign(numbers, target, text):
  negative = verify_countdown(numbers, -target, text)
  return negative if negative.kind == 'right' else verify_countdown(numbers, target, text)


def _rounded(numbers, target, text):
  def is_right(answer):
    value = _evaluated(answer)
    return value is not None and int(value) == target and sorted(_used(answer)) == sorted(numbers)

  return _judged(numbers, target, text, is_right)


def _python(numbers, target, text):
  verdict = verify_countdown(numbers, target, text)
  if verdict.kind != 'hostile' or not re.fullmatch(r'[0-9+*/()-]{,12}', text) or '**' in text:
    return verdict
  return verify_countdown(numbers, target, text.replace('//', '/'))


def _in_parts(numbers, target, text):
  verdict = verify_countdown(numbers, target, text)
  return verify_countdown(numbers, target, text.split('=')[0]) if '=' in text else verdict


@pytest.mark.parametrize(
  'verify',
  [
    _numbers_used_twice,
    _numbers_left_out,
    _any_numbers,
    _any_value,
    _any_sign,
    _rounded,
    _python,
    _in_parts,
    lambda numbers, target, text: verify_countdown(numbers, target, text.replace('_', '')),
    lambda numbers, target, text: verify_countdown(numbers, target, text.split('#')[0]),
    lambda numbers, target, text: verify_countdown(numbers, target, ''.join(text.split())),
    lambda numbers, target, text: verify_countdown(numbers, target, text[:128]),
  ],
)
def test_broken_countdown_verifiers_are_noticed(verify):
  with pytest.raises(AssertionError, match='Verdict'):
    check_countdowns(verify, 3000)


def test_exceptions_of_a_verifier_are_noticed():
  with pytest.raises(UnicodeEncodeError):
    check_mazes(lambda rows, text: verify_maze(rows, text.encode().decode()), 3000)

"""Countdown: its generator, prompts and demonstrations, and what its verifier says of cases."""

import ast
import builtins
import itertools
import operator
import re
import sys
import warnings
from fractions import Fraction

import jax
import numpy as np
import pytest

from configs import countdown_tiny
from pkpo_jax.settings import Settings, build
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.countdown import (
  MAX_LENGTH,
  Countdown,
  CountdownTask,
  draw_countdown,
  infix,
  verify_countdown,
)
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import decode_completions
from pkpo_jax.tokenizers import CharacterTokenizer

FUNCTIONS = {'+': operator.add, '-': operator.sub, '*': operator.mul, '/': operator.truediv}


def task_of(**fields):
  settings = dict(
    tokenizer=CharacterTokenizer(),
    seed=0,
    num_train=60,
    num_held_out=40,
    num_numbers=3,
    max_number=20,
    max_target=99,
    demonstration_noise=0.3,
  )
  return CountdownTask(**settings | fields)


def problems_of(task):
  """Returns (numbers, target) by the prompts: of problems to train on, of those held out."""
  tokens = task.prompts_of(np.arange(task.num_problems + task.num_held_out)).tokens
  problems = []
  for row in tokens:
    numbers, target = re.fullmatch(r'([\d ]+)=(\d+):', task.tokenizer.decode(row)).groups()
    problems.append((tuple(map(int, numbers.split(' '))), int(target)))
  return problems[: task.num_problems], problems[task.num_problems :]


def reachable(numbers):
  """Returns all values that expressions with each of the numbers have."""
  values = {(Fraction(n),): {Fraction(n)} for n in numbers}
  for size in range(2, len(numbers) + 1):
    for chosen in set(itertools.combinations(sorted(map(Fraction, numbers)), size)):
      values[chosen] = set()
      for places in itertools.product((False, True), repeat=size):
        left = tuple(n for n, place in zip(chosen, places, strict=True) if place)
        right = tuple(n for n, place in zip(chosen, places, strict=True) if not place)
        for a, b in itertools.product(values.get(left, ()), values.get(right, ())):
          values[chosen] |= {a + b, a - b, a * b} | ({a / b} if b else set())
  return values[tuple(sorted(map(Fraction, numbers)))]


def value_of(text):
  """Returns the value of an expression as Python has it, None if it divides by zero."""
  try:
    return eval(re.sub(r'(\d+)', r'Fraction(\1)', text))
  except ZeroDivisionError:
    return None


# The generator.


def test_reachable_values():
  assert reachable((3, 5)) == {8, 2, -2, 15, Fraction(3, 5), Fraction(5, 3)}
  assert 24 in reachable((3, 3, 8, 8))  # 8 / (3 - 8 / 3)
  assert 24 not in reachable((1, 1, 1, 1))


@pytest.mark.parametrize(
  'fields',
  [
    {},
    dict(num_numbers=2, max_number=9, max_target=30),
    dict(num_numbers=4, max_number=99, max_target=500, num_train=20, num_held_out=10),
    dict(max_target=3),
  ],
)
def test_problems_are_as_configured(fields):
  task = task_of(**fields)
  assert task.objectives == ('pass@k',)
  train, held_out = problems_of(task)
  sizes = (fields.get('num_train', 60), fields.get('num_held_out', 40))
  assert (len(train), len(held_out)) == (task.num_problems, task.num_held_out) == sizes
  assert len({*train, *held_out}) == sum(sizes), 'distinct, and so no problem is in both'
  for numbers, target in train + held_out:
    assert len(numbers) == fields.get('num_numbers', 3)
    assert list(numbers) == sorted(numbers), 'or an order of the same numbers might be held out'
    assert 1 <= numbers[0] <= numbers[-1] <= fields.get('max_number', 20)
    assert 1 <= target <= fields.get('max_target', 99)
    assert target in reachable(numbers)


def test_two_problems_are_one_if_numbers_and_target_are():
  problem = Countdown((3, 5, 7), 22, (3, 5, '*', 7, '+'))
  assert problem == Countdown((3, 5, 7), 22, (7, 5, 3, '*', '+'))
  assert len({problem, Countdown((3, 5, 7), 22, ()), Countdown((3, 5, 7), 23, ())}) == 2


def test_numbers_targets_and_operators_are_all_drawn():
  rng = np.random.default_rng(0)
  draws = [draw_countdown(rng, 3, 6, 40) for _ in range(4000)]
  found = [problem for problem in draws if problem]
  assert {n for problem in found for n in problem.numbers} == set(range(1, 7))
  assert {problem.target for problem in found} >= set(range(1, 31))
  symbols = [x for problem in found for x in problem.solution if x in FUNCTIONS]
  assert all(symbols.count(x) > len(symbols) / 20 for x in FUNCTIONS)
  texts = [infix(problem.solution) for problem in found]
  assert {bool(re.search(r'/\(.*/|/\d/|\(\d/\d\)', text)) for text in texts} == {True, False}


def test_problems_depend_on_the_seed_alone():
  train, held_out = problems_of(task_of())
  assert problems_of(task_of(demonstration_noise=0.9)) == (train, held_out)
  more, same = problems_of(task_of(num_train=200))
  assert same == held_out
  assert more[:60] == train
  assert len({*train, *problems_of(task_of(seed=1))[0]}) > 110


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(num_numbers=1), 'num_numbers: expected 2 to 6, got 1'),
    (dict(num_numbers=7), 'num_numbers: expected 2 to 6, got 7'),
    (dict(max_number=0), 'max_number: expected 1 to 9999, got 0'),
    (dict(max_number=10_000), 'max_number: .*got 10000'),
    (dict(max_target=0), 'max_target: expected at least 1, got 0'),
    (dict(demonstration_noise=-0.1), 'demonstration_noise: .*got -0.1'),
    (dict(num_train=0), 'num_train: expected at least 1, got 0'),
    (dict(num_held_out=1), 'num_held_out: expected at least 2, got 1'),
    (dict(seed=-1), 'seed: expected at least 0, got -1'),
    # 1 1 1 makes 1, 2 and 3.
    (dict(max_number=1), 'num_train: .*num_held_out = 40: 3 distinct problems were found.*got 60'),
  ],
)
def test_impossible_problems_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    task_of(**fields)


# Expressions.


def random_postfix(rng, num_numbers):
  """Returns a random postfix expression and its value, by a stack."""
  symbols, depth = [], 0
  while len(symbols) < 2 * num_numbers - 1:
    numbers_left = num_numbers - sum(isinstance(x, int) for x in symbols)
    if depth >= 2 and (not numbers_left or rng.random() < 0.5):
      symbols.append(str(rng.choice(list(FUNCTIONS))))
      depth -= 1
    else:
      symbols.append(int(rng.integers(1, 10)))
      depth += 1
  stack = []
  for symbol in symbols:
    if isinstance(symbol, int):
      stack.append(Fraction(symbol))
      continue
    right, left = stack.pop(), stack.pop()
    if None in (left, right) or (symbol == '/' and not right):
      stack.append(None)
    else:
      stack.append(FUNCTIONS[symbol](left, right))
  return symbols, stack[0]


def test_infix_has_the_value_of_postfix_and_no_needless_parentheses():
  rng = np.random.default_rng(0)
  num_parentheses = 0
  for _ in range(2000):
    symbols, value = random_postfix(rng, int(rng.integers(1, 7)))
    text = infix(symbols)
    if value is not None:
      assert value_of(text) == value, (symbols, text)
    assert re.findall(r'\d+', text) == [str(x) for x in symbols if isinstance(x, int)]
    num_parentheses += text.count('(')
    # Python's own printer keeps those of a+(b-c) and a*(b/c), which change nothing.
    assert text.count('(') <= ast.unparse(ast.parse(text)).count('(')
  assert num_parentheses > 500


@pytest.mark.parametrize(
  'symbols, text',
  [
    ((12,), '12'),
    ((3, 5, '*', 7, '+'), '3*5+7'),
    ((3, 5, 7, '+', '*'), '3*(5+7)'),
    ((3, 5, '+', 7, '*'), '(3+5)*7'),
    ((3, 5, 7, '-', '-'), '3-(5-7)'),
    ((3, 5, 7, '+', '-'), '3-(5+7)'),
    ((3, 5, '-', 7, '-'), '3-5-7'),
    ((3, 5, 7, '-', '+'), '3+5-7'),
    ((3, 5, 7, '/', '/'), '3/(5/7)'),
    ((3, 5, 7, '*', '/'), '3/(5*7)'),
    ((3, 5, 7, '/', '*'), '3*5/7'),
    ((3, 5, 7, '/', '-'), '3-5/7'),
  ],
)
def test_infix(symbols, text):
  assert infix(symbols) == text


# Prompts and demonstrations.


def test_a_prompt_is_the_numbers_and_the_target():
  task = task_of(num_numbers=2, max_number=9, max_target=9, num_train=20)
  assert task.prompt_text(Countdown((3, 5, 17), 22, ())) == '3 5 17=22:'
  ((numbers, target), *_), _ = problems_of(task)
  digit = lambda n: 20 + n  # '0' is the 17th printable character, and the first has id 4.
  ids = [2, digit(numbers[0]), 4, digit(numbers[1]), 33, digit(target), 30]
  (tokens,) = task.prompts_of(np.array([0])).tokens
  assert tokens.tolist() == [0] * 9 + ids


def demonstrated(task, num_samples, max_new_tokens=12):
  """Returns numbers, target and text of each demonstration of each problem to train on."""
  prompts = task.prompts_of(np.arange(task.num_problems))
  rollout = task.demonstrations(prompts, num_samples, max_new_tokens, jax.random.key(0))
  texts = decode_completions(task.tokenizer, rollout)
  problems, _ = problems_of(task)
  return [(*problems[p], text) for p, group in enumerate(texts) for text in group]


def test_demonstrations_without_noise_are_right():
  for numbers, target, text in demonstrated(task_of(demonstration_noise=0.0), 2):
    assert value_of(text) == target
    assert verify_countdown(numbers, target, text) == Verdict('right', text)


def test_noise_replaces_operators_and_orders():
  def share_right(noise):
    cases = demonstrated(task_of(demonstration_noise=noise), 20)
    for numbers, _, text in cases:
      assert sorted(map(int, re.findall(r'\d+', text))) == list(numbers)
    verdicts = [verify_countdown(*case) for case in cases]
    assert {verdict.kind for verdict in verdicts} == {'right', 'wrong'}
    return np.mean([verdict.reward for verdict in verdicts])

  # Right at least if both operators and the order stay, by chance or not.
  lower = (1 - 0.75 * 0.3) ** 2 * (1 - 0.3 * 5 / 6)
  error = np.sqrt(0.25 / 1200)
  assert lower - 4 * error < share_right(0.3) < lower + 0.2
  # One pair of operators in sixteen, and what else is right by luck.
  assert 1 / 16 / 6 < share_right(1.0) < 0.3


def test_only_orders_or_only_operators_may_be_replaced():
  task = task_of(demonstration_noise=0.3)
  problem = Countdown((2, 5, 11), 99, (11, 2, 5, '-', '*'))
  rng = np.random.default_rng(0)
  texts = {task.demonstrate(problem, rng) for _ in range(500)}
  assert {'11*(2-5)', '5*(2-11)', '11+2-5', '11*2*5'} <= texts
  assert len(texts) > 40


# The verifier.


@pytest.mark.parametrize(
  'completion, verdict',
  [
    ('3*5+7', Verdict('right', '3*5+7')),
    ('7+5*3', Verdict('right', '7+5*3')),
    (' ( 3 * 5 )\n+ 7 ', Verdict('right', '(3*5)+7')),
    ('3*5\n+7', Verdict('right', '3*5+7')),
    ('3*5\u2003+7\u2028', Verdict('right', '3*5+7')),
    ('-3*-5+7', Verdict('right', '-3*-5+7')),
    ('7-3*-5', Verdict('right', '7-3*-5')),
    ('--7+5*3', Verdict('right', '--7+5*3')),
    ('7/(1/3)', Verdict('wrong', '7/(1/3)')),
    ('3+5+7', Verdict('wrong', '3+5+7')),
    ('15+7', Verdict('wrong', '15+7')),
    ('22', Verdict('wrong', '22')),
    ('3*5', Verdict('wrong', '3*5')),
    ('3*5+7+7-7', Verdict('wrong', '3*5+7+7-7')),
    ('3/(5-5)+7', Verdict('wrong', '3/(5-5)+7')),
    ('7/0', Verdict('wrong', '7/0')),
    ('00', Verdict('wrong', '00')),
    ('', Verdict('empty')),
    ('\t \u3000\n', Verdict('empty')),
    ('3*5+', Verdict('malformed')),
    ('3*5+7)', Verdict('malformed')),
    ('(3*5+7', Verdict('malformed')),
    ('3*5 7', Verdict('malformed')),
    ('3*5+7=22', Verdict('malformed')),
    ('22=3*5+7', Verdict('malformed')),
    ('3*5+7;', Verdict('malformed')),
    ('3*05+7', Verdict('malformed')),
    ('the answer is 3*5+7', Verdict('malformed')),
    ('`3*5+7`', Verdict('malformed')),
    ('3*5+7.', Verdict('hostile')),  # 7. is a number, but no whole one.
    ('3×5+7', Verdict('malformed')),
    ('３*５+７', Verdict('malformed')),
    ('٣*٥+٧', Verdict('malformed')),
    ('\u202e3*5+7', Verdict('malformed')),
    ('3*5+7\x00', Verdict('malformed')),
    ('3*5+7\ud800', Verdict('malformed')),
    ('\ufeff3*5+7', Verdict('malformed')),
    ('3*5+7\\', Verdict('malformed')),
    ('import os', Verdict('malformed')),
    ('*3', Verdict('malformed')),
    ('lambda', Verdict('malformed')),
    ('x', Verdict('hostile')),
    ('"22"', Verdict('hostile')),
    ('f"{3*5+7}"', Verdict('hostile')),
    ('__import__("os").system("x")', Verdict('hostile')),
    ('().__class__', Verdict('hostile')),
    ('()', Verdict('hostile')),
    ('3,5,7', Verdict('hostile')),
    ('[3*5+7][0]', Verdict('hostile')),
    ('(lambda: 22)()', Verdict('hostile')),
    ('3(5)+7', Verdict('hostile')),
    ('3 .real*5+7', Verdict('hostile')),
    ('(x:=3)*5+7', Verdict('hostile')),
    ('3*5+7 if 1 else 0', Verdict('hostile')),
    ('3*5+7or 0', Verdict('hostile')),
    ('3*5+7 == 22', Verdict('hostile')),
    ('+3*5+7', Verdict('hostile')),
    ('~3*5+7', Verdict('hostile')),
    ('3**5+7', Verdict('hostile')),
    ('9**9**9**9', Verdict('hostile')),
    ('3//5+7', Verdict('hostile')),
    ('3%5+7', Verdict('hostile')),
    ('3@5', Verdict('hostile')),
    ('1<<99999', Verdict('hostile')),
    ('3.0*5+7', Verdict('hostile')),
    ('3e0*5+7', Verdict('hostile')),
    ('3*5+7+0j', Verdict('hostile')),
    ('0x3*5+7', Verdict('hostile')),
    ('3*5+0b111', Verdict('hostile')),
    ('1_5+7', Verdict('hostile')),
    ('3*5+7 # because', Verdict('hostile')),
    ('True*3*5+7', Verdict('hostile')),
    ('...', Verdict('hostile')),
    ('9' * 128, Verdict('wrong', '9' * 128)),
    ('9' * 129, Verdict('overlong')),
    ('9' * 100_000, Verdict('overlong')),
    ('-' * 127 + '3', Verdict('wrong', '-' * 127 + '3')),
    ('(' * 63 + '3' + ')' * 63, Verdict('wrong', '(' * 63 + '3' + ')' * 63)),
    ('(' * 128, Verdict('malformed')),
    ('(' * 10_000 + '3' + ')' * 10_000, Verdict('overlong')),
    ('3*5+7' + ' ' * 123, Verdict('right', '3*5+7')),
    ('3*5+7' + ' ' * 124, Verdict('overlong')),
  ],
)
def test_verdicts(completion, verdict):
  with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter('always')
    assert verify_countdown((3, 5, 7), 22, completion) == verdict
  assert not found


def test_each_number_counts_as_often_as_it_is_given():
  assert verify_countdown((2, 2, 3), 7, '2*2+3').kind == 'right'
  assert verify_countdown((2, 3, 4), 7, '2*2+3').kind == 'wrong'
  assert verify_countdown((2, 2, 3), 6, '2*3').kind == 'wrong'
  assert verify_countdown((12,), 12, '12').kind == 'right'
  assert verify_countdown((1, 2), 12, '12').kind == 'wrong'


def test_values_are_exact():
  assert verify_countdown((3, 3, 8, 8), 24, '8/(3-8/3)').kind == 'right'
  assert 8 / (3 - 8 / 3) != 24
  near = f'{10**17 + 1}/{10**17}'
  assert verify_countdown((10**17 + 1, 10**17), 1, near).kind == 'wrong'
  assert (10**17 + 1) / 10**17 == 1


@pytest.mark.parametrize('text', ['1if 1else 2', '0x1or 2', '3 is 3', '"\\d"', '(1)is(2)'])
def test_warnings_of_the_parser_change_nothing(text):
  """Python warns of these on standard error, or refuses them if warnings are errors."""
  kinds = set()
  for action in ('error', 'always', 'ignore'):
    with warnings.catch_warnings(record=True) as found:
      warnings.simplefilter(action)
      kinds.add(verify_countdown((3, 5), 8, text).kind)
    assert not found
  assert kinds == {'hostile'}


def test_nothing_is_run(monkeypatch):
  """Neither compiled to code nor run: compile() may only make trees."""
  compiled = []

  def trees_only(source, filename, mode, flags=0, *args, **kwargs):
    compiled.append(source)
    assert flags & ast.PyCF_ONLY_AST
    return compile_(source, filename, mode, flags, *args, **kwargs)

  def run(*args, **kwargs):
    raise AssertionError('run')

  compile_ = builtins.compile
  text = '__import__("sys").modules.clear()'
  with monkeypatch.context() as patched:
    patched.setattr(builtins, 'compile', trees_only)
    patched.setattr(builtins, 'eval', run)
    patched.setattr(builtins, 'exec', run)
    verdicts = [verify_countdown((3, 5), 8, x) for x in (text, '9**9', '3+5')]
  assert [verdict.kind for verdict in verdicts] == ['hostile', 'hostile', 'right']
  assert compiled == [text, '9**9', '3+5']
  assert sys.modules


def test_what_may_be_as_long_as_it_gets_is_within_reach_of_the_parser():
  """Every repetition of a symbol or of an opening fills MAX_LENGTH without an exception."""
  for unit in ['(', '[', '{', '-', '(-', '1+', '1*(', 'not ', 'lambda:', 'f(*', '1**', '{1:', 'x[']:
    text = (unit * MAX_LENGTH)[: MAX_LENGTH - 1]
    for end in ('', '1'):
      assert verify_countdown((1, 2), 3, text + end).kind in ('wrong', 'malformed', 'hostile')


def test_the_longest_solution_is_not_overlong():
  task = task_of(num_numbers=6, max_number=9999, max_target=10**9, num_train=50, num_held_out=2)
  problem = Countdown((1000,) * 6, 1, tuple([1000] * 6 + ['-'] * 5))
  text = infix(problem.solution)
  assert text == '1000-(1000-(1000-(1000-(1000-1000))))'
  assert 2 * len(text) < MAX_LENGTH
  assert task.verify(problem, text).kind == 'wrong'
  texts = [text for _, _, text in demonstrated(task, 1, MAX_LENGTH)]
  assert max(map(len, texts)) <= len('1000-(1000-(1000-(1000-(1000-1000))))')


# The configs.


def test_the_default_task_fits_its_tiny_config():
  config = countdown_tiny.get_config()
  task = build('task', config.task.to_dict(), TASKS, tokenizer=CharacterTokenizer())
  assert (task.num_problems, task.num_held_out) == (2000, 256)
  assert config.eval.num_prompts <= task.num_held_out
  assert task.prompts_of(np.array([0])).tokens.shape == (1, 16)
  longest = infix((20, 20, 20, '-', '*'))
  assert len(longest) + 1 <= config.policy.max_new_tokens


@pytest.mark.parametrize('arg', [None, '', 'warm', 'quick', 'warm_quick'])
def test_variants_of_the_tiny_config(arg):
  settings = Settings.from_config(countdown_tiny.get_config(arg))
  assert (settings.rollout.source == 'demonstrations') == ('warm' in (arg or ''))
  if 'quick' in (arg or ''):
    assert settings.eval.every < settings.num_train_steps <= 10
    assert settings.checkpoint.every < settings.num_train_steps


def test_an_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="countdown_tiny.py: .*'warm_quick'.*got 'hot'"):
    countdown_tiny.get_config('hot')

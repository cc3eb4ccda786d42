"""Exact comparison of answers: tiny and huge differences, decimals, inequalities and intervals."""

from fractions import Fraction

import pytest
import sympy

pytest.importorskip('math_verify', reason='math-verify is not installed')

from pkpo_jax.tasks.math import exact, worker
from pkpo_jax.tasks.math.verifier import MathVerifier, marked_answer


def judged(gold, text):
  return worker.compare([gold, text, False])[0]


@pytest.mark.parametrize(
  'gold, text',
  [
    (r'\frac{1}{2^{99}}', '2^{-99}'),
    (r'\frac{1}{100!}', r'\frac{1}{100 \cdot 99!}'),
    ('2^{100}', '1267650600228229401496703205376'),
    (r'\frac{3}{4} \cdot 10^{-20}', r'7.5 \cdot 10^{-21}'),
    (r'\sqrt{8}', r'2\sqrt{2}'),
    ('50', r'50\%'),
    (r'\frac{1}{3}', '0.333333'),
    (r'\frac{1}{30000}', '0.0000333333'),
    (r'\frac{1}{3}', r'0.\overline{3}'),
    (r'\frac{7}{12}', r'0.58\overline{3}'),
    (r'(3,\infty)', 'x>3'),
    (r'(3,\infty)', '3<x'),
    ('x>3', r'(3,\infty)'),
    (r'[3,\infty)', r'x\ge 3'),
    (r'(-\infty,3]', r'x\le 3'),
    ('(1,2)', '1<x<2'),
    ('[1,2)', r'1\le x<2'),
    (r'(-\infty,-1)\cup(1,\infty)', r'x<-1 \text{ or } x>1'),
    ('90', '90°'),
    (r'10\,000', '10000'),
    (r'\emptyset', r'\varnothing'),
    ('9', r'9~\mathrm{kg}'),
    ('(1,10^{-20})', '(1,10^{-20})'),
  ],
)
def test_equal_answers_are_right(gold, text):
  assert judged(gold, text) == 'right'


@pytest.mark.parametrize(
  'gold, text',
  [
    (r'\frac{1}{2^{99}}', r'\frac{1}{2^{98}}'),
    (r'\frac{1}{100!}', r'\frac{1}{99!}'),
    ('10^{-20}', '10^{-21}'),
    ('10^{-20}', '0'),
    ('0', '10^{-20}'),
    ('2^{100}', '2^{100}+1'),
    ('100!', '100!+1'),
    ('10^{40}', '10^{40}+1'),
    (r'\frac{1}{10^{10}}', r'\frac{2}{10^{10}}'),
    (r'\sqrt{2}', r'\sqrt{2}+10^{-12}'),
    (r'\pi', r'\pi+10^{-15}'),
    (r'\frac{1}{3}', '0.333'),
    (r'\frac{1}{30000}', '0.000033'),
    ('0', '0.0000001'),
    (r'(3,\infty)', r'x\ge 3'),
    ('x>3', r'[3,\infty)'),
    ('(1,2)', r'1\le x<2'),
    (r'(-\infty,-1)\cup(1,\infty)', r'x<-1 \text{ or } x>2'),
    (r'(3,\infty)', 'x<3'),
    ('(1,10^{-20})', '(1,10^{-21})'),
    ('(1,2)', r'\{1,2\}'),
    ('101_2', '101_3'),
    ('50', r'5\%'),
  ],
)
def test_answers_that_differ_are_wrong(gold, text):
  assert judged(gold, text) == 'wrong'


@pytest.mark.parametrize(
  'text', ['9^{9^{9}}', '2^{10^{9}}', '(10^{9})!', r'\frac{1}{(10^6)!}', '7^{7^{7}}!']
)
def test_numbers_beyond_the_bounds_are_left_alone(text):
  with sympy.evaluate(False):
    (expression,) = worker.parse(f'\\boxed{{{text}}}', worker.BOXED) or [None]
  if expression is not None:
    assert exact.exact_value(expression) is None


def test_a_decimal_is_the_one_that_was_written():
  value, is_decimal = exact.exact_value(sympy.Float('0.1'))
  assert value == Fraction(1, 10) and is_decimal


@pytest.mark.parametrize(
  'completion, answer',
  [
    (r'\boxed{1} and \boxed{2', ''),
    (r'\boxed{2', ''),
    (r'\boxed{1} and {2', '1'),
    (r'\boxed{\boxed{1}', '1'),
    (r'\boxed{1 and \boxed{2}', '2'),
    (r'#### 3 \boxed{2', ''),
  ],
)
def test_a_last_box_that_is_not_closed_is_no_answer(completion, answer):
  assert marked_answer(completion) == answer


def test_an_earlier_box_does_not_stand_in_for_one_that_is_not_closed():
  with MathVerifier(num_workers=1) as verifier:
    (verdict,) = verifier.verify_batch([('1', r'\boxed{1} and \boxed{2')])
  assert verdict.kind == 'malformed'

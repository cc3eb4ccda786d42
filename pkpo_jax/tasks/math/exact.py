r"""Compares mathematical answers exactly, where math-verify goes by floating-point numbers.

Loaded by path in processes without pkpo_jax: imports nothing from it. Every number here is bounded,
so that no answer can make it take long; what is beyond the bounds is left to math-verify.
"""

import math
import re
from fractions import Fraction

import sympy

# A decimal is as good as the number it rounds if it has six significant digits: 0.333333 for 1/3.
DECIMAL_TOLERANCE = Fraction(5, 10**6)
_MAX_BITS = 20_000
_MAX_FACTORIAL = 1000
_MAX_OPERATIONS = 200
_DIGITS = 60

_REWRITES = (
  (re.compile(r'\\varnothing'), r'\\emptyset'),
  (re.compile('°'), r'^\\circ'),
  (re.compile('~'), ' '),
  (re.compile(r'\\text\{:\}'), ':'),
  (re.compile(r'(?<=\d)\\[,;!](?=\d{3}(?!\d))'), ''),
  (re.compile(r'(?<=\d) +i(?![A-Za-z])'), 'i'),
)
_REPEATING = re.compile(r'(\d+)\.(\d*)\\overline\{(\d{1,50})\}')
_BASE = re.compile(r'[0-9A-Za-z}]_\{?(\d+)\}?\s*$')


def normalized(text: str) -> str:
  r"""Returns LaTeX in the spelling that math-verify reads.

  >>> normalized(r'10\,000'), normalized(r'0.\overline{3}')
  ('10000', '\\frac{3}{9}')
  """
  for pattern, replacement in _REWRITES:
    text = pattern.sub(replacement, text)
  return _REPEATING.sub(_as_fraction, text)


def differs(gold: str, text: str, expected, found) -> bool:
  """Returns whether two answers that math-verify takes for equal are not.

  Args:
    gold: LaTeX of the right answer.
    text: LaTeX of the other, or the prose that it was found in.
    expected: the right answer as a SymPy expression.
    found: the other one.
  """
  if _base(gold) != _base(text) and _base(gold) and _base(text):
    return True
  if _is_set_and_order(gold, text):
    return True
  pairs = _pairs(expected, found)
  has_percent = '%' in gold or '%' in text
  return any(_numbers_differ(a, b, has_percent) for a, b in pairs)


def is_same_set(expected, found) -> bool:
  """Returns whether an interval, or a union of some, is what an inequality in one unknown says."""
  sets = [_as_set(expected), _as_set(found)]
  is_relation = [_is_relation(x) for x in (expected, found)]
  return None not in sets and any(is_relation) and not all(is_relation) and sets[0] == sets[1]


def exact_value(expression) -> tuple[Fraction, bool] | None:
  """Returns the value of an expression of rational numbers, and whether a decimal is in it.

  None if it is no such expression, or has numbers of more than 20,000 bits on the way.
  """
  if isinstance(expression, sympy.Float):
    # The decimal that was written, not the binary number next to it.
    return Fraction(str(sympy.Float(expression, 15))), True
  if isinstance(expression, sympy.Rational):
    return _bounded(Fraction(expression.p, expression.q)), False
  parts = [exact_value(part) for part in expression.args]
  if None in parts or not parts:
    return None
  values, is_decimal = [value for value, _ in parts], any(decimal for _, decimal in parts)
  if None in values:
    return None
  if isinstance(expression, sympy.UnevaluatedExpr):
    return values[0], is_decimal
  if isinstance(expression, sympy.Add):
    return _fold(Fraction.__add__, values, is_decimal)
  if isinstance(expression, sympy.Mul):
    return _fold(Fraction.__mul__, values, is_decimal)
  if isinstance(expression, sympy.Pow):
    return _power(*values, is_decimal)
  if isinstance(expression, sympy.factorial) and values[0].denominator == 1:
    if 0 <= values[0] <= _MAX_FACTORIAL:
      return Fraction(math.factorial(int(values[0]))), is_decimal
  return None


def _numbers_differ(a, b, has_percent: bool) -> bool:
  """Returns whether two expressions are numbers, and known not to be equal."""
  values = exact_value(a), exact_value(b)
  if None not in values:
    (x, x_is_decimal), (y, y_is_decimal) = values
    factors = (1, 100, Fraction(1, 100)) if has_percent else (1,)
    tolerance = DECIMAL_TOLERANCE if x_is_decimal or y_is_decimal else 0
    return not any(abs(x - f * y) <= tolerance * max(abs(x), abs(f * y)) for f in factors)
  if has_percent or not (_is_small_number(a) and _is_small_number(b)):
    return False
  if a.has(sympy.Float) or b.has(sympy.Float):
    return False
  difference, size = (sympy.N(x, _DIGITS, maxn=1000) for x in (a - b, sympy.Abs(a) + sympy.Abs(b)))
  if not (difference.is_number and size.is_number and size.is_finite):
    return False
  return bool(sympy.Abs(difference) > size * sympy.Float(10) ** -40)


def _is_small_number(expression) -> bool:
  """Returns whether an expression is a number that takes no time to evaluate."""
  if not getattr(expression, 'is_number', False) or expression.count_ops() > _MAX_OPERATIONS:
    return False
  if expression.has(sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative):
    return False
  if any(abs(x.p).bit_length() + x.q.bit_length() > 1000 for x in expression.atoms(sympy.Rational)):
    return False
  powers = expression.atoms(sympy.Pow)
  return all(
    isinstance(x.exp, sympy.Rational) and abs(x.exp) <= 1000 and x.base.count_ops() < 50
    for x in powers
  ) and not expression.has(sympy.factorial)


def _pairs(expected, found) -> list:
  """Returns the expressions to compare: the two, or their parts in order."""
  strip = lambda x: x.rhs if isinstance(x, sympy.Eq) else x
  expected, found = strip(expected), strip(found)
  for kind in (sympy.Tuple, tuple, list):
    if isinstance(expected, kind) and isinstance(found, kind) and len(expected) == len(found):
      return [pair for each in zip(expected, found, strict=True) for pair in _pairs(*each)]
  if isinstance(expected, sympy.FiniteSet) and isinstance(found, sympy.FiniteSet):
    values = [sorted(filter(None, map(exact_value, x.args))) for x in (expected, found)]
    if all(len(v) == len(x.args) for v, x in zip(values, (expected, found), strict=True)):
      if len(values[0]) == len(values[1]) and not any(d for v in values for _, d in v):
        numbers = lambda v: [sympy.Rational(x.numerator, x.denominator) for x, _ in v]
        return list(zip(*map(numbers, values), strict=True))
    return []
  return [(expected, found)] if isinstance(expected, sympy.Expr) else []


def _as_set(expression):
  """Returns the set of real numbers that an expression describes, None if it is none."""
  if isinstance(expression, sympy.Interval | sympy.Union):
    return expression
  if isinstance(expression, sympy.FiniteSet) and all(map(_is_relation, expression.args)):
    parts = [_as_set(part) for part in expression.args]
    return None if None in parts else sympy.Union(*parts)
  if not _is_relation(expression) or len(expression.free_symbols) != 1:
    return None
  if expression.count_ops() > 20:
    return None
  (symbol,) = expression.free_symbols
  relations = expression.atoms(sympy.core.relational.Relational)
  if not all(symbol in (x.lhs, x.rhs) for x in relations):
    return None  # Not solved for the unknown.
  try:
    return expression.as_set()
  except (NotImplementedError, TypeError, ValueError):
    return None


def _is_relation(expression) -> bool:
  inequalities = (sympy.StrictGreaterThan, sympy.StrictLessThan, sympy.GreaterThan, sympy.LessThan)
  if isinstance(expression, sympy.FiniteSet):
    return bool(expression.args) and all(map(_is_relation, expression.args))
  if isinstance(expression, sympy.And | sympy.Or):
    return all(map(_is_relation, expression.args))
  return isinstance(expression, inequalities)


def _is_set_and_order(gold: str, text: str) -> bool:
  """Returns whether one is written in braces, as a set, and the other in parentheses."""
  opens = lambda x: x.strip().startswith
  braces, parentheses = (r'\{', r'\left\{', r'\left \{'), ('(', r'\left(')
  return any(opens(a)(braces) and opens(b)(parentheses) for a, b in ((gold, text), (text, gold)))


def _base(text: str) -> str | None:
  found = _BASE.search(text)
  return found and found[1]


def _as_fraction(found: re.Match) -> str:
  whole, digits, repeated = found.groups()
  nines = int('9' * len(repeated)) * 10 ** len(digits)
  return rf'\frac{{{int(whole + digits + repeated) - int(whole + digits)}}}{{{nines}}}'


def _fold(operation, values, is_decimal):
  total = values[0]
  for value in values[1:]:
    total = _bounded(operation(total, value))
    if total is None:
      return None
  return total, is_decimal


def _power(base, exponent, is_decimal):
  if exponent.denominator != 1 or (base == 0 and exponent < 0):
    return None
  bits = max(base.numerator.bit_length(), base.denominator.bit_length())
  if bits * abs(exponent.numerator) > _MAX_BITS:
    return None
  return base**exponent.numerator, is_decimal


def _bounded(value: Fraction) -> Fraction | None:
  bits = value.numerator.bit_length() + value.denominator.bit_length()
  return value if bits <= _MAX_BITS else None

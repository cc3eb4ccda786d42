"""Judges an expression that is to reach a target with given numbers."""

import ast
import operator
import warnings
from collections.abc import Sequence
from fractions import Fraction

from pkpo_jax.tasks.verifiers import Verdict

MAX_LENGTH = 128  # Characters; keeps parsing quick and its nesting far below what Python refuses.
OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul, '/': operator.truediv}
_CHARACTERS = frozenset('0123456789+-*/() ')
_BINARY = dict(zip((ast.Add, ast.Sub, ast.Mult, ast.Div), OPERATORS.values(), strict=True))
_WHITELIST = {ast.Expression, ast.BinOp, ast.UnaryOp, ast.USub, ast.Constant, *_BINARY}


def verify_countdown(numbers: Sequence[int], target: int, completion: str) -> Verdict:
  """Returns whether the expression uses each number exactly once and has the target's value.

  Expressions are made of whole numbers, + - * /, parentheses and white space; a minus may stand in
  front of a term. They are parsed as Python, never run: what Python cannot parse is malformed, what
  it can and is more than such an expression (a name, a call, a power, 0x10) is hostile. Values are
  exact fractions; a division by zero is wrong. Answers are compared by their text without spaces.

  Args:
    numbers: what to use, positive.
    target: the value to reach.
    completion: the expression. More than MAX_LENGTH characters are overlong.

  >>> verify_countdown([3, 5, 7], 22, '3 * 5 + 7')
  Verdict(kind='right', answer='3*5+7', score=None)
  >>> [verify_countdown([3, 5, 7], 22, x).kind for x in ('15+7', '3*5+7=22', '7+eval("15")')]
  ['wrong', 'malformed', 'hostile']
  """
  if len(completion) > MAX_LENGTH:
    return Verdict('overlong')
  text = ' '.join(completion.split())
  if not text:
    return Verdict('empty')
  if not _CHARACTERS.issuperset(text):
    with warnings.catch_warnings(action='ignore'):  # Python warns of the likes of '1if 1else 2'.
      return Verdict('malformed' if _parse(text) is None else 'hostile')
  tree = _parse(text)
  if tree is None:
    return Verdict('malformed')
  nodes = list(ast.walk(tree))
  if not all(type(node) in _WHITELIST for node in nodes):
    return Verdict('hostile')
  used = [node.value for node in nodes if isinstance(node, ast.Constant)]
  try:
    is_right = sorted(used) == sorted(numbers) and _value(tree.body) == target
  except ZeroDivisionError:
    is_right = False
  return Verdict('right' if is_right else 'wrong', text.replace(' ', ''))


def _parse(text: str) -> ast.Expression | None:
  try:
    return ast.parse(text, mode='eval')
  except (SyntaxError, ValueError, MemoryError, RecursionError):  # All that ast.parse may raise.
    return None


def _value(node: ast.expr) -> Fraction:
  """Returns the value of an expression whose nodes are all in the whitelist."""
  if isinstance(node, ast.Constant):
    return Fraction(node.value)
  if isinstance(node, ast.UnaryOp):
    return -_value(node.operand)
  return _BINARY[type(node.op)](_value(node.left), _value(node.right))

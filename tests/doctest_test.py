"""Every example in a docstring of the package runs and prints what it says."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pkpo_jax

PACKAGE = Path(pkpo_jax.__file__).parent


NUMBER = re.compile(r'[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?')


class CloseNumbers(doctest.OutputChecker):
  """Lets numbers differ by float32 rounding, and arrays be spaced to suit."""

  def check_output(self, want, got, optionflags):
    """Overrides the base class's comparison of text."""
    frames = [re.sub(r'\s', '', NUMBER.sub('#', text)) for text in (want, got)]
    if frames[0] != frames[1]:
      return False
    wanted, gotten = ([float(x) for x in NUMBER.findall(text)] for text in (want, got))
    return np.allclose(gotten, wanted, rtol=1e-6, atol=1e-6)


def examples_of(path):
  """Returns (name, line, docstring) of each docstring in a file that has an example.

  Read from the source: what wraps functions to check shapes hides them from doctest's own search.
  """
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, documented) and '>>>' in (docstring := ast.get_docstring(node) or ''):
      found.append((getattr(node, 'name', path.stem), getattr(node, 'lineno', 1), docstring))
  return found


EXAMPLES = [
  (path, *example) for path in sorted(PACKAGE.rglob('*.py')) for example in examples_of(path)
]


@pytest.mark.parametrize(
  'path, name, line, docstring', EXAMPLES, ids=[f'{p.stem}.{name}' for p, name, *_ in EXAMPLES]
)
def test_example(path, name, line, docstring):
  parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
  module = importlib.import_module('.'.join(parts).removesuffix('.__init__'))
  names = {'jax': jax, 'jnp': jnp, 'np': np} | vars(module)
  example = doctest.DocTestParser().get_doctest(docstring, dict(names), name, str(path), line)
  report = []
  doctest.DocTestRunner(CloseNumbers(), verbose=False).run(example, out=report.append)
  assert not report, ''.join(report)


def test_there_are_examples():
  documented = {name for _, name, *_ in EXAMPLES}
  assert {'subset_weights', 'max_at_k', 'pkpo_loo_minus_one', 'passk_analytical'} <= documented


def test_numbers_are_compared():
  check = CloseNumbers().check_output
  assert check('[1.  -0.5]', '[ 0.99999994 -0.5       ]', 0)
  assert not check('[1. -0.5]', '[1. -0.51]', 0)
  assert not check('[1. -0.5]', '[[1. -0.5]]', 0)

"""Reads what surrounds code: a model's answer, and the tests of a data set.

Loaded by path, too, in processes that do without the rest of pkpo_jax: imports nothing from it.
"""

import ast
import builtins
import re
import symtable
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_FENCE = re.compile(
  r'^[ \t]*```[ \t]*(?P<language>[^\s`]*+)[^\n`]*+\n(?P<code>.*?)(?:^[ \t]*```|\Z)', re.M | re.S
)
_LANGUAGES = ('', 'python', 'python3', 'py')
_HEAD = re.compile(r'^(?:async )?def[ \t]+(\w+)', re.M)
_START_OF_CODE = re.compile(r'^(?:def|class|import|from|async def)[ \t]|^@', re.M)
_MAX_STARTS, _MAX_CUTS = 4, 8


class UnitTests(NamedTuple):
  """The tests of a problem; trusted.

  Attributes:
    tests: statements, each a test: it passes if it raises nothing.
    functions: names of the functions that the tests call and a completion has to define.
    setup_code: what runs before each test, out of the completion's sight.
    prompt: code that a completion continues; None if it stands alone.
  """

  tests: tuple[str, ...]
  functions: tuple[str, ...]
  setup_code: str = ''
  prompt: str | None = None


def human_eval_tests(prompt: str, test: str, entry_point: str) -> UnitTests:
  """Returns the tests of a row of HumanEval.

  If `check` is nothing but asserts, each of those that name the candidate is a test (there are also
  some of True). Else its whole body is one.

  Args:
    prompt: the function's head and docstring, and what stands before; the tests may use that, too.
    test: code that defines check(candidate).
    entry_point: the function's name.
  """
  tree = ast.parse(test)
  (check,) = (x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == 'check')
  (candidate,) = (argument.arg for argument in check.args.args)
  setup_code = f'{prompt}\n{_source([x for x in tree.body if x is not check])}\n'
  if all(isinstance(statement, ast.Assert) for statement in check.body):
    sources = [ast.unparse(statement) for statement in check.body]
    tests = [x for x in sources if candidate in _used_names(x)]
    # One name for one function; the other names the prompt's stub in the tests' namespace.
    tests = [f'{candidate} = {entry_point}\n{x}' for x in tests]
  else:
    tests = [f'{ast.unparse(check)}\ncheck({entry_point})']
  return UnitTests(tuple(tests), (entry_point,), setup_code, prompt)


def mbpp_tests(tests: Sequence[str], setup_code: str, solution: str) -> UnitTests:
  """Returns the tests of a row of MBPP.

  Args:
    tests: assert statements.
    setup_code: what runs before them.
    solution: the reference, by which functions are known: one has the name of a builtin (`sum`).

  Raises:
    ValueError: with what `unsupported` says.
  """
  if reason := unsupported(tests, setup_code, solution):
    raise ValueError(reason)
  used = set().union(*map(_used_names, tests))
  functions = used & _assigned_names(solution) - _defined_names(setup_code)
  # Tests may use what the solution imports.
  imports = [x for x in ast.parse(solution).body if isinstance(x, (ast.Import, ast.ImportFrom))]
  setup_code = f'{_source(imports)}\n{setup_code}'
  return UnitTests(tuple(tests), tuple(sorted(functions)), setup_code)


def unsupported(tests: Sequence[str], setup_code: str, solution: str) -> str | None:
  r"""Returns why these tests cannot run in another process than the solution, None if they can.

  Only plain data goes there and back: no object of the solution's own classes, no function, no
  change of an argument.

  >>> unsupported(['assert f(1) == 2'], '', 'def f(x): return x + 1')
  >>> unsupported(['assert f(Node(1)) == 2'], '', 'class Node: pass\ndef f(x): return 2')
  'a test uses Node of the solution otherwise than by calling a function'
  """
  try:
    trees = [ast.parse(test) for test in tests]
    names = [_used_names(test) for test in tests]
    own = _assigned_names(solution) - _defined_names(setup_code)
    known = own | _defined_names(solution) | _defined_names(setup_code) | set(dir(builtins))
    in_setup = own & _used_names(setup_code)
    classes = {x.name for x in ast.parse(solution).body if isinstance(x, ast.ClassDef)}
  except (SyntaxError, ValueError) as error:
    return f'no Python: {error}'
  if in_setup:
    return f'the set-up code uses {min(in_setup)} of the solution'
  if any(used - known for used in names):
    return f'a test uses {min(set().union(*names) - known)}, which nobody defines'
  if not all(used & own for used in names):
    return 'a test uses nothing of the solution'
  nodes = [node for tree in trees for node in ast.walk(tree)]
  calls = [x for x in nodes if isinstance(x, ast.Call) and getattr(x.func, 'id', None) in own]
  called = {id(call.func) for call in calls if call.func.id not in classes}
  for node in nodes:
    if isinstance(node, ast.Name) and node.id in own and id(node) not in called:
      return f'a test uses {node.id} of the solution otherwise than by calling a function'
    if isinstance(node, ast.Expr):
      return 'a test has a statement of which only a change of an argument could matter'
  for argument in (x for call in calls for x in (*call.args, *(k.value for k in call.keywords))):
    if isinstance(argument, ast.Lambda) or getattr(argument, 'id', None) in dir(builtins):
      return 'a test passes a function to the solution'
  return None


def extract_code(completion: str, prompt: str | None = None) -> str | None:
  r"""Returns the program in a model's answer, None if there is none that compiles.

  Where it looks: in fenced blocks, if there are any (of Python or of no language; the last one may
  not be closed), else in all of the text, then from its first lines that look like code on. The
  first that is complete wins: with a prompt, one that defines the prompt's last function, and it is
  put behind the prompt; without, one that defines a function or class. If none is, the first block,
  or the text, that compiles at all; with a prompt it continues that: as it stands, or with its
  first line indented, or with all of its lines.

  What does not compile at the end (prose, a second function that was cut off) is left out. A fault
  inside the first function or class spoils it.

  >>> extract_code('Sure!\n```python\nx = 1\n```\nThere you are.')
  'x = 1\n'
  >>> extract_code('return x + 1', 'def f(x):\n')
  'def f(x):\n    return x + 1'
  """
  text = completion.replace('\r\n', '\n').replace('\r', '\n')
  blocks = [x['code'] for x in _FENCE.finditer(text) if x['language'].lower() in _LANGUAGES]
  starts = [] if blocks else [x.start() for x in _START_OF_CODE.finditer(text)][:_MAX_STARTS]
  blocks = blocks or [text]
  heads = _HEAD.findall(prompt or '')
  for candidate in [*blocks, *(text[start:] for start in starts)]:
    code = _compiling_part(candidate)
    if code and _is_complete(code, heads[-1] if heads else None):
      return code if prompt is None else f'{prompt}\n\n{code}'
  prefix = prompt or ''
  for block in blocks:
    indented = (block, '    ' + block.lstrip(), textwrap.indent(block, '    '))
    for body in indented if prefix else (block,):
      code = _compiling_part(prefix + body, first_cut=prefix.count('\n'))
      if code and code[len(prefix) :].strip():
        return code
  return None


def normalized(code: str) -> str:
  """Returns code without comments and with one style of spaces, quotes and parentheses."""
  return ast.unparse(ast.parse(code))


def _compiling_part(code: str, first_cut: int = 0) -> str | None:
  """Returns the code up to a line, not indented, from which on it does not compile.

  Args:
    code: with newlines as ends of lines.
    first_cut: the number of the first line that may be left out.
  """
  lines = re.findall('.*\n|.+', code)  # str.splitlines knows more ends of lines than Python.
  for _ in range(_MAX_CUTS):
    code = ''.join(lines)
    try:
      compile(code, '<completion>', 'exec', dont_inherit=True)
      return code
    except SyntaxError as error:
      last = min(error.lineno or 1, len(lines))
    except (ValueError, MemoryError, RecursionError):  # All else that it may raise.
      return None
    cuts = [i for i in range(first_cut, last) if lines[i].strip() and not lines[i][0].isspace()]
    if not cuts:
      return None
    lines = lines[: cuts[-1]]
  return None


def _is_complete(code: str, name: str | None) -> bool:
  """Whether it defines this function, with None: any function or class, at its top level."""
  kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
  names = [x.name for x in ast.parse(code).body if isinstance(x, kinds)]
  return bool(names) if name is None else name in names


def _source(statements: list[ast.stmt]) -> str:
  return ast.unparse(ast.Module(statements, []))


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
  yield table
  for child in table.get_children():
    yield from _tables(child)


def _used_names(code: str) -> set[str]:
  """Returns the names that code uses and does not define."""
  top = symtable.symtable(code, '<code>', 'exec')
  used = {
    symbol.get_name()
    for table in _tables(top)
    for symbol in table.get_symbols()
    if symbol.is_referenced() and (table is top or symbol.is_global())
  }
  return used - _defined_names(code)


def _defined_names(code: str) -> set[str]:
  """Returns the names that code binds at its top level."""
  symbols = symtable.symtable(code, '<code>', 'exec').get_symbols()
  return {x.get_name() for x in symbols if x.is_assigned() or x.is_imported()}


def _assigned_names(code: str) -> set[str]:
  """Returns the names that code binds at its top level, but for imports."""
  symbols = symtable.symtable(code, '<code>', 'exec').get_symbols()
  return {x.get_name() for x in symbols if x.is_assigned() and not x.is_imported()}

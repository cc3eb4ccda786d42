"""Reads what surrounds code: a model's answer, and the tests of a data set.

Loaded by path, too, in processes that do without the rest of pkpo_jax: imports nothing from it.
"""

import ast
import builtins
import itertools
import re
import symtable
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# A line that may open a block of code, or close one.
_FENCE = re.compile(
  r'^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)$(?P<end>\n?)', re.M
)
_LANGUAGES = ('', 'python', 'python3', 'py', 'py3', 'pycon')
_HEAD = re.compile(r'^(?:async )?def[ \t]+(\w+)', re.M)
_START_OF_CODE = re.compile(r'^[ \t]*(?:(?:def|class|import|from|async def)[ \t]|@)', re.M)
_PROMPT = re.compile(r'^[ \t]*(?:>>>|\.\.\.)(?: |$)', re.M)  # Of an interactive interpreter.
# What chats and editors leave in a text, and Python does not read.
_ODD_SPACES = dict.fromkeys(map(ord, '\ufeff\u200b\u200c\u200d\u2060')) | {ord('\xa0'): ' '}
_MAX_STARTS, _MAX_CUTS, _MAX_FENCES, _MAX_BLOCKS, _MAX_ENDS = 4, 8, 200, 32, 8


class UnitTests(NamedTuple):
  """The tests of a problem; trusted.

  Attributes:
    tests: statements, each a test: it passes if it raises nothing.
    functions: names of the functions that the tests call and a completion has to define.
    setup_code: what runs before each test, out of the completion's sight.
    prompt: code that a completion continues; None if it stands alone.
    num_shown: how many of the tests, the first ones, the question shows.
  """

  tests: tuple[str, ...]
  functions: tuple[str, ...]
  setup_code: str = ''
  prompt: str | None = None
  num_shown: int = 0

  def score(self, passed: Sequence[bool]) -> float:
    """Returns the share of the hidden tests that pass, 0 if one that is shown fails.

    So a table of the answers that the question shows earns nothing, and only what passes all tests
    earns 1. Where all tests are shown, nothing is left that could be earned in parts: 1 if all
    pass, else 0.

    Args:
      passed: of each test, whether it passes.

    Raises:
      ValueError: if there are no tests.

    >>> tests = UnitTests(('assert f(1) == 1', 'assert f(2) == 4', 'assert f(3) == 9'), ('f',))
    >>> tests.score([True, False, False]), tests._replace(num_shown=1).score([True, False, False])
    (0.3333333333333333, 0.0)
    >>> tests._replace(num_shown=1).score([True, True, False])
    0.5
    """
    if not passed:
      raise ValueError('tests: expected at least one, got none.')
    shown, hidden = passed[: self.num_shown], passed[self.num_shown :]
    if not all(shown):
      return 0.0
    return sum(hidden) / len(hidden) if hidden else 1.0


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
    tests = [x for x in sources if candidate in names_used(x)]
    # One name for one function; the other names the prompt's stub in the tests' namespace.
    tests = [f'{candidate} = {entry_point}\n{x}' for x in tests]
  else:
    tests = [f'{ast.unparse(check)}\ncheck({entry_point})']
  if not tests:
    raise ValueError(f'test: expected an assert of {candidate}, got {test!r}.')
  return UnitTests(tuple(tests), (entry_point,), setup_code, prompt)


def mbpp_tests(
  tests: Sequence[str], setup_code: str, solution: str, num_shown: int = 0
) -> UnitTests:
  """Returns the tests of a row of MBPP.

  Args:
    tests: assert statements.
    setup_code: what runs before them.
    solution: the reference, by which functions are known: one has the name of a builtin (`sum`).
    num_shown: how many of the tests the question shows, if there are so many.

  Raises:
    ValueError: with what `unsupported` says.
  """
  if reason := unsupported(tests, setup_code, solution):
    raise ValueError(reason)
  used = set().union(*map(names_used, tests))
  functions = used & _assigned_names(solution) - names_defined(setup_code)
  # Tests may use what the solution imports.
  imports = [x for x in ast.parse(solution).body if isinstance(x, (ast.Import, ast.ImportFrom))]
  setup_code = f'{_source(imports)}\n{setup_code}'
  functions = tuple(sorted(functions))
  return UnitTests(tuple(tests), functions, setup_code, num_shown=min(num_shown, len(tests)))


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
    names = [names_used(test) for test in tests]
    own = _assigned_names(solution) - names_defined(setup_code)
    known = own | names_defined(solution) | names_defined(setup_code) | set(dir(builtins))
    in_setup = own & names_used(setup_code)
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

  Where it looks: in fenced blocks (of Python or of no language), then in all of the text, then
  from its first lines that look like code on. The first that is complete wins: with a prompt, one
  that defines the prompt's last function, and it is put behind the prompt; without, one that
  defines a function or class. If none is, the first block, or the text without any, that compiles
  at all; with a prompt it continues that: as it stands, or indented.

  Fences are read as Markdown does, ``` or ~~~, of three characters or more, each closed by one of
  the same kind and no shorter, and with these liberties: a fence in a string does not close a
  block; the last block need not be closed; where the first fence closes what no fence has opened,
  as if the prompt had, a block ends there that began with the text.

  What does not compile at the end (prose, a second function that was cut off) is left out. A fault
  inside the first function or class spoils it.

  >>> extract_code('Sure!\n```python\nx = 1\n```\nThere you are.')
  'x = 1\n'
  >>> extract_code('return x + 1', 'def f(x):\n')
  'def f(x):\n    return x + 1'
  """
  text = completion.replace('\r\n', '\n').replace('\r', '\n')
  texts = dict.fromkeys([text, text.translate(_ODD_SPACES)])
  readings = [(text, reading) for text in texts for reading in _readings(text, prompt)]
  name = (_HEAD.findall(prompt or '') or [None])[-1]
  for text, blocks in readings:
    for candidate in (*blocks, text, *_starts(text)):
      code = _compiling_part(candidate)
      if code and _is_complete(code, name):
        return code if prompt is None else _behind(prompt, code)
  for _, blocks in readings:
    for block in blocks:
      for body in _bodies(block, prompt):
        code = _compiling_part(body, first_cut=(prompt or '').count('\n'))
        if code and code[len(prompt or '') :].strip():
          return code
  return None


def _readings(text: str, prompt: str | None) -> list[list[str]]:
  """Returns what the blocks of a text may be, the likeliest first."""
  fences = list(itertools.islice(_FENCE.finditer(text), _MAX_FENCES))
  if not fences or _compiles(text, prompt):  # Fences are in strings, if there are any.
    return [[text]]
  outside, is_sure = _blocks(text, fences, prompt)
  if _info(fences[0]):
    return [outside]
  # The first fence may close what the prompt has opened.
  before = text[: fences[0].start()]
  inside = [before, *_blocks(text, fences[1:], prompt)[0]]
  is_code = bool(before.strip()) and _compiles(before, prompt) and not _is_word(before)
  return [inside, outside] if is_code and not is_sure else [outside, inside]


def _blocks(
  text: str, fences: list[re.Match], prompt: str | None, depth: int = 0
) -> tuple[list[str], bool]:
  """Returns blocks of Python, and whether all fences pair.

  Args:
    text: in which the fences are.
    fences: the first one opens a block.
    prompt: what blocks may continue.
    depth: of the blocks that `text` is in.
  """
  blocks, is_sure, i = [], True, 0
  while i < len(fences) and len(blocks) < _MAX_BLOCKS:
    opening, language = fences[i], _info(fences[i])
    kind = opening['fence']
    ends = [j for j in range(i + 1, len(fences)) if fences[j]['fence'].startswith(kind)]
    content = lambda j, opening=opening: _dedent(
      text[opening.end() : fences[j].start() if j < len(fences) else len(text)], opening['indent']
    )
    is_python = language.lower() in _LANGUAGES
    end = ends[0] if ends else len(fences)
    if is_python and ends and not _compiles(content(end), prompt):
      # Perhaps a fence in a string of the block.
      whole = (j for j in (*ends[1:_MAX_ENDS], len(fences)) if _compiles(content(j), prompt))
      end = next(whole, end)
    block = content(end)
    if is_python:
      blocks.append(block if ends else re.sub(r'(?<![`~])(?:`{3,}|~{3,})\s*\Z', '', block))
    if end > i + 1 and depth < 2 and not (is_python and _compiles(block, prompt)):
      inner = list(_FENCE.finditer(block))
      blocks += _blocks(block, inner, prompt, depth + 1)[0]
    # What has an info string opens the next block: this one was not closed, or not properly.
    is_closed = end < len(fences) and not _info(fences[end])
    is_sure = is_sure and is_closed
    i = end + is_closed
  return blocks, is_sure


def _info(fence: re.Match) -> str:
  """Returns the first word behind a fence, mostly a language: `python` of `{.python title=x}`."""
  return re.match(r'[\s{.]*([\w+#-]*)', fence['info'])[1]


def _dedent(block: str, indent: str) -> str:
  """Returns a block without the indent of its fence, where lines have that."""
  if not indent:
    return block
  return re.sub(rf'^[ \t]{{1,{len(indent)}}}', '', block, flags=re.M)


def _starts(text: str) -> Iterator[str]:
  """Yields the text from each of its first lines on that look like code.

  Code that is indented, as in a list or a quotation, ends with the first line that is not.
  """
  for start in itertools.islice(_START_OF_CODE.finditer(text), _MAX_STARTS):
    rest = text[start.start() :]
    indent = re.match(r'[ \t]*', rest)[0]
    if indent:
      rest = textwrap.dedent(re.match(rf'(?:{indent}.*(?:\n|\Z)|[ \t]*\n)*', rest)[0])
    yield rest
  if _PROMPT.search(text):
    lines = [line for line in text.split('\n') if _PROMPT.match(line)]
    yield '\n'.join(_PROMPT.sub('', line) for line in lines) + '\n'


def _bodies(block: str, prompt: str | None) -> tuple[str, ...]:
  """Returns what a block may be as code: itself, or ways in which it continues the prompt."""
  if not prompt:
    return (block,)
  even = textwrap.dedent(block.expandtabs(4)).lstrip('\n')
  bodies = (block, '    ' + block.lstrip(), textwrap.indent(block, '    '))
  return tuple(prompt + body for body in (*bodies, textwrap.indent(even, '    ')))


def _compiles(block: str, prompt: str | None) -> bool:
  """Whether all of a block is code, or continues the prompt."""
  return any(map(_is_code, {block, *_bodies(block, prompt)}))


def _is_code(code: str) -> bool:
  try:
    compile(code, '<completion>', 'exec', dont_inherit=True)
  except (SyntaxError, ValueError, MemoryError, RecursionError):  # All that it may raise.
    return False
  return True


def _is_word(text: str) -> bool:
  """Whether a text is code by accident: 'Sure', or nothing."""
  try:
    statements = ast.parse(textwrap.dedent(text)).body
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    return False
  words = (ast.Name, ast.Constant, ast.Tuple, ast.Attribute)
  return all(isinstance(x, ast.Expr) and isinstance(x.value, words) for x in statements)


def _behind(prompt: str, code: str) -> str:
  """Returns the program with the prompt ahead of code; imports from __future__ come first."""
  lines, imports = code.encode().split(b'\n'), []
  for node in reversed(ast.parse(code).body):
    if isinstance(node, ast.ImportFrom) and node.module == '__future__':
      imports.append(f'{ast.unparse(node)}\n')
      end = lines[node.end_lineno - 1][node.end_col_offset :]
      start = lines[node.lineno - 1][: node.col_offset]
      lines[node.lineno - 1 : node.end_lineno] = [start + b'pass' + end]
  return f'{"".join(reversed(imports))}{prompt}\n\n{b"\n".join(lines).decode()}'


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


def names_used(code: str) -> set[str]:
  """Returns the names that code uses and does not define."""
  top = symtable.symtable(code, '<code>', 'exec')
  used = {
    symbol.get_name()
    for table in _tables(top)
    for symbol in table.get_symbols()
    if symbol.is_referenced() and (table is top or symbol.is_global())
  }
  return used - names_defined(code)


def names_defined(code: str) -> set[str]:
  """Returns the names that code binds at its top level."""
  symbols = symtable.symtable(code, '<code>', 'exec').get_symbols()
  return {x.get_name() for x in symbols if x.is_assigned() or x.is_imported()}


def _assigned_names(code: str) -> set[str]:
  """Returns the names that code binds at its top level, but for imports."""
  symbols = symtable.symtable(code, '<code>', 'exec').get_symbols()
  return {x.get_name() for x in symbols if x.is_assigned() and not x.is_imported()}

"""Code that is read from answers: where it stands, and how fences are drawn."""

import textwrap

import pytest

from pkpo_jax.tasks.code.programs import UnitTests, extract_code

CODE = 'def f(x):\n    return x + 1\n'
PROMPT = 'def f(x):\n    """Returns the next number."""\n'
BODY = '    return x + 1\n'
QUOTED = 'def f(x):\n    """Adds.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1\n'
FUTURE = f'from __future__ import annotations\n{CODE}'


@pytest.mark.parametrize(
  'completion, prompt',
  [
    pytest.param(f'{CODE}```', None, id='a closing fence alone'),
    pytest.param(f'{CODE}```\nThat is it.', None, id='a closing fence alone, and text'),
    pytest.param(f'{BODY}```', PROMPT, id='a body and a closing fence'),
    pytest.param(f'{BODY}```\nDone.', PROMPT, id='a body, a closing fence and text'),
    pytest.param(f'```\n{CODE}', None, id='an opening fence alone'),
    pytest.param(f'```python\n{CODE}', None, id='an opening fence that is cut off'),
    pytest.param(f'```python\n{QUOTED}```', None, id='fences in a docstring'),
    pytest.param(f'~~~python\n{QUOTED}~~~', None, id='fences of backticks in one of tildes'),
    pytest.param(f'~~~python\n{CODE}~~~\n', None, id='tildes'),
    pytest.param(f'Here:\n~~~\n{CODE}~~~', None, id='tildes of no language'),
    pytest.param(f'````python\n{CODE}````', None, id='four backticks'),
    pytest.param(
      '````python\ndef f(x):\n    s = """\n```\n"""\n    return x + 1\n````', None,
      id='three in four backticks',
    ),
    pytest.param('  ```python\n  def f(x):\n      return x + 1\n  ```', None, id='indented'),
    pytest.param(f'```python {{.numberLines}}\n{CODE}```', None, id='attributes'),
    pytest.param(f'```python\n{CODE}```'.replace('\n', '\r\n'), None, id='ends of lines: CRLF'),
    pytest.param(f'Sure, here it is:\n\n{CODE}', None, id='no fence, after text'),
    pytest.param(f'```\npip install x\n```\n```python\n{CODE}```', None, id='another block first'),
    pytest.param(f'Use `f`:\n```python\n{CODE}```', None, id='code within a line'),
    pytest.param(f'\ufeff{CODE}', None, id='a byte-order mark'),
    pytest.param('def f(x):\n\treturn x + 1\n', None, id='a tab'),
    pytest.param(FUTURE, PROMPT, id='from __future__ after a prompt'),
    pytest.param(f'```python\n{FUTURE}```', PROMPT, id='from __future__ in a block after a prompt'),
    pytest.param(PROMPT + BODY, PROMPT, id='the prompt again'),
    pytest.param(f'```python\n{PROMPT}{BODY}```', PROMPT, id='the prompt again in a block'),
    pytest.param(f'```python\n{BODY}```', PROMPT, id='a body in a block'),
    pytest.param('return x + 1', PROMPT, id='a body without indentation'),
  ],
)  # fmt: skip
def test_the_function_is_found_and_runs(completion, prompt):
  namespace = {}
  exec(extract_code(completion, prompt), namespace)
  assert namespace['f'](41) == 42


@pytest.mark.parametrize('completion', ['I do not know.', '```python\n```', '', '```', '~~~\n~~~'])
def test_there_is_no_code(completion):
  assert extract_code(completion) is None


TESTS = UnitTests(('assert f(1) == 1', 'assert f(2) == 4', 'assert f(3) == 9'), ('f',))


@pytest.mark.parametrize(
  'num_shown, passed, score',
  [
    (1, [True, False, False], 0),  # A constant that the shown test asks for.
    (1, [True, True, False], 1 / 2),
    (1, [True, True, True], 1),
    (1, [False, True, True], 0),
    (2, [True, True, False], 0),
    (3, [True, True, True], 1),
    (3, [True, True, False], 0),
    (0, [True, False, False], 1 / 3),
  ],
)
def test_a_shown_test_alone_earns_nothing(num_shown, passed, score):
  assert TESTS._replace(num_shown=num_shown).score(passed) == pytest.approx(score)


# Ways in which answers present code.

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

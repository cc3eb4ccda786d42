"""Code that is read from answers: where it stands, and how fences are drawn."""

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

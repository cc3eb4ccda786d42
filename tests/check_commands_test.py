"""The commands that readers are told to run are read out of the files, and each has a rule."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location('check_commands', ROOT / 'tools/check_commands.py')
check_commands = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_commands)

MARKDOWN = r"""
Words, `python -m a.b --c=1` and `make` and `made` and `python -m a.`.

    make test   # all tests
    python -m a.c --x=1 \
      --y='2 3'
    OMP_NUM_THREADS=1 nice python -m a.d   # busy machine
    not a command

```
pip install .    # in a clone
```
    make TARGET
"""


def test_commands_of_markdown():
  assert list(check_commands.commands_in_markdown(MARKDOWN)) == [
    'python -m a.b --c=1',
    'make',
    'make test',
    "python -m a.c --x=1 --y='2 3'",
    'python -m a.d',
    'pip install .',
  ]


def test_commands_of_a_docstring():
  docstring = 'Title.\n\n  python -m a --b=FILE \\\\\n    --c\n  and [--d] words\n'
  source = f'"""{docstring}"""\nx = "python -m no"\n'
  assert list(check_commands.commands_in_docstring(source)) == ['python -m a --b=FILE --c']


def test_every_command_of_the_repository_has_a_rule():
  commands = check_commands.find_commands(ROOT)
  assert len(commands) > 40
  assert not [each for each in commands if check_commands.rule_of(each.text) is None]


@pytest.mark.parametrize(
  'text, small',
  [
    (
      'python -m pkpo_jax.main --config=configs/gemma2_2b_math.py --workdir=runs/x '
      '--config.policy.weights=FOLDER',
      'python -m pkpo_jax.main --config=configs/gemma2_2b_math.py:tiny --workdir=runs/x',
    ),
    (
      'python -m experiments.launcher --config=configs/gemma2_maze.py --root=runs/x',
      'python -m experiments.launcher --config=configs/gemma2_maze.py:tiny --root=runs/x '
      '--num_seeds=1 --only=analytical',
    ),
    (
      'python -m pkpo_jax.evaluate --workdir=runs/a --other_workdir=runs/b --seed=1',
      'python -m pkpo_jax.evaluate --workdir=runs/k4 --other_workdir=runs/k4 --seed=1',
    ),
  ],
)
def test_small_forms(text, small):
  assert check_commands.rule_of(text).small(text.split()) == small.split()


def test_the_run_that_small_forms_look_at_is_there_before_them():
  small = []
  for command in check_commands.find_commands(ROOT):
    rule = check_commands.rule_of(command.text)
    if callable(rule.small):
      small.append(' '.join(rule.small(command.text.split())))
  first = next(i for i, text in enumerate(small) if 'main' in text and 'workdir=runs/k4 ' in text)
  assert not [text for text in small[:first] if 'runs/k4' in text]
  evaluated = next(i for i, text in enumerate(small) if 'pkpo_jax.evaluate' in text)
  assert not [text for text in small[:evaluated] if 'runs/k4/evaluation' in text]


def test_a_command_without_a_rule_fails():
  assert check_commands.rule_of('python -m pkpo_jax.unheard_of') is None

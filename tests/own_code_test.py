"""Tasks of the user's own files: found, checked, trained and resumed like the built-in ones."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest

from configs import default
from pkpo_jax import own_code
from pkpo_jax.errors import FieldError
from pkpo_jax.flags import with_parts
from pkpo_jax.run import make_run
from pkpo_jax.settings import build, lookup
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.train import train

SUMS = str(Path(__file__).parent.parent / 'examples/sums.py:Sums')

OWN = """
import dataclasses
import jax.numpy as jnp
from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts

@dataclasses.dataclass
class Settings:
  right: int

class Third(DrawnTask):
  completions = 'arms'

  def __init__(self, right: int = 2, num_arms: int = 4):
    self._settings, self.num_contexts, self.num_arms = Settings(right), 1, num_arms

  def draw(self, num_prompts, key):
    zeros = jnp.zeros(num_prompts, jnp.int32)
    return Prompts(ids=zeros, tokens=zeros[:, None], mask=zeros[:, None] == 0, hidden=())

  def grade(self, prompts, rollout, key):
    rewards = (rollout.completions[..., 0] == self._settings.right).astype(jnp.float32)
    return Grades(rewards, rewards)

number = 3
"""


@pytest.fixture
def own(tmp_path):
  """Returns the file of a task."""
  path = tmp_path / 'own.py'
  path.write_text(textwrap.dedent(OWN))
  return path


@pytest.mark.parametrize(
  'name, is_own',
  [
    ('a/b.py:Name', True),
    ('b.py:Name', True),
    ('maze', False),
    ('a.py', False),
    ('a.py:', False),
    ('a.py:not a name', False),
    ('a.txt:Name', False),
    (None, False),
    (7, False),
  ],
)
def test_what_names_a_file(name, is_own):
  assert own_code.is_own(name) == is_own
  assert (name in TASKS) == (is_own or name == 'maze')


def test_a_class_is_the_same_each_time(own):
  first = TASKS[f'{own}:Third']
  assert TASKS[f'{own.parent}/./own.py:Third'] is first
  assert first.completions == 'arms'


def test_a_file_of_the_name_of_a_library_takes_no_place(tmp_path):
  path = tmp_path / 'json.py'
  path.write_text('class Own:\n  pass\n')
  own_code.import_file(path)
  import json as library

  assert library.loads('1') == 1


@pytest.mark.parametrize(
  'content, name, expected',
  [
    (None, 'Third', 'task.name: expected a file, as in path/to/file.py:Name, but there is no '),
    (OWN, 'Fourth', "does not define 'Fourth'; it has ['DrawnTask', 'Grades', 'Prompts', 'Set"),
    (OWN, 'number', 'expected a subclass of pkpo_jax.tasks.base.Task, got 3'),
    (OWN, 'Settings', 'expected a subclass of pkpo_jax.tasks.base.Task, got <class'),
    ('x = 1\n1 / 0\n', 'X', 'own.py, line 2: expected a file that can be imported, got ZeroDivis'),
    ('import no_such', 'X', 'line 1: expected a file that can be imported, got ModuleNotFoundErr'),
    ('def f(:', 'X', 'own.py: expected a file that can be imported, got SyntaxError: '),
  ],
)
def test_what_a_file_lacks_is_named(tmp_path, content, name, expected):
  path = tmp_path / 'own.py'
  if content is not None:
    path.write_text(textwrap.dedent(content))
  with pytest.raises(FieldError) as error:
    lookup('task.name', f'{path}:{name}', TASKS)
  assert error.value.field == 'task.name'
  assert expected in str(error.value) and '\n' not in str(error.value)


def test_other_names_are_told_of_files():
  with pytest.raises(FieldError, match=r"one of \['arc'.*, or path/to/file.py:Name of your own"):
    lookup('task.name', 'amaze', TASKS)


def test_fields_are_those_of_its_arguments(own):
  config = default.get_config()
  chosen = with_parts(config, [f'--config.task.name={own}:Third'])
  assert chosen.task.to_dict() == {'name': f'{own}:Third', 'right': 2, 'num_arms': 4}
  with pytest.raises(FieldError, match=r'task.wrong: unknown field.*right'):
    build('task', {'name': f'{own}:Third', 'wrong': 1}, TASKS)
  with pytest.raises(FieldError, match='task.right: expected'):
    build('task', {'name': f'{own}:Third', 'right': 'x'}, TASKS)


def test_it_trains_and_resumes(own, tmp_path):
  config = default.get_config()
  config = with_parts(config, [f'--config.task.name={own}:Third'])
  config.policy = default.policy('softmax_bandit')
  config.rollout.num_prompts, config.rollout.num_samples, config.advantage.k = 2, 4, 2
  config.num_train_steps, config.optimizer.warmup_steps = 3, 0
  config.eval.every, config.eval.num_prompts, config.checkpoint.every = 4, 2, 2
  config.log.every, config.log.tensorboard = 1, False
  config.optimizer.decay = 'constant'
  train(config, tmp_path / 'run')
  config.num_train_steps = 4
  train(config, tmp_path / 'run')
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines if 'train/loss' in line]
  assert steps == [0, 1, 2, 3]


def test_what_a_task_of_arms_lacks_is_named(own):
  own.write_text(
    own.read_text().replace('self.num_contexts, ', '').replace('(right), 1,', '(right),')
  )
  config = default.get_config()
  config.task = {'name': f'{own}:Third'}
  with pytest.raises(FieldError, match='Third.num_contexts: expected at least 1, got None'):
    make_run(config)


def test_the_example_fits_text(tmp_path):
  """Its prompts, demonstrations and verdicts; its fields are checked."""
  task = build(
    'task', {'name': SUMS, 'num_train': 20, 'largest': 99}, TASKS, tokenizer=CharacterTokenizer()
  )
  assert (task.num_problems, task.num_held_out) == (20, 256)
  assert task.prompt_text((3, 4)) == '3+4='
  answers = {'7': 'right', '07': 'right', '8': 'wrong', 'x': 'malformed', '': 'empty', '-7': None}
  for text, kind in answers.items():
    assert task.verify((3, 4), text).kind == (kind or 'malformed')
  assert task.verify((3, 4), ' 07 ') == Verdict('right', '7')
  rng = np.random.default_rng(0)
  shares = np.mean([task.demonstrate((30, 47), rng) == '77' for _ in range(2000)])
  assert abs(shares - (0.3 + 0.7 / 10)) < 0.05
  with pytest.raises(FieldError, match='task.largest: expected at least 1, got 0'):
    build('task', {'name': SUMS, 'largest': 0}, TASKS, tokenizer=CharacterTokenizer())
  config = default.get_config()
  config.task = {'name': SUMS}
  with pytest.raises(FieldError, match='policy.name'):
    make_run(config)  # The bandit does not write text.

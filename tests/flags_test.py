"""Flags: parts by name bring their fields, files of flags are like the command line, typos help."""

import subprocess
import sys

import pytest
from absl import flags

from pkpo_jax import main  # noqa: F401  It defines the flag workdir.
from pkpo_jax.flags import expand, flag_value, parse_flags

BANDIT = '--config=configs/bandit.py:hidden_answer_quick'


@pytest.fixture
def parsed():
  """Returns the function from words to their config; undoes the flags' definitions."""
  before = set(flags.FLAGS)

  def undo():
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()

  def parse(*words):
    undo()
    assert parse_flags(['main', *words]) == ['main']
    return flags.FLAGS.config

  yield parse
  undo()


@pytest.mark.parametrize(
  'words, fields',
  [
    (
      ['task.name=safe_risky', 'task.noise=0.5'],
      {'task.name': 'safe_risky', 'task.noise': 0.5, 'task.num_arms': None},
    ),
    # The name comes first in meaning wherever it stands.
    (['task.noise=0.5', 'task.name=safe_risky'], {'task.noise': 0.5}),
    (
      ['task.name=maze', 'policy.name=language_model', 'policy.lora_rank=4'],
      {
        'task.num_arms': None,
        'policy.preset': 'gemma2_tiny',
        'policy.lora_rank': 4,
        'policy.weights': None,
        'policy.tokenizer.name': 'characters',
      },
    ),
    (
      [
        'policy.name=language_model',
        'policy.tokenizer.name=sentencepiece',
        'policy.tokenizer.path=a/tokenizer.model',
      ],
      {'policy.tokenizer.path': 'a/tokenizer.model'},
    ),
    (
      ['optimizer.name=adamw', 'optimizer.weight_decay=0.1', 'optimizer.decay_steps=50'],
      {'optimizer.name': 'adamw', 'optimizer.weight_decay': 0.1, 'optimizer.decay_steps': 50},
    ),
    (
      ['advantage.name=rs_grpo', 'advantage.beta=-1.5', 'advantage.k=2'],
      {'advantage.beta': -1.5, 'advantage.k': 2, 'advantage.schedule.name': 'constant'},
    ),
    (
      ['advantage.name=passk_bootstrap', 'advantage.num_groups=3'],
      {'advantage.num_groups': 3},
    ),
    (
      ['advantage.schedule.name=step', 'advantage.schedule.at=7'],
      {'advantage.schedule.at': 7, 'advantage.schedule.final_k': 1},
    ),
    (
      [
        'advantage.schedule.name=piecewise',
        'advantage.schedule.boundaries=(10,)',
        'advantage.schedule.values=(2,)',
      ],
      {'advantage.schedule.boundaries': (10,), 'advantage.schedule.values': (2,)},
    ),
    (['eval.ks=(1,2)', 'checkpoint.best_metric=eval/pass@1'], {'eval.ks': (1, 2)}),
    (['seed=1', 'seed=2'], {'seed': 2}),
  ],
)
@pytest.mark.parametrize('form', ['equals', 'space', 'file', 'file with spaces'])
def test_words_set_fields(form, words, fields, parsed, tmp_path):
  words = [f'--config.{word}' for word in words]
  if 'space' in form:
    words = [word.replace('=', ' ', 1) for word in words]
  if 'file' in form:
    (tmp_path / 'flags').write_text('# What is varied.\n\n' + '\n'.join([BANDIT, *words]))
    # An absl parser of plain getopt would stop at the first word without a dash.
    config = parsed('--workdir', 'runs/x', f'--flagfile={tmp_path}/flags')
    assert flags.FLAGS.workdir == 'runs/x'
  else:
    config = parsed(BANDIT, *(part for word in words for part in word.split(' ')))
  for field, value in fields.items():
    *groups, last = field.split('.')
    group = config
    for name in groups:
      group = group[name]
    assert group.get(last) == value


def test_the_config_is_known_from_a_file_of_flags_too(tmp_path):
  (tmp_path / 'inner').write_text('--config configs/bandit.py\n')
  (tmp_path / 'outer').write_text(f'--flagfile={tmp_path}/inner\n--workdir runs/y\n')
  for words in (['--flagfile', f'{tmp_path}/outer'], [f'--flagfile={tmp_path}/outer']):
    words = expand(['main', *words])
    assert flag_value(words, 'config') == 'configs/bandit.py'
    assert flag_value(words, 'workdir') == 'runs/y'
  # As absl has it, the last one counts.
  assert flag_value(['main', '--workdir', 'a', '--workdir=b'], 'workdir') == 'b'
  assert flag_value(['main', '--other=a'], 'workdir') is None


@pytest.mark.parametrize(
  'word, message',
  [
    ('--config.sede=1', r'config.sede: unknown field \(did you mean seed\?\); expected one of \['),
    ('--config.nope=1', r"config.nope: unknown field; expected one of .*'advantage'.*'task'"),
    ('--config.advantage.kk=3', r"config.advantage.kk: unknown field.*'k'.*'schedule'"),
    ('--config.task.num_arm=4', r'config.task.num_arm: unknown field \(did you mean num_arms\?\)'),
    ('--config.task.name=mazes', r"task.name: expected one of .*'maze'.*, got 'mazes'"),
    ('--config.seed.x=1', r'config.seed.x: unknown field; expected one of \[\]'),
    ('--config=configs/nope.py', r"--config: expected a file, .*, got 'configs/nope.py'"),
    ('--config=configs/bandit.py:nope', r"--config: .*got 'nope'"),
    ('--flagfile=nowhere', r'--flagfile: expected a file of flags.*nowhere'),
  ],
)
@pytest.mark.parametrize('is_in_file', [False, True])
def test_a_typo_is_named(word, message, is_in_file, parsed, tmp_path):
  (tmp_path / 'flags').write_text(f'{word}\n')
  with pytest.raises(SystemExit, match=message):
    words = f'--flagfile={tmp_path}/flags' if is_in_file else word
    parsed(f'--workdir={tmp_path}/run', BANDIT, words)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('is_in_file', [False, True])
def test_a_flag_that_is_unknown_is_named(is_in_file, parsed, tmp_path, capfd):
  (tmp_path / 'flags').write_text('--wrokdir=x\n')
  with pytest.raises(SystemExit):
    parsed(BANDIT, f'--flagfile={tmp_path}/flags' if is_in_file else '--wrokdir=x')
  output = ''.join(capfd.readouterr())
  assert "Unknown command line flag 'wrokdir'. Did you mean: workdir" in output


_CONFIG = """
from configs import bandit
from pkpo_jax.tasks import TASKS, HiddenAnswer


class Own(HiddenAnswer):
  pass


TASKS['own'] = Own


def get_config():
  config = bandit.get_config('hidden_answer_quick')
  with config.unlocked():
    config.task.name = 'own'
  return config
"""


def test_files_of_flags_and_of_a_task_elsewhere_in_both_commands(tmp_path):
  """The config file registers a task; evaluation finds it by what the workdir has kept."""
  (tmp_path / 'own.py').write_text(_CONFIG)
  (tmp_path / 'train').write_text(
    f'--config={tmp_path}/own.py\n--config.num_train_steps 2\n--config.log.tensorboard=False\n'
  )
  (tmp_path / 'evaluate').write_text('--config.eval.num_samples 4\n--config.eval.ks=(1, 2)\n')

  def run(name, file):
    command = [sys.executable, '-m', f'pkpo_jax.{name}']
    words = ['--workdir', f'{tmp_path}/run', f'--flagfile={tmp_path}/{file}']
    found = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    return found.returncode, found.stdout, found.stderr

  code, _, errors = run('main', 'train')
  assert code == 0, errors
  code, output, errors = run('evaluate', 'evaluate')
  assert code == 0, errors
  assert 'run, step 2: ' in output and ' 4 samples of each' in output
  (tmp_path / 'evaluate').write_text('--config.eval.num_sample 4\n')
  code, _, errors = run('evaluate', 'evaluate')
  assert code == 1
  assert 'config.eval.num_sample: unknown field (did you mean num_samples?)' in errors
  assert 'Traceback' not in errors

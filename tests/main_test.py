"""The command: what users can mend is one line, a bug is a traceback, a full disk loses little."""

import errno
import functools
import os
import re
import sys
from types import SimpleNamespace

import pytest
from absl import flags

from configs import bandit
from pkpo_jax import main
from pkpo_jax.errors import MissingDataError, MissingPackageError, require_package
from pkpo_jax.metrics import read_metrics
from pkpo_jax.tasks import TASKS, HiddenAnswer
from tests.interruptions import metrics_text, run_command

_FIELDS = {
  'num_train_steps': 6,
  'eval.every': 2,
  'checkpoint.every': 2,
  'checkpoint.max_to_keep': 1,
  'log.every': 1,
  'log.tensorboard': False,
}
_ARGUMENTS = ['--config=configs/bandit.py:quick']
_ARGUMENTS += [f'--config.{name}={value}' for name, value in _FIELDS.items()]


def _config(**overrides):
  config = bandit.get_config('hidden_answer_quick')
  config.update_from_flattened_dict(_FIELDS | overrides)
  return config


@pytest.fixture
def run_main(monkeypatch):
  """Returns fn(config, workdir), which runs the command after its flags are parsed."""

  def run(config, workdir):
    one = {'coordinator_address': None, 'num_processes': None, 'process_id': None}
    values = SimpleNamespace(config=config, read_flags_from_files=list, distributed=False, **one)
    with monkeypatch.context() as patch:
      patch.setattr(flags, 'FLAGS', values)
      patch.setattr(main, '_WORKDIR', SimpleNamespace(value=str(workdir)))
      main.main(['main'])

  return run


def _disk_full_at(path):
  """Lets no file be opened below this path. In a process of its own: such a hook stays."""

  def no_room(event, args):
    if event == 'open' and str(args[0]).startswith(path):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

  sys.addaudithook(no_room)


def _run(workdir, prepare=None):
  """Runs the command in a process of its own: threads of a checkpointer that failed go on."""
  arguments = [*_ARGUMENTS, f'--workdir={workdir}']
  return run_command(arguments, workdir.with_suffix('.log'), prepare)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The metrics of a run that nothing disturbs."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  code, said = _run(workdir)
  assert code == 0, said
  return metrics_text(workdir)


# While the run goes on, and at its end, which waits for the last one.
@pytest.mark.parametrize('step', [4, 6])
def test_a_save_that_fails_is_one_line_and_the_run_can_go_on(step, whole, tmp_path):
  workdir = tmp_path / 'run'
  code, said = _run(workdir, functools.partial(_disk_full_at, f'{workdir}/checkpoints/{step}'))
  assert code == 1
  (line,) = [x for x in said.splitlines() if 'could not be saved' in x]
  assert f'checkpoint of step {step} ' in line
  assert 'No space left on device' in line
  assert not re.search(r'^E\d{4} ', said, re.M), 'the checkpointer logs its own errors'
  kept = [x.name for x in (workdir / 'checkpoints').iterdir() if x.name.isdigit()]
  assert kept == [str(step - 2)]
  code, said = _run(workdir)
  assert code == 0 and f'at step {step - 2}.' in said
  assert metrics_text(workdir) == whole
  assert [x.name for x in (workdir / 'checkpoints').iterdir()] == ['6']


def test_a_bug_in_the_loop_is_a_traceback(run_main, tmp_path, monkeypatch):
  class Wrong(HiddenAnswer):
    num_calls = 0

    def grade(self, prompts, rollout, key):
      Wrong.num_calls += 1
      if Wrong.num_calls == 5:
        raise ValueError('operands could not be broadcast together with shapes (2,) (3,)')
      return super().grade(prompts, rollout, key)

  monkeypatch.setitem(TASKS, 'hidden_answer', Wrong)
  with pytest.raises(ValueError, match='could not be broadcast'):
    run_main(_config(), tmp_path / 'run')
  assert read_metrics(tmp_path / 'run')[-1]['step'] > 0


@pytest.mark.parametrize(
  'error, is_line',
  [
    (ImportError('cannot import name'), False),
    (FileNotFoundError('x'), False),
    (ValueError('x'), False),
    (MissingPackageError("math_verify is not installed: pip install 'pkpo_jax[problems]'."), True),
    (MissingDataError('math: expected as source a folder, got none.'), True),
  ],
)
def test_a_bug_in_a_constructor_is_a_traceback(error, is_line, run_main, tmp_path, monkeypatch):
  class Wrong(HiddenAnswer):
    def __init__(self, num_contexts: int = 4, num_arms: int = 16, exponent: float = 1.0):
      raise error

  monkeypatch.setitem(TASKS, 'hidden_answer', Wrong)
  expected = SystemExit if is_line else type(error)
  with pytest.raises(expected) as caught:
    run_main(_config(), tmp_path / 'run')
  assert str(caught.value) == str(error)
  assert not (tmp_path / 'run').exists()


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
  require_package('absl', extra='train')
  monkeypatch.setitem(sys.modules, 'gemma', None)
  with pytest.raises(MissingPackageError, match=r'gemma is not installed: .*pkpo_jax\[gemma\]'):
    require_package('gemma', extra='gemma')

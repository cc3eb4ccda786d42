"""The command: what users can mend is one line, a bug is a traceback, a full disk loses little."""

import errno
import os
import sys
from types import SimpleNamespace

import pytest
from absl import flags

from configs import bandit
from pkpo_jax import main
from pkpo_jax.errors import MissingDataError, MissingPackageError, require_package
from pkpo_jax.metrics import read_metrics
from pkpo_jax.tasks import TASKS, HiddenAnswer
from pkpo_jax.train import train
from tests.garbage import leaves_garbage
from tests.interruptions import metrics_text


def _config(**overrides):
  config = bandit.get_config('hidden_answer_quick')
  fields = {
    'num_train_steps': 6,
    'eval.every': 2,
    'checkpoint.every': 2,
    'checkpoint.max_to_keep': 1,
    'log.every': 1,
    'log.tensorboard': False,
  }
  config.update_from_flattened_dict(fields | overrides)
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


_full = []  # Where there is no room at the moment.


def _no_room(event, args):
  if _full and event == 'open' and str(args[0]).startswith(_full[0]):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))


# While the run goes on, and at its end, which waits for the last one.
@leaves_garbage
@pytest.mark.parametrize('path', ['checkpoints/4', 'checkpoints/6'])
def test_a_save_that_fails_is_one_line_and_the_run_can_go_on(path, run_main, tmp_path, capfd):
  train(_config(), tmp_path / 'whole')
  sys.addaudithook(_no_room)
  _full.append(f'{tmp_path}/run/{path}')
  try:
    with pytest.raises(SystemExit) as stopped:
      run_main(_config(), tmp_path / 'run')
  finally:
    _full.clear()
  step = int(path.split('/')[1])
  (line,) = str(stopped.value).splitlines()  # sys.exit of a text: printed, and the exit code is 1.
  assert f'checkpoint of step {step} could not be saved' in line
  assert 'No space left on device' in line
  kept = [x.name for x in (tmp_path / 'run' / 'checkpoints').iterdir() if x.name.isdigit()]
  assert kept == [str(step - 2)]
  run_main(_config(), tmp_path / 'run')
  assert f'at step {step - 2}.' in capfd.readouterr().out
  assert metrics_text(tmp_path / 'run') == metrics_text(tmp_path / 'whole')
  assert [x.name for x in (tmp_path / 'run' / 'checkpoints').iterdir()] == ['6']


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

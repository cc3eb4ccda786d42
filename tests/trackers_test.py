"""Metrics for Weights & Biases, offline and with a service that fails; a profile of steps."""

import json
import sys
import types

import pytest

from configs import bandit
from pkpo_jax.errors import FieldError, MissingPackageError
from pkpo_jax.metrics import MetricWriter, read_metrics
from pkpo_jax.run import make_run
from pkpo_jax.trackers import Wandb
from pkpo_jax.train import train


def small(**changes):
  config = bandit.get_config('hidden_answer_quick')
  config.num_train_steps, config.optimizer.warmup_steps = 4, 0
  config.eval.every, config.eval.num_prompts = 4, 4
  config.log.every, config.log.tensorboard = 1, False
  config.log.update(changes)
  return config


@pytest.fixture
def offline(monkeypatch, tmp_path):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  for name in ('WANDB_CONFIG_DIR', 'WANDB_CACHE_DIR', 'WANDB_DATA_DIR'):
    monkeypatch.setenv(name, str(tmp_path / 'wandb_home'))


def test_offline_and_a_profile(offline, tmp_path):
  """wandb's own files are in the workdir and hold what metrics.jsonl has; so is the profile."""
  workdir = tmp_path / 'run'
  train(small(writers=('wandb',), profile_steps=(1, 3)), workdir)
  (file,) = workdir.glob('wandb/offline-run-*/run-*.wandb')
  content = file.read_bytes()
  names = {name for line in read_metrics(workdir) for name in line} - {'step'}
  assert {'train/loss', 'eval/pass@1'} <= names
  assert all(name.encode() in content for name in names)
  assert b'hidden_answer' in content, 'the config'
  assert list((workdir / 'profile').rglob('*.xplane.pb'))


def stand_in(monkeypatch, **methods):
  """Puts a module in wandb's place; returns what its run was told."""
  told = []

  def default(name):
    return lambda *args, **kwargs: told.append((name, args, kwargs))

  run = types.SimpleNamespace(
    log=methods.get('log', default('log')), finish=methods.get('finish', default('finish'))
  )

  def init(**kwargs):
    told.append(('init', (), kwargs))
    return run

  module = types.SimpleNamespace(init=methods.get('init', init))
  monkeypatch.setitem(sys.modules, 'wandb', module)
  return told


def fail(*args, **kwargs):
  raise ConnectionError('the network is\ngone')


def test_what_the_service_is_told(monkeypatch, tmp_path):
  told = stand_in(monkeypatch)
  monkeypatch.setenv('WANDB_PROJECT', 'mine')
  with MetricWriter(tmp_path, 0, False, [Wandb(tmp_path, {'a': {'b': 1}})]) as writer:
    writer.write(3, {'train/loss': 0.5})
  (_, _, begun), logged, ended = told
  assert (begun['project'], begun['name'], begun['config']) == (
    'mine',
    tmp_path.name,
    {'a': {'b': 1}},
  )
  assert begun['resume'] == 'allow' and begun['dir'] == str(tmp_path)
  assert logged == ('log', ({'train/loss': 0.5},), {'step': 3}) and ended[0] == 'finish'
  again = stand_in(monkeypatch)
  Wandb(tmp_path, {})
  assert again[0][2]['id'] == begun['id'], 'a resumed run goes on in the same'


@pytest.mark.parametrize(
  'method, problem',
  [
    ('init', 'wandb was not begun'),
    ('log', 'wandb did not take the metrics of step 3'),
    ('finish', 'wandb was not ended'),
  ],
)
def test_a_service_that_fails_stops_nothing(monkeypatch, tmp_path, capsys, method, problem):
  stand_in(monkeypatch, **{method: fail})
  with MetricWriter(tmp_path, 0, False, [Wandb(tmp_path, {})]) as writer:
    writer.write(3, {'train/loss': 0.5})
  lines = capsys.readouterr().err.splitlines()
  assert lines == [f'{problem} (ConnectionError: the network is gone); the workdir has them.']
  assert json.loads((tmp_path / 'metrics.jsonl').read_text()) == {'step': 3, 'train/loss': 0.5}


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'writers': ('wandbb',)}, r"log.writers: expected some of \('wandb',\), got 'wandbb'"),
    ({'level': 'loud'}, "log.level: expected one of .*'warning'.*, got 'loud'"),
    ({'profile_steps': (3,)}, 'log.profile_steps: expected none, or the first step and the one'),
    ({'profile_steps': (3, 3)}, 'log.profile_steps: expected none'),
    ({'profile_steps': (-1, 3)}, 'log.profile_steps: expected none'),
  ],
)
def test_wrong_fields(changes, expected):
  with pytest.raises(FieldError, match=expected):
    make_run(small(**changes))


def test_a_package_that_is_not_there(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(MissingPackageError, match=r'wandb is not installed: .*pkpo_jax\[wandb\]'):
    make_run(small(writers=('wandb',)))

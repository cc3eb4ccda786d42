"""A run goes on with another config where that changes no number, and else names the fields."""

import json

import pytest

from pkpo_jax.errors import WorkdirError
from pkpo_jax.workdir import claim_workdir, read_config

CONFIG = {
  'seed': 0,
  'num_train_steps': 10,
  'warm_start': None,
  'task': {'num_workers': 2, 'size': 5},
  'policy': {'weights': None},
  'optimizer': {'decay': 'constant', 'decay_steps': None},
  'checkpoint': {'every': 5},
  'log': {'every': 1},
  'mesh': {'fsdp': 1},
}


def changed(**fields):
  """Returns the config with other values; task__size stands for task.size."""
  config = json.loads(json.dumps(CONFIG))
  for field, value in fields.items():
    *groups, last = field.split('__')
    group = config
    for name in groups:
      group = group[name]
    group[last] = value
  return config


@pytest.fixture
def workdir(tmp_path):
  claim_workdir(tmp_path / 'run', CONFIG)
  (tmp_path / 'run' / 'checkpoints' / '7').mkdir(parents=True)
  return tmp_path / 'run'


@pytest.mark.parametrize(
  'fields',
  [
    {'log__every': 2, 'checkpoint__every': 1, 'mesh__fsdp': 4, 'task__num_workers': 8},
    {'num_train_steps': 20},
    {'num_train_steps': 7},
  ],
)
def test_what_changes_no_number_may_change_and_is_kept(fields, workdir, capsys):
  claim_workdir(workdir, changed(**fields))
  assert read_config(workdir) == changed(**fields)
  (line,) = (workdir / 'config_history.jsonl').read_text().splitlines()
  entry, said = json.loads(line), capsys.readouterr().out.splitlines()
  names = {field.replace('__', '.') for field in fields}
  assert entry['step'] == 7 and entry['changed'].keys() == names
  assert {line.split(':')[0] for line in said} == names
  claim_workdir(workdir, changed(**fields))
  assert not capsys.readouterr().out, 'nothing has changed since'


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'seed': 1, 'task__size': 6}, 'seed: 0 there, 1 now; task.size: 5 there, 6 now'),
    ({'num_train_steps': 6}, 'come to step 7, beyond num_train_steps = 6'),
    ({'num_train_steps': 20, 'optimizer__decay': 'linear'}, 'optimizer.decay'),
    ({'policy__weights': 'nowhere'}, "policy.weights: None there, 'nowhere' now"),
  ],
)
def test_what_changes_numbers_is_refused(fields, words, workdir):
  with pytest.raises(WorkdirError, match=words):
    claim_workdir(workdir, changed(**fields))
  assert read_config(workdir) == CONFIG
  assert not (workdir / 'config_history.jsonl').exists()


def test_a_horizon_of_its_own_lets_a_run_grow(tmp_path):
  linear = {'optimizer__decay': 'linear'}
  claim_workdir(tmp_path / 'tied', changed(**linear))
  with pytest.raises(WorkdirError, match='num_train_steps: 10 there, 20 now'):
    claim_workdir(tmp_path / 'tied', changed(num_train_steps=20, **linear))
  fixed = linear | {'optimizer__decay_steps': 10}
  claim_workdir(tmp_path / 'fixed', changed(**fixed))
  claim_workdir(tmp_path / 'fixed', changed(num_train_steps=20, **fixed))


def test_weights_may_move_but_not_change(tmp_path):
  for name, content in (('here', b'1'), ('there', b'1'), ('other', b'2')):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'model.safetensors').write_bytes(content)
  weights = lambda name: changed(policy__weights=str(tmp_path / name))
  claim_workdir(tmp_path / 'run', weights('here'))
  claim_workdir(tmp_path / 'run', weights('there'))
  with pytest.raises(WorkdirError, match='policy.weights: .*there.* there, .*other.* now'):
    claim_workdir(tmp_path / 'run', weights('other'))


@pytest.mark.parametrize('text', ['', '{"seed": 0', '[1]'])
def test_a_damaged_config_is_named_with_what_to_do(text, workdir):
  (workdir / 'config.json').write_text(text)
  with pytest.raises(WorkdirError, match=r'run/config.json: expected JSON|a JSON object'):
    claim_workdir(workdir, CONFIG)

"""A run goes on with another config where that changes no number, and else names the fields."""

import json

import jax
import pytest

from pkpo_jax.errors import WorkdirError
from pkpo_jax.workdir import (
  check_workdir,
  claim_workdir,
  keep_compilations,
  lock_workdir,
  read_config,
)

CONFIG = {
  'seed': 0,
  'num_train_steps': 10,
  'warm_start': None,
  'task': {'num_workers': 2, 'size': 5},
  'policy': {'weights': None, 'remat': False, 'log_prob_chunk': 16, 'num_packings': 0},
  'optimizer': {'decay': 'constant', 'decay_steps': None},
  'checkpoint': {'every': 5},
  'log': {'every': 1, 'rolling_steps': 50},
  'eval': {'every': 5, 'num_samples': 4},
  'loss': {'num_microbatches': 1, 'num_sample_blocks': 1, 'num_lengths': 1},
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


def claim(workdir, config):
  with lock_workdir(workdir):
    claim_workdir(workdir, config)


@pytest.fixture
def workdir(tmp_path):
  claim(tmp_path / 'run', CONFIG)
  (tmp_path / 'run' / 'checkpoints' / '7').mkdir(parents=True)
  return tmp_path / 'run'


@pytest.mark.parametrize(
  'fields',
  [
    {'log__every': 2, 'checkpoint__every': 1, 'mesh__fsdp': 4, 'task__num_workers': 8},
    {'eval__every': 2},
    {'loss__num_microbatches': 2, 'policy__remat': True, 'policy__log_prob_chunk': 8},
    {'loss__num_sample_blocks': 2, 'loss__num_lengths': 3},
    {'policy__num_packings': 2},
    {'num_train_steps': 20},
    {'num_train_steps': 7},
  ],
)
def test_what_changes_no_number_may_change_and_is_kept(fields, workdir, capsys):
  claim(workdir, changed(**fields))
  assert read_config(workdir) == changed(**fields)
  (line,) = (workdir / 'config_history.jsonl').read_text().splitlines()
  entry, said = json.loads(line), capsys.readouterr().out.splitlines()
  names = {field.replace('__', '.') for field in fields}
  assert entry['step'] == 7 and entry['changed'].keys() == names
  assert {line.split(':')[0] for line in said} == names
  claim(workdir, changed(**fields))
  assert not capsys.readouterr().out, 'nothing has changed since'


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'seed': 1, 'task__size': 6}, 'seed: 0 there, 1 now; task.size: 5 there, 6 now'),
    ({'log__rolling_steps': 10}, 'log.rolling_steps: 50 there, 10 now'),
    ({'eval__num_samples': 8}, 'eval.num_samples: 4 there, 8 now'),
    ({'num_train_steps': 6}, 'come to step 7, beyond num_train_steps = 6'),
    ({'num_train_steps': 20, 'optimizer__decay': 'linear'}, 'optimizer.decay'),
    ({'policy__weights': 'nowhere'}, "policy.weights: None there, 'nowhere' now"),
  ],
)
def test_what_changes_numbers_is_refused(fields, words, workdir):
  with pytest.raises(WorkdirError, match=words):
    claim(workdir, changed(**fields))
  assert read_config(workdir) == CONFIG
  assert not (workdir / 'config_history.jsonl').exists()


def test_a_horizon_of_its_own_lets_a_run_grow(tmp_path):
  linear = {'optimizer__decay': 'linear'}
  claim(tmp_path / 'tied', changed(**linear))
  with pytest.raises(WorkdirError, match='num_train_steps: 10 there, 20 now'):
    claim(tmp_path / 'tied', changed(num_train_steps=20, **linear))
  fixed = linear | {'optimizer__decay_steps': 10}
  claim(tmp_path / 'fixed', changed(**fixed))
  claim(tmp_path / 'fixed', changed(num_train_steps=20, **fixed))


def test_weights_may_move_but_not_change(tmp_path):
  for name, content in (('here', b'1'), ('there', b'1'), ('other', b'2')):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'model.safetensors').write_bytes(content)
  weights = lambda name: changed(policy__weights=str(tmp_path / name))
  claim(tmp_path / 'run', weights('here'))
  claim(tmp_path / 'run', weights('there'))
  with pytest.raises(WorkdirError, match='policy.weights: .*there.* there, .*other.* now'):
    claim(tmp_path / 'run', weights('other'))


@pytest.mark.parametrize('text', ['', '{"seed": 0', '[1]'])
def test_a_damaged_config_is_named_with_what_to_do(text, workdir):
  (workdir / 'config.json').write_text(text)
  with pytest.raises(WorkdirError, match=r'run/config.json: expected JSON|a JSON object'):
    claim(workdir, CONFIG)


def test_a_check_changes_nothing(workdir, capsys):
  files = lambda: {x: x.stat().st_mtime_ns for x in [workdir, *workdir.rglob('*')]}
  before = files()
  assert check_workdir(workdir, changed(log__every=2)) == {'log.every': (1, 2)}
  assert check_workdir(workdir, CONFIG) == {}
  with pytest.raises(WorkdirError, match='seed: 0 there, 1 now'):
    check_workdir(workdir, changed(seed=1))
  assert files() == before and not capsys.readouterr().out
  assert check_workdir(workdir.parent / 'new', CONFIG) == {}
  assert not (workdir.parent / 'new').exists()


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(WorkdirError, match=r'workdir: cannot write to .*file/run: Not a directory'):
    with lock_workdir(tmp_path / 'file' / 'run'):
      pass


def test_compiled_programs_are_kept_beside_the_workdir_unless_another_place_is_named(tmp_path):
  names = 'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs'
  before = {name: getattr(jax.config, name) for name in names}
  try:
    for named, expected in (('elsewhere', 'elsewhere'), (None, str(tmp_path / 'runs/.jax_cache'))):
      jax.config.update(names[0], named)
      keep_compilations(tmp_path / 'runs' / 'k8')
      assert jax.config.jax_compilation_cache_dir == expected
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    assert not (tmp_path / 'runs').exists(), 'a folder before anything is compiled'
  finally:
    for name, value in before.items():
      jax.config.update(name, value)

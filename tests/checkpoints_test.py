"""Checkpoints: all of a run bit for bit, the last and the best, and what damage is noticed."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from pkpo_jax.checkpoints import (
  Checkpoints,
  UnreadableCheckpoint,
  _checksums,
  restore_params,
)
from pkpo_jax.errors import SaveError
from pkpo_jax.settings import CheckpointSettings
from pkpo_jax.tally import Tally
from pkpo_jax.types import Snapshot, TrainState
from pkpo_jax.workdir import claim_workdir

ITEMS = ('params', 'optimizer', 'tally', 'key', 'position', 'score', 'checksums')


def _settings(max_to_keep=2, best_metric=None):
  return CheckpointSettings(every=1, max_to_keep=max_to_keep, best_metric=best_metric)


def _snapshot(step):
  """Returns a snapshot that differs in every part from those of other steps."""
  keys = jax.random.split(jax.random.key(step), 3)
  kernel = jax.random.normal(keys[0], (64, 32))
  bias = jax.random.normal(keys[1], (32,), jnp.bfloat16)
  params = {'head': {'kernel': kernel, 'bias': bias}}
  optimizer = optax.adam(1e-3)
  _, opt_state = optimizer.update(params, optimizer.init(params))
  recent = np.array([[step, 0.1], [np.nan, np.nan]], np.float32)
  tally = Tally(np.arange(50) % (step + 2) == 0, recent)
  position = {'step': step, 'data': 8 * step, 'k': step + 1}
  return Snapshot(TrainState(jnp.int32(step), params, opt_state), keys[2], tally, position)


def _bits(snapshot):
  """Returns every leaf's type and bytes."""
  snapshot = snapshot.replace(key=jax.random.key_data(snapshot.key))
  leaves = [(type(leaf).__name__, np.asarray(leaf)) for leaf in jax.tree.leaves(snapshot)]
  return [(name, x.dtype, x.shape, x.tobytes()) for name, x in leaves]


def _save(workdir, steps, settings=None, evaluations=None):
  with Checkpoints(workdir, settings or _settings()) as checkpoints:
    checkpoints.restore(_snapshot(0))
    for step in steps:
      checkpoints.save(_snapshot(step), (evaluations or {}).get(step, {}))


def _restore(workdir, settings=None):
  with Checkpoints(workdir, settings or _settings()) as checkpoints:
    return checkpoints.restore(_snapshot(0))


def _steps(workdir):
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir with checkpoints 1 and 2, not to be changed."""
  workdir = tmp_path_factory.mktemp('saved')
  _save(workdir, [1, 2])
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  """A copy of it."""
  return pathlib.Path(shutil.copytree(saved, tmp_path / 'run'))


def test_everything_comes_back_bit_for_bit(saved):
  assert _bits(_restore(saved)) == _bits(_snapshot(2))
  assert jax.tree.structure(_restore(saved)) == jax.tree.structure(_snapshot(2))


def test_without_a_checkpoint_the_snapshot_stays(tmp_path):
  assert _bits(_restore(tmp_path)) == _bits(_snapshot(0))


def test_restoring_frees_the_state_that_it_replaces(saved):
  fresh = _snapshot(0)
  with Checkpoints(saved, _settings()) as checkpoints:
    restored = checkpoints.restore(fresh)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(fresh.state))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(restored.state))


def test_problems_without_numbers_and_an_optimizer_without_state(tmp_path):
  snapshot = _snapshot(1)
  tally = Tally(None, snapshot.tally.recent)
  opt_state = optax.sgd(1.0).init(snapshot.state.params)
  assert not jax.tree.leaves(opt_state)
  snapshot = snapshot.replace(state=snapshot.state.replace(opt_state=opt_state), tally=tally)
  before = _bits(snapshot)
  with Checkpoints(tmp_path, _settings()) as checkpoints:
    checkpoints.save(snapshot, {})
  with Checkpoints(tmp_path, _settings()) as checkpoints:
    assert _bits(checkpoints.restore(snapshot)) == before


def test_checksums_do_not_depend_on_how_arrays_are_split(tmp_path):
  """Saved from one device, restored onto eight, checked there."""
  _save(tmp_path, [1])
  mesh = jax.make_mesh((4, 2), ('a', 'b'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  split = lambda x: NamedSharding(mesh, PartitionSpec('a', 'b') if x.ndim == 2 else PartitionSpec())
  model = _snapshot(0)
  model = model.replace(state=jax.tree.map(lambda x: jax.device_put(x, split(x)), model.state))
  with Checkpoints(tmp_path, _settings()) as checkpoints:
    restored = checkpoints.restore(model)
  assert _bits(restored) == _bits(_snapshot(1))
  assert restored.state.params['head']['kernel'].sharding.shard_shape((64, 32)) == (16, 16)


# The last and the best.

SCORES = {1: 0.1, 2: 0.9, 3: 0.2, 5: 0.9, 6: 0.3}  # 4 has none; 2 and 5 are equal.


@pytest.mark.parametrize(
  'max_to_keep, best_metric, kept',
  [
    (2, None, [6, 7]),
    (1, 'eval/pass@1', [2, 7]),
    (2, 'eval/pass@1', [2, 6, 7]),
    (6, 'eval/pass@1', [2, 3, 4, 5, 6, 7]),
  ],
)
def test_the_last_and_the_best_stay(max_to_keep, best_metric, kept, tmp_path):
  """Whether in one go or in two."""
  evaluations = {
    step: {'eval/pass@2': -float(step), 'eval/pass@1': x} for step, x in SCORES.items()
  }
  settings = _settings(max_to_keep, best_metric)
  _save(tmp_path / 'one', range(1, 8), settings, evaluations)
  _save(tmp_path / 'two', range(1, 5), settings, evaluations)
  _save(tmp_path / 'two', range(5, 8), settings, evaluations)
  assert _steps(tmp_path / 'one') == _steps(tmp_path / 'two') == kept


def test_a_checkpoint_without_evaluation_is_never_the_best(tmp_path):
  _save(tmp_path, [1, 2, 3], _settings(1, 'eval/pass@1'))
  assert _steps(tmp_path) == [3]
  with pytest.raises(FileNotFoundError, match='no checkpoint knows its evaluation'):
    restore_params(tmp_path, _model(), 'best')
  _save(tmp_path, [4, 5], _settings(1, 'eval/pass@1'), {4: {'eval/pass@1': -1.0}})
  assert _steps(tmp_path) == [4, 5]
  assert restore_params(tmp_path, _model(), 'best')[0] == 4


def test_scores_of_another_metric_do_not_count(tmp_path):
  evaluations = {step: {'eval/pass@1': 0.9 - step / 10, 'eval/pass@8': 0.5} for step in range(1, 6)}
  _save(tmp_path, [1, 2], _settings(1, 'eval/pass@1'), evaluations)
  assert _steps(tmp_path) == [1, 2]
  # pass@1 of step 1 is larger than any pass@8.
  _save(tmp_path, [3, 4], _settings(1, 'eval/pass@8'), evaluations)
  assert _steps(tmp_path) == [3, 4]
  assert restore_params(tmp_path, _model(), 'best')[0] == 3
  # A run that keeps no best checkpoint from here on still has the one that it kept.
  _save(tmp_path, [5], _settings(2), evaluations)
  assert restore_params(tmp_path, _model(), 'best')[0] == 4


def test_a_step_is_not_passed_over_in_silence(workdir):
  with Checkpoints(workdir, _settings()) as checkpoints:
    with pytest.raises(SaveError, match='step 2 could not be saved: .*2 already exists'):
      checkpoints.save(_snapshot(2), {})


# Damage.


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _damage(folder, how):
  files = sorted((path for path in folder.rglob('*') if path.is_file()), key=_size)
  if how == 'one flip':  # In the largest file: the numbers.
    _flip(files[-1])
  elif how == 'missing':
    shutil.rmtree(folder)
  else:
    for path in files:
      if _size(path):
        _flip(path) if how == 'flip' else path.write_bytes(path.read_bytes()[: _size(path) // 2])


def _size(path):
  return path.stat().st_size


DAMAGES = [(item, how) for item in ITEMS for how in ('flip', 'truncated', 'missing')]


@pytest.mark.parametrize('item, how', [*DAMAGES, ('params', 'one flip'), ('optimizer', 'one flip')])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(item, how, workdir, capfd):
  damaged = workdir / 'checkpoints' / '2'
  _damage(damaged / item, how)
  assert _bits(_restore(workdir)) == _bits(_snapshot(1))
  said = capfd.readouterr().err
  assert f'Cannot read checkpoint {damaged}: ' in said
  if how == 'one flip':
    assert f'the checksum of {item}/' in said, 'nobody else notices'
  assert _steps(workdir) == [1]
  assert [path.name for path in (workdir / 'corrupt').iterdir()] == ['2']


def test_the_step_of_a_damaged_checkpoint_can_be_saved_again(workdir):
  """And be damaged again."""
  for names in (['2'], ['2', '2.1']):
    _damage(workdir / 'checkpoints' / '2' / 'tally', 'flip')
    assert _bits(_restore(workdir)) == _bits(_snapshot(1))
    assert sorted(path.name for path in (workdir / 'corrupt').iterdir()) == names
    _save(workdir, [2])
    assert _bits(_restore(workdir)) == _bits(_snapshot(2))


def test_one_wrong_bit_in_any_place_changes_the_checksum(saved, tmp_path):
  """Of any type; 20 random bits each."""
  rng = np.random.default_rng(0)
  for dtype in ('float32', 'bfloat16', 'int32', 'uint8', 'bool'):
    good = rng.integers(0, 2, (5, 7)).astype(jnp.dtype(dtype))
    expected = _checksums({'tally': {'x': good}})
    for _ in range(20):
      raw = bytearray(good.tobytes())
      place = rng.integers(len(raw))
      raw[place] ^= 1 if dtype == 'bool' else 1 << rng.integers(8)
      bad = np.frombuffer(raw, good.dtype).reshape(5, 7)
      assert _checksums({'tally': {'x': bad}}) != expected


def test_if_none_can_be_read_all_are_named_and_nothing_begins_afresh(workdir, capfd):
  for step in (1, 2):
    _damage(workdir / 'checkpoints' / str(step) / 'params', 'missing')
  with pytest.raises(UnreadableCheckpoint, match=r'(?s)none.*2: .*1: .*good copies.*another work'):
    _restore(workdir)
  assert _steps(workdir) == [1, 2]
  assert not (workdir / 'corrupt').exists()


def test_an_old_checkpoint_that_is_half_deleted_is_no_trouble(workdir):
  """A run may be killed while it deletes one."""
  for item in ITEMS[::2]:
    shutil.rmtree(workdir / 'checkpoints' / '1' / item)
  (workdir / 'checkpoints' / '0').mkdir()
  settings = _settings(2, 'eval/pass@1')
  assert _bits(_restore(workdir, settings)) == _bits(_snapshot(2))
  _save(workdir, [3, 4], settings)
  assert _steps(workdir) == [3, 4]


def test_a_renamed_checkpoint_is_damaged(workdir, capfd):
  checkpoints = workdir / 'checkpoints'
  shutil.copytree(checkpoints / '1', checkpoints / '3')
  assert _bits(_restore(workdir)) == _bits(_snapshot(2))
  assert 'holds step 1' in capfd.readouterr().err


def test_a_damaged_score_is_named(workdir, capfd):
  settings = _settings(1, 'eval/pass@1')
  _save(workdir, [3, 4], settings, {3: {'eval/pass@1': 1.0}})
  _damage(workdir / 'checkpoints' / '3' / 'score', 'flip')
  _save(workdir, [5], settings)
  assert 'It does not count as the best' in capfd.readouterr().err
  assert _steps(workdir) == [5]


# Parameters alone.


def _model(dtype=None, sharding=None):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype, sharding=sharding),
    _snapshot(0).state.params,
  )


def _assert_params(found, step):
  expected = _snapshot(step).state.params
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, expected)


def test_parameters_of_the_newest_and_of_a_named_step(saved):
  for step, expected in ((None, 2), (1, 1), (2, 2)):
    found, params = restore_params(saved, _model(), step)
    assert found == expected
    _assert_params(params, expected)
    for leaf in jax.tree.leaves(params):
      assert leaf.sharding.device_set == {jax.devices()[0]}


def test_parameters_go_where_and_are_of_what_type_they_are_wanted(saved):
  mesh = jax.make_mesh((8,), ('a',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec('a'))
  _, params = restore_params(str(saved), _model(jnp.float32, sharding), 1)
  for leaf in jax.tree.leaves(params):
    assert leaf.sharding == sharding and leaf.dtype == jnp.float32
  as_saved = jax.tree.map(lambda x, y: x.astype(y.dtype), params, _model())
  _assert_params(as_saved, 1)


def test_a_workdir_with_damage_gives_the_newest_parameters_and_stays(workdir, capfd):
  damaged = workdir / 'checkpoints' / '2'
  _damage(damaged / 'params', 'one flip')
  found, params = restore_params(workdir, _model())
  assert found == 1
  _assert_params(params, 1)
  assert f'Cannot read checkpoint {damaged}' in capfd.readouterr().err
  assert _steps(workdir) == [1, 2]
  with pytest.raises(UnreadableCheckpoint, match='2.*params/head/kernel'):
    restore_params(workdir, _model(), 2)


def test_damage_elsewhere_does_not_matter_to_parameters(workdir):
  for item in ('optimizer', 'tally', 'key', 'score'):
    shutil.rmtree(workdir / 'checkpoints' / '2' / item)
  found, params = restore_params(workdir, _model())
  assert found == 2
  _assert_params(params, 2)


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda head: head | {'scale': head['bias']},
      ['head/scale', 'expected one of shape (32,)', 'found none'],
    ),
    (
      lambda head: {'kernel': head['kernel']},
      ['head/bias', 'expected none', 'found one of shape (32,)'],
    ),
    (
      lambda head: head | {'kernel': jax.ShapeDtypeStruct((32, 64), jnp.float32)},
      ['head/kernel', '(32, 64)', '(64, 32)'],
    ),
  ],
)
def test_other_names_or_shapes_are_refused(change, words, saved, capfd):
  model = {'head': change(_model()['head'])}
  with pytest.raises(ValueError) as caught:
    restore_params(saved, model)
  assert not isinstance(caught.value, UnreadableCheckpoint)
  for word in (*words, 'checkpoints/2'):
    assert word in str(caught.value)
  assert not capfd.readouterr().err


def test_what_is_not_there_is_said(saved, tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere: expected the workdir.*no such folder'):
    restore_params(tmp_path / 'nowhere', _model())
  with pytest.raises(FileNotFoundError, match='expected the workdir.*no checkpoint'):
    restore_params(tmp_path, _model())
  assert not list(tmp_path.iterdir())
  with pytest.raises(FileNotFoundError, match=r'no checkpoint of step 3, only of \[1, 2\]'):
    restore_params(saved, _model(), 3)


# config.json.


def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  def killed(self, target):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
      claim_workdir(tmp_path, {'seed': 1})
  assert not (tmp_path / 'config.json').exists()
  claim_workdir(tmp_path, {'seed': 2})
  with pytest.raises(ValueError, match='seed: 2 there, 1 now'):
    claim_workdir(tmp_path, {'seed': 1})

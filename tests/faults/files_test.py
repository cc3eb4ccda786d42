"""Files that cannot be written, or go away, under a run: one line, and the rerun is exact."""

import errno
import functools
import os
import re
import shutil
import sys
import time

import pytest

from pkpo_jax.errors import SaveError
from pkpo_jax.metrics import MetricWriter
from pkpo_jax.tasks import HiddenAnswer
from pkpo_jax.train import train
from tests.faults.cases import ARGUMENTS, make_config
from tests.interruptions import metrics_text, run_command

_full = []  # Paths where there is no room at the moment.


def _no_room(event, args):
  if _full and event == 'open' and str(args[0]).startswith(_full[0]) and args[1] != 'r':
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))


class Full:
  """A file on a full disk."""

  def __init__(self, file, num_lines):
    self._file, self._left = file, num_lines

  def write(self, text):
    if not self._left:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    self._left -= 1
    return self._file.write(text)

  def flush(self):
    self._file.flush()

  def close(self):
    self._file.close()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The metrics and samples of a run that nothing disturbs."""
  return _files(train_in(tmp_path_factory.mktemp('whole')))


def train_in(workdir):
  train(make_config(), workdir)
  return workdir


def _files(workdir):
  samples = [(workdir / f'samples/{split}.jsonl').read_bytes() for split in ('train', 'eval')]
  return metrics_text(workdir), samples


def test_a_disk_full_of_metrics(whole, tmp_path, monkeypatch):
  opened = MetricWriter.__init__

  def full(self, *arguments):
    opened(self, *arguments)
    self._file = Full(self._file, num_lines=6)

  with monkeypatch.context() as patch:
    patch.setattr(MetricWriter, '__init__', full)
    with pytest.raises(SaveError, match='metrics.jsonl: step 4 could not be written: .*No space'):
      train_in(tmp_path)
  assert _files(train_in(tmp_path)) == whole


@pytest.mark.parametrize('name', ['samples/train.jsonl', 'samples/eval.jsonl'])
def test_a_disk_full_of_samples(name, whole, tmp_path):
  sys.addaudithook(_no_room)
  _full.append(str(tmp_path / name))
  try:
    with pytest.raises(SaveError, match=f'{name}: step 0 could not be written: .*No space'):
      train_in(tmp_path)
  finally:
    _full.clear()
  assert _files(train_in(tmp_path)) == whole


def _remove_checkpoints(workdir):
  """Moves the folder away before step 5; in a process of its own."""
  prompts = HiddenAnswer.prompts

  def remove(self, step, *arguments):
    if step == 5:
      (workdir / 'checkpoints').rename(workdir / 'away')
    return prompts(self, step, *arguments)

  HiddenAnswer.prompts = remove


def test_checkpoints_that_are_removed_under_the_run(whole, tmp_path, capfd):
  workdir, checkpoints = tmp_path / 'run', tmp_path / 'run' / 'checkpoints'
  code, said = run_command(
    [*ARGUMENTS, f'--workdir={workdir}'],
    tmp_path / 'run.log',
    functools.partial(_remove_checkpoints, workdir),
  )
  assert code == 1
  assert re.search('could not be saved: somebody has removed .*checkpoints. ', said)
  shutil.rmtree(checkpoints, ignore_errors=True)
  (workdir / 'away').rename(checkpoints)
  assert _files(train_in(workdir)) == whole
  assert re.search(r'at step [24]\.', capfd.readouterr().out)  # 4 may not have been whole yet.
  shutil.rmtree(checkpoints)
  assert _files(train_in(workdir)) == whole
  assert 'no checkpoint: beginning at step 0 again' in capfd.readouterr().out


def test_a_clock_that_is_set_back(whole, tmp_path, monkeypatch):
  now, prompts = time.time, HiddenAnswer.prompts
  offset = [0.0]

  def set_back(self, step, *arguments):
    offset[0] = -86400.0 * step
    return prompts(self, step, *arguments)

  monkeypatch.setattr(time, 'time', lambda: now() + offset[0])
  monkeypatch.setattr(HiddenAnswer, 'prompts', set_back)
  assert _files(train_in(tmp_path)) == whole

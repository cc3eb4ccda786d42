"""A run that is interrupted at any moment goes on as if it had not been."""

import itertools
import os
import random
import re
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from pkpo_jax.metrics import read_metrics
from pkpo_jax.schedules import SCHEDULES, Schedule
from pkpo_jax.stopping import Stopping
from pkpo_jax.tasks import HiddenAnswer
from pkpo_jax.train import train
from tests.interruptions import (
  Interruption,
  bandit_config,
  metrics_text,
  text_config,
  train_in_process,
)

NUM_MOMENTS = 10


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Uninterrupted runs: text of the metrics, seconds and number of operations on files."""
  found = {}
  for make_config in (bandit_config, text_config):
    folder = tmp_path_factory.mktemp(make_config.__name__)
    for name in ('first', 'again'):  # The first may compile what the others find compiled.
      begin = time.monotonic()
      exit_code, num_operations = train_in_process(folder / name, make_config)
      seconds = time.monotonic() - begin
      assert exit_code == 0, (folder / f'{name}.log').read_text()
    assert metrics_text(folder / 'first') == metrics_text(folder / 'again')
    found[make_config] = metrics_text(folder / 'again'), seconds, num_operations
  return found


def _goes_on_like(whole, make_config, workdir):
  """Checks that the same command ends the run, with the metrics of an uninterrupted one.

  Returns the scores of the evaluations and the steps of the checkpoints.
  """
  exit_code, _ = train_in_process(workdir, make_config)
  assert exit_code == 0, workdir.with_suffix('.log').read_text()
  assert metrics_text(workdir) == whole[make_config][0]
  lines = read_metrics(workdir)
  assert [line['step'] for line in lines if 'train/loss' in line] == list(range(6))
  scores = {line['step']: line['eval/pass@1'] for line in lines if 'eval/pass@1' in line}
  assert list(scores) == [0, 2, 4, 6]
  kept = {int(path.name) for path in (workdir / 'checkpoints').iterdir()}
  assert kept >= {4, 6}
  return scores, kept


@pytest.mark.parametrize('i', range(NUM_MOMENTS))
def test_killed_at_a_random_moment(i, whole, tmp_path):
  """One half in time, in NUM_MOMENTS / 2 parts of the run; the other at operations on files."""
  _, seconds, num_operations = whole[bandit_config]
  part = (i // 2 + random.Random(i).random()) / (NUM_MOMENTS / 2)
  when = {'operation': 1 + int(part * num_operations)} if i % 2 else {'seconds': part * seconds}
  workdir = tmp_path / 'run'
  exit_code, _ = train_in_process(workdir, bandit_config, Interruption(signal.SIGKILL, **when))
  # A run may take less time, or have a thread that does less, than the one that was measured.
  assert exit_code == -signal.SIGKILL or (exit_code == 0 and part > 0.5)
  scores, kept = _goes_on_like(whole, bandit_config, workdir)
  assert max((2, 4, 6), key=scores.get) in kept, 'the best is known from before the kill'


@pytest.mark.parametrize('path', ['checkpoints/4', 'config.json', 'metrics.jsonl'])
def test_killed_when_a_file_is_about_to_be_in_place(path, whole, tmp_path):
  """A checkpoint, complete but for its name; the config; the metrics, cut back by a resumed run."""
  workdir = tmp_path / 'run'
  if path == 'metrics.jsonl':
    train_in_process(workdir, bandit_config, Interruption(signal.SIGKILL, rename='checkpoints/4'))
  kill = Interruption(signal.SIGKILL, rename=path)
  assert train_in_process(workdir, bandit_config, kill)[0] == -signal.SIGKILL
  assert not (workdir / path).exists() or path == 'metrics.jsonl'
  _goes_on_like(whole, bandit_config, workdir)


@pytest.mark.parametrize('part', [0.3, 0.8])
def test_text_with_its_tally(part, whole, tmp_path):
  """Cumulative solve rate and rolling values count what was before the kill."""
  workdir = tmp_path / 'run'
  operation = int(part * whole[text_config][2])
  kill = Interruption(signal.SIGKILL, operation=operation)
  assert train_in_process(workdir, text_config, kill)[0] == -signal.SIGKILL
  _goes_on_like(whole, text_config, workdir)
  name = 'train/cumulative_solve_rate'
  rates = [line[name] for line in read_metrics(workdir) if name in line]
  assert 0 < rates[0] < rates[3] < 1 and rates == sorted(rates)


def test_sigterm_saves_and_exits_with_0(whole, tmp_path):
  workdir = tmp_path / 'run'
  stop = Interruption(signal.SIGTERM, rename='checkpoints/2')
  assert train_in_process(workdir, bandit_config, stop)[0] == 0
  log = workdir.with_suffix('.log').read_text()
  (said,) = re.findall(r'Stopped by SIGTERM after (\d+) steps', log)
  saved = max(int(path.name) for path in (workdir / 'checkpoints').iterdir())
  assert saved == int(said) < 6
  _goes_on_like(whole, bandit_config, workdir)


@pytest.fixture(scope='module')
def whole_here(tmp_path_factory):
  """The metrics of an uninterrupted run in this process."""
  workdir = tmp_path_factory.mktemp('whole')
  train(bandit_config(), workdir)
  return metrics_text(workdir)


# Grades are asked for in evaluation 0, steps 0 and 1, evaluation 2, steps 2 and 3, ...
@pytest.mark.parametrize('call, saved', [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (9, 6)])
def test_sigterm_ends_an_evaluation_and_waits_for_a_step(
  call, saved, whole_here, tmp_path, capfd, monkeypatch
):
  calls, grade = itertools.count(), HiddenAnswer.grade

  def signalling(self, prompts, rollout, key):
    if next(calls) == call:
      os.kill(os.getpid(), signal.SIGTERM)
    return grade(self, prompts, rollout, key)

  former = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(HiddenAnswer, 'grade', signalling)
    with pytest.raises(SystemExit) as stopped:
      train(bandit_config(), tmp_path)
  assert stopped.value.code == 0
  assert signal.getsignal(signal.SIGTERM) == former
  assert f'Stopped by SIGTERM after {saved} steps' in capfd.readouterr().out
  steps = [int(path.name) for path in (tmp_path / 'checkpoints').iterdir()]
  assert max(steps, default=0) == saved
  assert all(line['step'] < saved for line in read_metrics(tmp_path))
  train(bandit_config(), tmp_path)
  assert metrics_text(tmp_path) == whole_here


def test_a_position_that_the_config_does_not_give_is_refused(tmp_path, monkeypatch):
  """As after a change of the code that makes schedules."""
  train(bandit_config(), tmp_path)
  later = lambda k: Schedule(lambda step: jnp.int32(k) + step // 6)
  monkeypatch.setitem(SCHEDULES, 'constant', later)
  with pytest.raises(ValueError, match="position in .*: expected .*'k': 2.* got .*'k': 1"):
    train(bandit_config(), tmp_path)


def test_elsewhere_than_in_the_main_thread_sigterm_is_left_alone():
  former = signal.getsignal(signal.SIGTERM)
  found = []

  def enter():
    with Stopping() as stopping:
      found.append((signal.getsignal(signal.SIGTERM), stopping.requested))

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert found == [(former, False)]

"""Judges that somebody kills under a run: it goes on with the same numbers, or stops and can."""

import contextlib
import os
import signal
import threading
import time

import pytest

from pkpo_jax.train import train
from pkpo_jax.workers.pool import WorkerPool
from tests import processes_config
from tests.interruptions import metrics_text, verifiers_of


def _train(workdir):
  config = processes_config.get_config('pool')
  config.num_train_steps, config.rollout.num_samples, config.mesh.data = 4, 4, 1
  train(config, workdir)
  return metrics_text(workdir)


def _kill(pids):
  for pid in pids:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The metrics of a run that nobody disturbs."""
  return _train(tmp_path_factory.mktemp('whole'))


def test_a_worker_that_is_killed_at_every_batch(whole, tmp_path, monkeypatch):
  judge, killed = WorkerPool.map, []

  def map_(self, items):
    # Those that are there: one that starts would count as one that cannot.
    pids = list(verifiers_of(os.getpid()))
    killed.extend(pids)
    timer = threading.Timer(0.002, _kill, [pids])
    timer.start()
    replies = judge(self, items)
    timer.join()
    return replies

  monkeypatch.setattr(WorkerPool, 'map', map_)
  assert _train(tmp_path) == whole
  assert len(killed) >= 2  # One is started again when there is work for it.


def test_workers_that_are_killed_as_soon_as_they_start(whole, tmp_path):
  is_over = threading.Event()

  def kill():
    while not is_over.wait(0.01):
      _kill(verifiers_of(os.getpid()))

  killer = threading.Thread(target=kill)
  killer.start()
  try:
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='a worker did not start'):
      _train(tmp_path)
    assert time.monotonic() - start < 60
  finally:
    is_over.set()
    killer.join()
  assert _train(tmp_path) == whole

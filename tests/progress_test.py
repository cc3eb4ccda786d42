"""A log has lines and nothing redrawn; an ETA is given once it means something."""

import pytest

from pkpo_jax import progress
from pkpo_jax.progress import Progress, progress_if_slow


@pytest.fixture
def clock(monkeypatch):
  """A list with the time in it."""
  now = [100.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def _steps(bar, clock, seconds):
  for each in seconds:
    clock[0] += each
    bar.update()


def test_a_log_has_lines_every_ten_seconds(clock, capsys):
  with Progress('run', 40) as bar:
    _steps(bar, clock, [20.0, 1.0, 1.0] + [2.0] * 10)
  captured = capsys.readouterr()
  assert not captured.out and '\r' not in captured.err
  assert captured.err.splitlines() == [
    # The first steps compile: 20 s a step says nothing of the others.
    'run: 1/40 steps, 00:20',
    # From the third step on 2 s a step.
    'run: 7/40 steps, 00:30, ETA 01:06, 0.5 steps/s',
    'run: 12/40 steps, 00:40, ETA 00:56, 0.5 steps/s',
    'run: 13/40 steps, 00:42, ETA 00:54, 0.5 steps/s',
  ]


def test_a_resumed_run_counts_its_own_steps_alone(clock, capsys):
  with Progress('run', 1000, initial=990) as bar:
    _steps(bar, clock, [4.0, 4.0, 4.0, 1.0, 1.0, 1.0, 1.0])
  lines = capsys.readouterr().err.splitlines()
  assert lines[0] == 'run: 991/1000 steps, 00:04'
  assert lines[-1] == 'run: 997/1000 steps, 00:16, ETA 00:03, 1 steps/s'


def test_quick_work_says_nothing(clock, capsys):
  for _ in progress_if_slow(range(3), 'read', 'records'):
    clock[0] += 0.5
  assert not capsys.readouterr().err


def test_a_note_is_a_line_at_once(clock, capsys):
  with Progress('run', 40) as bar:
    bar.note('evaluation')
  assert capsys.readouterr().err == 'run: evaluation\n'


def test_without_a_total_there_is_no_eta(clock, capsys):
  with Progress('read', unit='record') as bar:
    _steps(bar, clock, [4.0] * 5)
  lines = capsys.readouterr().err.splitlines()
  assert lines == [
    'read: 1 records, 00:04',
    'read: 4 records, 00:16, 0.25 records/s',
    'read: 5 records, 00:20, 0.25 records/s',
  ]


def test_a_terminal_gets_a_bar_without_an_early_eta(clock, capsys, monkeypatch):
  monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True)
  with Progress('run', 9) as bar:
    _steps(bar, clock, [1.0] * 3)
    early = capsys.readouterr().err
    _steps(bar, clock, [1.0] * 6)
  late = capsys.readouterr().err
  assert '\r' in early + late and 'ETA' not in early
  assert '9/9' in late and 'ETA 00:00' in late

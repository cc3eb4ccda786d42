"""The benchmarks that start whole runs, in their smallest forms; no time is judged."""

import csv
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import soak, start


def rows_of(path):
  lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
  return list(csv.DictReader(lines))


def test_a_run_is_watched_and_stopped(tmp_path):
  curve, end = soak.watch('configs/bandit.py', tmp_path, seconds=2, every_s=0.3)
  assert end['exit_code'] == end['temporary_files'] == end['processes_left'] == 0
  assert end['steps'] >= curve[-1]['step'] >= curve[0]['step'] >= 0
  for row in curve:
    assert row['main_mib'] > 50 and row['threads'] >= 1 and row['handles'] >= 3
    assert row['mappings'] > 100 and row['workdir_mib'] > 0
  soak.draw(curve, tmp_path / 'soak.png')
  assert (tmp_path / 'soak.png').stat().st_size > 10_000


def test_files_that_go_away_meanwhile(tmp_path, monkeypatch):
  for name in 'abc':
    (tmp_path / name).write_text(name)
  stat = pathlib.Path.stat

  def delete_once(path, **options):
    if path.name == 'b':
      path.unlink(missing_ok=True)
    return stat(path, **options)

  monkeypatch.setattr(pathlib.Path, 'stat', delete_once)
  assert soak._sizes(tmp_path) == [1, 1]


def test_growth_is_a_slope():
  curve = [dict.fromkeys(soak.WATCHED, 5.0) | {'minutes': float(i)} for i in range(120)]
  for row in curve:
    row['handles'] = 3 + 2 * row['minutes']
  found = {row['watched']: row for row in soak.growth(curve)}
  assert found['handles']['per_hour'] == pytest.approx(120)
  assert found['handles']['first_quarter'] == pytest.approx(32)
  assert found['handles']['most'] == 241
  assert found['threads']['per_hour'] == pytest.approx(0, abs=1e-9)


def test_processes_below_are_found_and_what_they_hold():
  code = 'import subprocess, sys; print("up", flush=True); subprocess.run(["sleep", "60"])'
  with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    while len(soak.descendants(process.pid)) < 1:
      assert process.poll() is None
    (child,) = soak.descendants(process.pid)
    assert {process.pid, child} <= set(soak.descendants(os.getpid()))
    row = soak.held(process.pid, [child])
    assert row['processes'] == 2 and row['threads'] >= 2 and row['workers_mib'] > 0
    os.kill(child, 15)


def test_a_second_start_finds_what_the_first_has_compiled(tmp_path):
  start.main(['--quick', '--outdir', str(tmp_path)])
  (row,) = rows_of(tmp_path / 'start_cpu.csv')
  assert row['config'] == 'bandit' and row['turns'] == '1'
  assert float(row['cache_mib']) > 0.1
  assert float(row['first_s']) > 0 and float(row['imports_s']) > 0

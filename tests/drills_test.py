"""Drills: problems of every kind, their prompts, and what is a right answer."""

import numpy as np
import pytest

from pkpo_jax.errors import FieldError
from pkpo_jax.tasks.drills import KINDS, Drill, Drills
from pkpo_jax.tokenizers import CharacterTokenizer

NUM_TRAIN, NUM_HELD_OUT, NUM_EXAMPLES = 20, 6, 2


def make(kind, **fields):
  sizes = {'num_train': NUM_TRAIN, 'num_held_out': NUM_HELD_OUT, 'num_examples': NUM_EXAMPLES}
  return Drills(CharacterTokenizer(), kind, **sizes | fields)


def problems_of(task):
  """Returns the questions that end the prompts, and what stands before them."""
  prompts = task.prompts_of(np.arange(task.num_problems + task.num_held_out))
  rows = zip(prompts.tokens, prompts.mask, strict=True)
  texts = [task.tokenizer.decode(row[mask].tolist()) for row, mask in rows]
  heads, questions = zip(*(text.rsplit('Problem: ', 1) for text in texts), strict=True)
  return questions, heads


@pytest.mark.parametrize('kind', KINDS)
def test_problems_are_distinct_and_their_own_answers_right(kind):
  task = make(kind)
  questions, heads = problems_of(task)
  assert len(set(questions)) == NUM_TRAIN + NUM_HELD_OUT and len(set(heads)) == 1
  assert heads[0].startswith(KINDS[kind].instruction) and heads[0].count('Answer:') == 2
  examples = [question for question in questions if f'Problem: {question}' in heads[0]]
  assert not examples
  rng = np.random.default_rng(0)
  for seed in range(20):
    problem = None
    while problem is None:
      problem = KINDS[kind].draw(np.random.default_rng([seed, rng.integers(2**31)]))
    answer = task.demonstrate(problem, rng)
    assert '\n' not in problem.question + answer
    assert task.verify(problem, f' {answer} ').kind == 'right'
    assert task.verify(problem, f'{answer} 1').kind != 'right'
    assert task.verify(problem, '').kind == 'empty'


@pytest.mark.parametrize(
  ('kind', 'question', 'right', 'wrong'),
  [
    ('reverse_3', 'a b c', 'c b a', 'a b c'),
    ('sort_numbers', '30 21 9', '9 21 30', '30 21 9'),
    ('countdown_3', '3 5 7 makes 22', '7 + 3*5', '22'),
    ('binary', '6', '110', '0b110'),
  ],
)
def test_verdicts(kind, question, right, wrong):
  task = make(kind)
  problem = Drill(question, right)
  assert task.verify(problem, right).kind == 'right'
  assert task.verify(problem, wrong).kind == 'wrong'


def test_the_answers_are_right():
  expected = {
    'add_digits': lambda q: eval(q),
    'add': lambda q: eval(q),
    'subtract': lambda q: eval(q),
    'multiply': lambda q: eval(q),
    'remainder': lambda q: int(q.split()[0]) % int(q.split()[-1]),
    'binary': lambda q: format(int(q), 'b'),
    'largest': lambda q: max(map(int, q.split())),
    'reverse_4': lambda q: q[::-1],
    'spell': lambda q: ' '.join(q),
    'sort_letters': lambda q: ' '.join(sorted(q.split())),
    'sort_numbers': lambda q: ' '.join(sorted(q.split(), key=int)),
  }
  rng = np.random.default_rng(1)
  for kind, answer_of in expected.items():
    for _ in range(50):
      problem = KINDS[kind].draw(rng)
      assert problem.answer == str(answer_of(problem.question)), problem


def test_examples_and_problems_held_out_do_not_depend_on_how_many_are_to_train_on():
  (questions, heads), (more, more_heads) = (
    problems_of(make('add')),
    problems_of(make('add', num_train=50)),
  )
  assert questions[-NUM_HELD_OUT:] == more[-NUM_HELD_OUT:] and heads[0] == more_heads[0]


def test_without_examples():
  _, heads = problems_of(make('add', num_examples=0))
  assert heads[0] == 'Write the value.\n\n'


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'kind': 'divide'}, r"kind: expected one of \[.*'add'.*got 'divide'"),
    ({'num_examples': -1}, 'num_examples: expected at least 0, got -1'),
    ({'kind': 'binary', 'num_train': 2000}, 'num_train: expected fewer with num_held_out'),
  ],
)
def test_bad_fields(fields, message):
  with pytest.raises(FieldError, match=message):
    make(**{'kind': 'add', **fields})

"""MATH, GSM8K, MBPP and HumanEval as tasks: prompts, what is left out, what earns a reward."""

import json

import numpy as np
import pytest

from configs import default
from pkpo_jax.data.remembered import remembered
from pkpo_jax.settings import build
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.code.verifier import CodeVerifier
from pkpo_jax.tasks.math.task import EXAMPLES, INSTRUCTION
from pkpo_jax.tasks.text import encode_completions
from pkpo_jax.tokenizers import CharacterTokenizer


def write_lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def gsm8k_source(folder):
  """Writes 4 problems to train on, one of which has no usable answer, and 3 held out."""
  for split, answers in (('train', ['7', '1,250', '-3', '5']), ('test', ['9', '0.5', '12'])):
    problems = [
      {'question': f'Problem {i}?', 'answer': f'It takes <<1+1=2>>{i} steps.\n#### {answer}'}
      for i, answer in enumerate(answers)
    ]
    write_lines(folder / f'{split}.jsonl', problems)
  return folder


def mbpp_source(folder):
  row = {'test_setup_code': '', 'challenge_test_list': []}
  square = {
    'text': 'Write a function to square a number.',
    'code': 'def square(x):\r\n  return x * x',
    'test_list': ['assert square(2) == 4', 'assert square(3) == 9', 'assert square(-1) == 1'],
  }
  tree = {
    'text': 'Write a function to count nodes.',
    'code': 'class Node:\n  pass\ndef count(x):\n  return 1',
    'test_list': ['assert count(Node()) == 1'],
  }
  wrong = square | {'code': 'def square(x):\r\n  return x'}
  ids = (1, 11, 511, 601, 602, 603)
  own = {602: tree, 603: wrong}
  problems = [row | {'task_id': i} | own.get(i, square) for i in ids]
  write_lines(folder / 'mbpp.jsonl', problems)
  return folder


def task_of(group, **fields):
  group.update(fields)
  return build('task', group.to_dict(), TASKS, tokenizer=CharacterTokenizer())


def verdicts_of(task, ids, texts):
  """Returns the verdicts on texts `[P][N]` for the problems with these ids."""
  prompts = task.prompts_of(np.array(ids))
  rollout = encode_completions(task.tokenizer, prompts, texts, 400)
  return task.verdicts(prompts, rollout)


def test_gsm8k(tmp_path, capfd):
  source = gsm8k_source(tmp_path / 'source')
  group = default.task('math_problems')
  fields = dict(dataset='gsm8k', source=str(source), data_dir=str(tmp_path / 'data'))
  task = task_of(group, **fields, num_workers=1, max_prompt_tokens=None)
  assert (task.num_problems, task.num_held_out) == (4, 3)
  assert 'Checking 7 answers' in capfd.readouterr().out
  text = task.tokenizer.decode(task.prompts_of(np.array([1])).tokens[0])
  assert text == (
    f'<start_of_turn>user\n{INSTRUCTION}\n\nProblem 1?<end_of_turn>\n<start_of_turn>model\n'
  )
  texts = [
    [r'So \boxed{7}.', r'\boxed{7.0}', r'\boxed{8}', '#### 7', ''],
    ['It is 1250.', r'\boxed{1{,}250}', r'\boxed{125}', 'I do not know.', ' '],
  ]
  kinds = [[x.kind for x in group] for group in verdicts_of(task, [0, 1], texts)]
  assert kinds[0] == ['right', 'right', 'wrong', 'right', 'empty']
  assert kinds[1] == ['right', 'right', 'wrong', 'malformed', 'empty']
  rng = np.random.default_rng(0)
  for i, problem in enumerate(task._problems):
    assert verdicts_of(task, [i], [[task.demonstrate(problem, rng)]])[0][0].kind == 'right'

  # The second time nothing is checked, and no source is needed.
  group.update(source=None, prompt_format='few_shot', num_examples=2)
  task = build('task', group.to_dict(), TASKS, tokenizer=CharacterTokenizer())
  assert 'Checking' not in capfd.readouterr().out
  text = task.tokenizer.decode(task.prompts_of(np.array([0])).tokens[0])
  examples = ''.join(f'Problem:\n{x}\n\nAnswer:\n{y}\n\n' for x, y in EXAMPLES[:2])
  assert text == f'{INSTRUCTION}\n\n{examples}Problem:\nProblem 0?\n\nAnswer:\n'
  # What comes after the next problem begins is not the answer.
  text = 'It is #### 7\n\nProblem:\nWhat now?\n\nAnswer:\n#### 9'
  assert verdicts_of(task, [0], [[text]])[0][0].kind == 'right'


def test_our_examples_have_the_form_of_an_answer(tmp_path):
  task = task_of(
    default.task('math_problems'),
    dataset='gsm8k',
    source=str(gsm8k_source(tmp_path / 'source')),
    data_dir=str(tmp_path / 'data'),
    num_workers=1,
  )
  golds = ['40', r'\frac{11}{12}', '3', '15']
  problems = [{'answer': gold} for gold in golds]
  verdicts = task.verify_batch(problems, [answer for _, answer in EXAMPLES])
  assert [x.kind for x in verdicts] == ['right'] * 4


def test_problems_without_a_usable_answer_are_left_out_and_counted(tmp_path, capsys):
  source = gsm8k_source(tmp_path / 'source')
  path = source / 'train.jsonl'
  path.write_text(path.read_text().replace('#### 5', r'#### \\frac{'))
  group = default.task('math_problems')
  task = task_of(group, dataset='gsm8k', source=str(source), data_dir=str(tmp_path / 'data'))
  assert (task.num_problems, task.num_held_out) == (3, 3)
  assert 'Left out 1 of 4 problems to train on and 0 of 3 held out' in capsys.readouterr().out


def test_long_prompts_are_left_out_and_counted(tmp_path, capsys):
  source = gsm8k_source(tmp_path / 'source')
  path = source / 'train.jsonl'
  path.write_text(path.read_text().replace('Problem 2?', 'Problem 2, a long one?'))
  fields = dict(dataset='gsm8k', source=str(source), data_dir=str(tmp_path / 'data'))
  length = len(
    f'<start_of_turn>user\n{INSTRUCTION}\n\nProblem 1?<end_of_turn>\n<start_of_turn>model\n'
  )
  task = task_of(default.task('math_problems'), **fields, max_prompt_tokens=length + 1)
  assert (task.num_problems, task.num_held_out) == (3, 3)
  assert (
    'Left out 1 of 4 problems to train on and 0 of 3 held out, whose' in capsys.readouterr().out
  )
  texts = [task.tokenizer.decode(x) for x in task.prompts_of(np.arange(6)).tokens]
  assert not [x for x in texts if 'long' in x]
  with pytest.raises(ValueError, match='max_prompt_tokens: expected as many as .* got 5'):
    task_of(default.task('math_problems'), **fields, max_prompt_tokens=5)


@pytest.mark.parametrize('reward', ['share', 'all'])
def test_code(sandbox_needed, tmp_path, capsys, reward):
  source = mbpp_source(tmp_path / 'mbpp')
  human_eval = {
    'task_id': 'HumanEval/0',
    'prompt': 'def half(x):\n    """Returns x / 2."""\n',
    'entry_point': 'half',
    'canonical_solution': '    return x / 2\n',
    'test': 'def check(candidate):\n    assert candidate(4) == 2\n    assert candidate(3) == 1.5\n',
  }
  write_lines(tmp_path / 'HumanEval.jsonl', [human_eval])
  task = task_of(
    default.task('code_problems'),
    mbpp_source=str(source),
    humaneval_source=str(tmp_path / 'HumanEval.jsonl'),
    data_dir=str(tmp_path / 'data'),
    reward=reward,
    train_splits=('train', 'validation'),
  )
  assert (task.num_problems, task.num_held_out) == (2, 1)
  printed = capsys.readouterr().out
  if reward == 'share':  # One shows all of its tests, and one of the rest fails its own solution.
    assert 'Left out 1 of 4 problems of MBPP, as the question shows' in printed
    assert 'Left out 1 of 3 problems of MBPP, whose' in printed
  else:
    assert 'Left out 2 of 4 problems of MBPP, whose' in printed
  texts = [task.tokenizer.decode(x) for x in task.prompts_of(np.array([0, 2])).tokens]
  assert 'square a number.\n\nIt has to pass:\nassert square(2) == 4<end_of_turn>' in texts[0]
  assert 'def half(x):\n    """Returns x / 2."""\n```<end_of_turn>' in texts[1]
  found = verdicts_of(
    task,
    [0, 2],
    [
      ['```\ndef square(x):\n  return x * x\n```', 'def square(x):\n  return 4', 'I cannot.'],
      ['    return x / 2', 'def half(x):\n  return x // 2', ''],
    ],
  )
  assert [[x.kind for x in group] for group in found] == [
    ['right', 'wrong', 'malformed'],
    ['right', 'wrong', 'empty'],
  ]
  shares = [[1, 0, 0], [1, 1 / 2, 0]] if reward == 'share' else [[1, 0, 0], [1, 0, 0]]
  np.testing.assert_allclose([[x.reward for x in group] for group in found], shares)
  assert task.objectives == (('pass@k', 'max@k') if reward == 'share' else ('pass@k',))
  demonstrations = [
    task.demonstrate(problem, np.random.default_rng(0)) for problem in task._problems
  ]
  kinds = [x.kind for x in task.verify_batch(task._problems, demonstrations)]
  assert kinds == ['right'] * 3


def test_fields_out_of_range(tmp_path):
  with pytest.raises(
    ValueError, match=r"task.dataset: expected one of \['gsm8k', 'math'\], got 'x'"
  ):
    task_of(default.task('math_problems'), dataset='x')
  with pytest.raises(ValueError, match='task.num_examples: expected 0 to 4, got 5'):
    task_of(default.task('math_problems'), num_examples=5)
  with pytest.raises(ValueError, match="task.reward: expected one of .*'share'.*, got 'some'"):
    task_of(default.task('code_problems'), reward='some')
  with pytest.raises(FileNotFoundError, match='math: .*hendrycks'):
    task_of(default.task('math_problems'), data_dir=str(tmp_path))


def test_what_was_found_is_kept_while_it_is_about_the_same(tmp_path):
  path, calls = tmp_path / 'data' / 'found.json', []

  def find():
    calls.append(1)
    return {'number': len(calls)}

  assert remembered(path, ['a', 1], find) == remembered(path, ['a', 1], find) == {'number': 1}
  assert remembered(path, ['a', 2], find) == {'number': 2}
  path.write_text('{"sha256": "')  # Cut short.
  assert remembered(path, ['a', 2], find) == remembered(path, ['a', 2], find) == {'number': 3}
  assert [x.name for x in path.parent.iterdir()] == ['found.json']


def test_problems_have_a_fingerprint(tmp_path):
  source = gsm8k_source(tmp_path / 'source')
  fields = dict(dataset='gsm8k', source=str(source))
  one, same = (
    task_of(default.task('math_problems'), **fields, data_dir=str(tmp_path / 'data'))
    for _ in range(2)
  )
  assert one.fingerprint == same.fingerprint
  path = source / 'test.jsonl'
  path.write_text(path.read_text().replace('#### 12', '#### 13'))  # In no prompt.
  other = task_of(default.task('math_problems'), **fields, data_dir=str(tmp_path / 'other'))
  assert other.fingerprint != one.fingerprint


def test_a_broken_sandbox_leaves_no_problem_out(sandbox_needed, tmp_path, monkeypatch):
  fields = dict(mbpp_source=str(mbpp_source(tmp_path / 'mbpp')), data_dir=str(tmp_path / 'data'))

  def broken(*arguments):
    raise RuntimeError('it is broken')

  monkeypatch.setattr(CodeVerifier, 'verify_batch', broken)
  monkeypatch.setattr(CodeVerifier, 'check', broken)
  with pytest.raises(RuntimeError, match='it is broken'):
    task_of(default.task('code_problems'), **fields)
  assert not (tmp_path / 'data' / 'code_problems_that_fail.json').exists()

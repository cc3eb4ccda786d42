"""Sources of data sets, in the published formats, with contents of our own."""

import json

from pkpo_jax.data import datasets
from pkpo_jax.settings import call
from pkpo_jax.tasks.datasets import DATASETS

# What a file may hold that a careless reader would change: a quote, an end of line that JSON leaves
# as it is, letters beyond ASCII and beyond the first plane of Unicode, and spaces at both ends.
TEXT = ' "Wie groß ist π?"\\\r\n\u2028\t𝔸 '


def load(name, data_dir, source=None, **options):
  return datasets.load(call(name, DATASETS[name], options), data_dir, source)


def prepare(name, data_dir, source=None, **options):
  return datasets.prepare(call(name, DATASETS[name], options), data_dir, source)


def write_jsonl(path, rows, ensure_ascii=False, end='\n'):
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = [json.dumps(row, ensure_ascii=ensure_ascii) + end for row in rows]
  path.write_bytes(''.join(lines).encode())


def write_json(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def gsm8k_row(i):
  return {'question': f'{TEXT}{i}', 'answer': f'{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}'}


def write_gsm8k(folder, num_train=3, num_test=2):
  write_jsonl(folder / 'train.jsonl', map(gsm8k_row, range(num_train)))
  write_jsonl(folder / 'test.jsonl', map(gsm8k_row, range(10, 10 + num_test)))
  return str(folder)


def math_file(solution, level='Level 3', problem=TEXT, subject='Counting & Probability'):
  return {'problem': problem, 'level': level, 'type': subject, 'solution': solution}


def math_row(unique_id, answer='\\frac{1}{2}', level=3):
  return {
    'problem': f'Problem of {unique_id}. {TEXT}',
    'solution': f'So it is $\\boxed{{{answer}}}$. {TEXT}',
    'answer': answer,
    'subject': 'Intermediate Algebra',
    'level': level,
    'unique_id': unique_id,
  }


def write_math_folders(folder):
  """Writes 4 problems to train on and 2 to test on; the answer of n.json is n."""
  names = ['train/algebra/2', 'train/algebra/10', 'train/algebra/1', 'train/geometry/7']
  for name in [*names, 'test/algebra/3', 'test/geometry/12']:
    answer = name.rsplit('/')[-1]
    write_json(folder / f'{name}.json', math_file(f'It is $\\boxed{{{answer}}}$.', problem=name))
  return str(folder)


def mbpp_row(task_id, setup_code=''):
  return {
    'text': f'Write a function to double {task_id}. {TEXT}',
    'code': f'def f(x):\r\n\treturn {task_id} * 2',
    'task_id': task_id,
    'test_setup_code': setup_code,
    'test_list': [f'assert f({x}) == {2 * task_id}' for x in range(3)],
    'challenge_test_list': [TEXT] if task_id % 2 else [],
  }


def humaneval_row(i):
  return {
    'task_id': f'HumanEval/{i}',
    'prompt': f'\n\ndef f{i}(x):\n    """{TEXT}"""\n',
    'entry_point': f'f{i}',
    'canonical_solution': '    return x\n',
    'test': f'def check(candidate):\n    assert candidate({i}) == {i}\n',
  }


def arc_task(num_tests=1):
  pair = lambda color: {'input': [[color, 0], [0, 0]], 'output': [[color]]}
  return {
    'train': [pair(1), pair(2)],
    'test': [pair(3 + i) for i in range(num_tests)],
  }


def write_arc(folder):
  write_json(folder / 'training' / '00aabb11.json', arc_task(num_tests=2))
  write_json(folder / 'training' / '00aabb00.json', arc_task())
  write_json(folder / 'evaluation' / 'ff000000.json', arc_task())
  return str(folder)

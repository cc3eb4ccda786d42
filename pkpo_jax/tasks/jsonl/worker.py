"""Judges completions by their text: the worker of `verifier.py`, imported by nobody."""

import importlib.util
import json
import re
import sys

# A letter that stands alone, in brackets or behind the word answer.
_STATED = re.compile(r'(?i:\banswer\b)(?:\s+(?i:is|would be))?\s*:?\s*[(*\[]*([A-Z])\b(?![\'’])')
_ALONE = re.compile(r'\W*([A-Za-z])\W*')
_IN_BRACKETS = re.compile(r'[(\[]([A-Z])[)\]]')
_TEXT_COMMAND = re.compile(r'\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}')


def make_handler(verifier, pattern):
  """Returns what judges an item.

  Args:
    verifier: 'exact', 'regex', 'choice', or path/to/file.py:function.
    pattern: a regular expression that finds the answer in a completion; '' for none.
  """
  judge = {'exact': exact, 'regex': regex, 'choice': choice}.get(verifier)
  if judge is None:
    return make_own(verifier)
  pattern = re.compile(pattern) if pattern else None

  def handle(item):
    if item is None:  # The check that the worker is there.
      return 'ready'
    text, marked = item['completion'], item['marked']
    if pattern is not None:
      matches = list(pattern.finditer(text))
      if not matches:
        return ['malformed', None, None]
      groups = [group for group in matches[-1].groups() if group is not None]
      found = groups[0] if groups else matches[-1][0]
    else:
      found = text if marked is None else marked
    return judge(item['answer'], found, pattern is None and marked is None)

  return handle


def exact(gold, found, is_whole):
  """Compares texts, but for the amount of white space."""
  found = ' '.join(found.split())
  if not found:
    return ['malformed', None, None]
  return ['right' if found == ' '.join(gold.split()) else 'wrong', found[:200], None]


def regex(gold, found, is_whole):
  """Matches all of the answer, without white space around it, with the pattern of the problem."""
  found = found.strip()
  if not found:
    return ['malformed', None, None]
  return ['right' if re.fullmatch(gold, found) else 'wrong', found[:200], None]


def choice(gold, found, is_whole):
  """Compares letters; in a whole text the letter has to be found first."""
  found = _TEXT_COMMAND.sub(r'\1', found)
  letter = _ALONE.fullmatch(found)
  if letter is None and is_whole:
    letters = _STATED.findall(found) or _IN_BRACKETS.findall(found)
    letter = re.match('.', letters[-1]) if letters else None
    answer = letter and letter[0]
  else:
    letter = letter or re.match(r'\W*([A-Z])\b[).:]', found)
    answer = letter and letter[1]
  if answer is None:
    return ['malformed', None, None]
  answer = answer.upper()
  return ['right' if answer == gold else 'wrong', answer, None]


def make_own(name):
  """Returns what calls a function of a file: fn(problem, completion)."""
  path, _, attribute = name.rpartition(':')
  spec = importlib.util.spec_from_file_location('own_verifier', path)
  module = sys.modules['own_verifier'] = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  function = getattr(module, attribute)

  def handle(item):
    if item is None:
      return 'ready'
    return as_verdict(name, function(json.loads(item['row']), item['completion']))

  return handle


def as_verdict(name, value):
  """Returns kind, answer and reward of what a function has returned; ValueError for all else."""
  told = value if isinstance(value, dict) else {'reward': value}
  unknown = sorted(told.keys() - {'reward', 'success', 'answer'})
  if unknown or 'reward' not in told:
    raise ValueError(
      f'{name}: expected a bool, a number, or a dict of reward and perhaps success and answer, got '
      f'{value!r}.'
    )
  reward = told['reward']
  try:
    reward = float(reward)
  except (TypeError, ValueError):
    raise ValueError(f'{name}: expected a reward in [0, 1], got {reward!r}.') from None
  if not 0 <= reward <= 1:
    raise ValueError(f'{name}: expected a reward in [0, 1], got {reward!r}.')
  success, answer = told.get('success', reward == 1), told.get('answer')
  if success not in (True, False):
    raise ValueError(f'{name}: expected success to be True or False, got {success!r}.')
  answer = None if answer is None else str(answer)
  return ['right' if success else 'wrong', answer, reward]

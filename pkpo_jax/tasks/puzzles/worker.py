"""Scores answers to puzzles of reasoning-gym: the worker of `verifier.py`, imported by nobody."""

import functools
import json

from reasoning_gym.factory import create_dataset


def make_handler():
  """Returns `is_right`."""
  return is_right


def is_right(item):
  """Returns whether an answer has the full score; None if the scorer cannot read it.

  Args:
    item: name of the data set; its entry, as JSON; the answer.
  """
  name, entry, answer = item
  scorer = scorer_of(name)
  try:
    return bool(scorer(answer=answer, entry=json.loads(entry)) == 1.0)
  except MemoryError:
    raise  # Of no use any more; the pool replaces this process.
  except Exception:  # Whatever it may be, it comes from the answer, as no other entry raises.
    return None


@functools.cache
def scorer_of(name):
  """Returns the scorer of a data set with its default settings."""
  return create_dataset(name, seed=0).score_answer

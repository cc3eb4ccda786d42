"""Findings on a data set that take long to make, kept beside it."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any


def remembered(path: pathlib.Path, about: Any, find: Callable[[], Any]) -> Any:
  """Returns what `find()` returned when it was last called about the same, else calls it.

  Args:
    path: JSON file that keeps it.
    about: all that the finding depends on, as JSON.
    find: returns JSON.
  """
  key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
  try:
    kept = json.loads(path.read_text())
  except (FileNotFoundError, json.JSONDecodeError):
    kept = {}
  if kept.get('sha256') == key:
    return kept['found']
  found = find()
  path.parent.mkdir(parents=True, exist_ok=True)
  scratch = path.with_suffix(f'.{os.getpid()}')  # Another process may look for the same.
  scratch.write_text(json.dumps({'sha256': key, 'found': found}, indent=2) + '\n')
  scratch.replace(path)
  return found

"""Python files of the user's own, which configs name as path/to/file.py:Name.

They are trusted: they run as they are, in the process that names them.
"""

import hashlib
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from pkpo_jax.errors import Choices, FieldError

EXPECTED = 'path/to/file.py:Name'
_loaded: dict[pathlib.Path, Any] = {}  # A class is to be the same each time it is named.


def is_own(name: Any) -> bool:
  """Returns whether a name is that of something in a file.

  >>> is_own('tasks/sums.py:Sums'), is_own('maze')
  (True, False)
  """
  file, _, attribute = name.rpartition(':') if isinstance(name, str) else ('', '', '')
  return file.endswith('.py') and attribute.isidentifier()


def path_of(field: str, name: str) -> pathlib.Path:
  """Returns the file that a name is of; raises FieldError if it is not there."""
  path = pathlib.Path(name.rpartition(':')[0]).expanduser()
  if not path.is_file():
    raise FieldError(field, f'expected a file, as in {EXPECTED}, but there is no {path}.')
  return path


def load(field: str, name: str) -> Any:
  """Returns what a file defines under a name.

  Args:
    field: the field that has the name, for messages.
    name: path/to/file.py:Name, relative to the current folder.

  Raises:
    FieldError: if there is no such file, it raises, or it does not define the name.
  """
  path = path_of(field, name).resolve()
  if path not in _loaded:
    try:
      _loaded[path] = import_file(path)
    except Exception as error:
      calls = traceback.extract_tb(error.__traceback__)
      lines = [call.lineno for call in calls if call.filename == str(path)]
      where = f'{path}, line {lines[-1]}' if lines else str(path)
      problem = f'expected a file that can be imported, got {type(error).__name__}: {error}'
      raise FieldError(field, f'{where}: {problem}.') from error
  attribute = name.rpartition(':')[2]
  if not hasattr(_loaded[path], attribute):
    names = sorted(x for x in vars(_loaded[path]) if not x.startswith('_'))
    raise FieldError(field, f'{path} does not define {attribute!r}; it has {names}.')
  return getattr(_loaded[path], attribute)


def import_file(path: pathlib.Path) -> Any:
  """Returns the module in a Python file; what it registers, such as a task, is there then."""
  name = f'{path.stem}_{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}'
  spec = importlib.util.spec_from_file_location(name, path)
  module = sys.modules[name] = importlib.util.module_from_spec(spec)  # Where dataclasses look.
  spec.loader.exec_module(module)
  return module


class OpenChoices(Choices):
  """Choices that are open to classes of the user's own files, subclasses of `base`."""

  def __init__(self, base: type, choices: Mapping[str, type]):
    """Takes what can be named without a file."""
    super().__init__(choices)
    self._base = base

  @property
  def expected(self) -> str:
    """What a name has to be."""
    return f'{super().expected}, or {EXPECTED} of your own'

  def __contains__(self, name: Any) -> bool:
    return super().__contains__(name) or is_own(name)

  def __missing__(self, name: Any) -> Any:
    if not is_own(name):
      return super().__missing__(name)
    found = load('name', name)
    if not (isinstance(found, type) and issubclass(found, self._base)):
      base = f'{self._base.__module__}.{self._base.__name__}'
      raise FieldError('name', f'expected a subclass of {base}, got {found!r} of {name}.')
    return found

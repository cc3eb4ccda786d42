"""Errors that say what is wrong with what was given, and where."""

import difflib
import importlib.util
from collections.abc import Collection
from typing import Any


class FieldError(ValueError):
  """A value that is not what it has to be.

  Attributes:
    field: the argument or field; whoever knows where it stands puts the group before it, see
      `within`.
    problem: what is wrong: the rest of the message.
  """

  def __init__(self, field: str, problem: str):
    super().__init__(f'{field}: {problem}')
    self.field, self.problem = field, problem

  def within(self, group: str) -> 'FieldError':
    """Returns the same error of the field `group.field`."""
    return type(self)(f'{group}.{self.field}', self.problem)


class FieldTypeError(FieldError, TypeError):
  """A value of a wrong type."""


class WorkdirError(ValueError):
  """A workdir that cannot be used: of another run or process, or damaged."""


class DataError(ValueError):
  """Files that are not what they have to be: a source, prepared data, weights, metrics."""


class MissingDataError(DataError, FileNotFoundError):
  """Files that are not there."""


class MissingPackageError(ImportError):
  """An optional package that is not installed."""


class UnavailableError(RuntimeError):
  """Something that this machine does not offer, such as a sandbox."""


class SaveError(OSError):
  """A checkpoint, metrics or samples that could not be written."""


class OtherProcessError(RuntimeError):
  """What another process of this run has raised."""


# A command prints these as one line, without a traceback, whenever they come.
USER_ERRORS = (WorkdirError, DataError, UnavailableError, SaveError, OtherProcessError)
# And these before a run's first step, when nothing but its config can have raised them.
CONFIG_ERRORS = (FieldError, MissingPackageError, *USER_ERRORS)


class Choices(dict):
  """A dict of what can be named; a name that is none of its keys gets a message that lists them.

  >>> Choices(adam=1, sgd=2)['admn']
  Traceback (most recent call last):
  KeyError: "expected one of ['adam', 'sgd'], got 'admn'."
  """

  @property
  def expected(self) -> str:
    """What a name has to be."""
    return f'one of {sorted(self)}'

  def __missing__(self, name: Any) -> Any:
    raise KeyError(f'expected {self.expected}, got {name!r}.')


def unknown_field(name: str, fields: Collection[str]) -> str:
  """Returns the problem with a field that is none of these; suggests the nearest of them.

  >>> unknown_field('sede', ['k', 'seed'])
  "unknown field (did you mean seed?); expected one of ['k', 'seed']."
  """
  close = difflib.get_close_matches(name, fields, 1)
  hint = f' (did you mean {close[0]}?)' if close else ''
  return f'unknown field{hint}; expected one of {sorted(fields)}.'


def require_package(name: str, extra: str) -> None:
  """Raises MissingPackageError that names the extra to install, unless a package is there."""
  if importlib.util.find_spec(name) is None:
    raise MissingPackageError(
      f"{name} is not installed: pip install 'pkpo_jax[{extra}]', or '.[{extra}]' in a clone."
    )


def expect(condition: bool, field: str, expected: str, value: Any) -> None:
  """Raises FieldError naming the field, what was expected and the value, unless `condition`."""
  if not condition:
    raise FieldError(field, f'expected {expected}, got {value!r}.')

"""Errors that name a field, its value and what was expected."""

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


def expect(condition: bool, field: str, expected: str, value: Any) -> None:
  """Raises FieldError naming the field, what was expected and the value, unless `condition`."""
  if not condition:
    raise FieldError(field, f'expected {expected}, got {value!r}.')

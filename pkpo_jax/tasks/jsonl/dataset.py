"""Problems from files that people have: JSON lines, Parquet, and folders of Hugging Face."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.sources import Row, read_jsonl
from pkpo_jax.errors import DataError, MissingDataError, require_package

SUFFIXES = ('.jsonl', '.jsonl.gz', '.parquet', '.arrow')
# What the name of a file or folder may say of the split, and the split.
_SPLITS = {name: name for name in ('train', 'validation', 'test')}
_SPLITS |= dict.fromkeys(('valid', 'val', 'dev'), 'validation') | {'eval': 'test'}
_SPLIT = re.compile(rf'(?:^|(?<=[/_.-]))({"|".join(_SPLITS)})(?=[/_.-])')


@dataclasses.dataclass(frozen=True)
class JsonlProblemsData(Dataset):
  """Problems with an answer; a column may be a path into objects, as 'reward_model.ground_truth'.

  Attributes:
    label: what this set is called in the folder of prepared data sets.
    prompt_column: the question, a text, or a chat of a system message, if any, and the user's.
    answer_column: the right answer, a text or a number; of unit tests a text or a list of texts; ''
      if there is none, for a function that judges without.
    system_column: a system prompt; '' if there is none.
    solution_column: a completion to imitate, and the reference of unit tests; '' if there is none.
    id_column: a text or an integer that no other problem has; '' counts instead.
    keeps_rows: whether each problem keeps its whole row, for a function that judges it.
  """

  label: str = 'own'
  prompt_column: str = 'prompt'
  answer_column: str = 'answer'
  system_column: str = ''
  solution_column: str = ''
  id_column: str = ''
  keeps_rows: bool = False

  name = 'jsonl_problems'
  features = {
    **dict.fromkeys(('id', 'prompt', 'system', 'answer', 'solution', 'row'), str),
    'tests': list[str],
  }
  description = 'Problems from files of the user.'

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns the file, or all files of a folder whose names end in one of SUFFIXES."""
    wanted = f'a file, or a folder of files, that end in one of {SUFFIXES}'
    if source is None:
      raise MissingDataError(f'{self.name}: expected as source {wanted}, got none.')
    if not source.exists():
      raise MissingDataError(f'{self.name}: expected as source {wanted}; there is no {source}.')
    if source.is_file():
      if not source.name.endswith(SUFFIXES):
        raise DataError(f'{self.name}: expected as source {wanted}, got {source}.')
      return {source.name: source}
    found = {path.relative_to(source): path for path in sorted(source.rglob('*'))}
    # Hidden ones are caches, and 'cache-' begins what the library datasets has computed.
    is_data = lambda name: name.name.endswith(SUFFIXES) and not name.name.startswith('cache-')
    is_hidden = lambda name: any(part.startswith('.') for part in name.parts)
    files = {
      name.as_posix(): path
      for name, path in found.items()
      if is_data(name) and not is_hidden(name) and path.is_file()
    }
    if not files:
      raise MissingDataError(f'{self.name}: expected as source {wanted}; {source} has none.')
    return files

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, Iterator[Record]]:
    """Returns a split for each word of _SPLITS in names of files; 'train' has those without one."""
    names: dict[str, list[str]] = {}
    for name in files:
      words = _SPLIT.findall(name)
      names.setdefault(_SPLITS[words[-1]] if words else 'train', []).append(name)
    return {
      split: self._records(split, [files[name] for name in names[split]]) for split in sorted(names)
    }

  def _records(self, split: str, paths: list[pathlib.Path]) -> Iterator[Record]:
    rows = (row for path in paths for row in read_rows(path))
    for i, row in enumerate(rows):
      row_id = _scalar(row, self.id_column) if self.id_column else f'{split}/{i}'
      system, prompt = _question(row, self.prompt_column)
      if self.system_column:
        system = _text(row, self.system_column)
      answer = _value(row, self.answer_column) if self.answer_column else ''
      is_list = isinstance(answer, list)
      if is_list:
        are_texts = bool(answer) and all(map(_is_text, answer))
        row.expect(are_texts, self.answer_column, 'texts that are not empty', answer)
      yield {
        'id': row_id,
        'prompt': prompt,
        'system': system,
        'answer': '' if is_list or not self.answer_column else _scalar(row, self.answer_column),
        'tests': answer if is_list else [],
        'solution': _text(row, self.solution_column) if self.solution_column else '',
        'row': _row_text(row) if self.keeps_rows else '',
      }


def read_rows(path: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a file of JSON lines, of Parquet or of Arrow.

  Raises:
    DataError: if it is malformed.
    MissingPackageError: if pyarrow is needed and not installed.
  """
  if path.name.endswith(('.jsonl', '.jsonl.gz')):
    yield from read_jsonl(path)
    return
  require_package('pyarrow', extra='problems')
  import pyarrow

  try:
    for i, fields in enumerate(_arrow_rows(path)):
      yield Row(f'{path}, row {i}', fields)
  except (pyarrow.ArrowException, OSError) as error:
    kind = 'Parquet' if path.suffix == '.parquet' else 'a stream of Arrow'
    raise DataError(f'{path}: expected a file of {kind}, got: {error}.') from error


def _arrow_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the rows of a file of Parquet, or of what `save_to_disk` of datasets writes."""
  import pyarrow.ipc
  import pyarrow.parquet

  if path.suffix == '.parquet':
    with pyarrow.parquet.ParquetFile(path) as file:
      for batch in file.iter_batches():
        yield from batch.to_pylist()
  else:
    with path.open('rb') as stream, pyarrow.ipc.open_stream(stream) as reader:
      for batch in reader:
        yield from batch.to_pylist()


def _value(row: Row, column: str) -> Any:
  """Returns a column, or what a path with dots leads to where there is no such column."""
  if column in row.fields:
    return row.fields[column]
  try:
    return functools.reduce(lambda fields, name: fields[name], column.split('.'), row.fields)
  except (KeyError, TypeError, IndexError):
    raise DataError(
      f'{row.where}: {column} is missing; the columns are {sorted(row.fields)}.'
    ) from None


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())


def _text(row: Row, column: str) -> str:
  """Returns a text that is not empty."""
  value = _value(row, column)
  row.expect(_is_text(value), column, 'text that is not empty', value)
  return value


def _scalar(row: Row, column: str) -> str:
  """Returns a text that is not empty, or the text of a number."""
  value = _value(row, column)
  if isinstance(value, int | float) and not isinstance(value, bool):
    return str(value)
  row.expect(_is_text(value), column, 'text that is not empty, or a number', value)
  return value


def _question(row: Row, column: str) -> tuple[str, str]:
  """Returns the system prompt, '' if there is none, and the question."""
  value = _value(row, column)
  if not isinstance(value, list):
    return '', _text(row, column)
  roles = [message.get('role') if isinstance(message, dict) else None for message in value]
  row.expect(
    roles in (['user'], ['system', 'user']),
    column,
    "a text, or messages of the roles 'system', if any, and 'user'",
    value,
  )
  contents = [message.get('content') for message in value]
  row.expect(all(map(_is_text, contents)), column, 'messages whose content is text', value)
  return ''.join(contents[:-1]), contents[-1]


def _row_text(row: Row) -> str:
  try:
    return json.dumps(dict(row.fields), allow_nan=False)
  except (TypeError, ValueError) as error:
    raise DataError(f'{row.where}: expected columns that JSON can hold, got: {error}.') from error

"""Sets of problems: read from their source once, from then on from what was prepared.

What is prepared is a folder of TFDS, data_dir/name/[options/]version, in the format array_record,
with a file of provenance: what it was made from, and checksums of all of it.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import shutil
import types
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.errors import DataError, MissingDataError, MissingPackageError
from pkpo_jax.progress import progress_if_slow

PROVENANCE = 'provenance.json'


def load(dataset: Dataset, data_dir: str, source: str | None = None) -> dict[str, list[Record]]:
  """Returns the records of a data set by split, in the order of the source.

  The first call with these options prepares the data set, as `prepare` does.

  Args:
    dataset: the data set, with its options.
    data_dir: folder of prepared data sets.
    source: file or folder with the published files; None for what is generated, to take the files
      that a package ships, and for what is prepared already. Where it exists, what was prepared
      has to come from these files.

  Returns: for each split its records; their fields, text, integers or lists of these, are the data
    set's `features`.

  Raises:
    FileNotFoundError: if a file of the source, or of what was prepared, is missing.
    ValueError: if the source is malformed or has changed since, or what was prepared has changed.
    ImportError: if a package is not installed.
  """
  folder = prepare(dataset, data_dir, source)
  return {split: _read(folder, split) for split in read_provenance(folder)['counts']}


def samples(dataset: Dataset, folder: pathlib.Path) -> dict[str, list[Record]]:
  """Returns problems in a data set's format that stand in for it, and prints a line that says so.

  They are read from their files and prepared nowhere, so that they are never taken for the data
  set's own.

  Args:
    dataset: the data set whose format they have.
    folder: of their files.
  """
  splits = {name: list(records) for name, records in dataset.splits(dataset.files(folder)).items()}
  counts = ', '.join(f'{len(records)} of {name}' for name, records in splits.items())
  print(
    f'Using problems of our own in the format of {dataset.name} ({counts}), not the published data '
    'set: to see that everything runs.'
  )
  return splits


def prepare(dataset: Dataset, data_dir: str, source: str | None = None) -> pathlib.Path:
  """Returns the folder of a prepared data set, after preparing it if there is none, and checks it.

  A preparation that is killed leaves nothing that looks prepared; where several processes prepare
  at once, one does and the others wait for it. Arguments and errors are those of `load`.
  """
  source = pathlib.Path(source).expanduser() if source else None
  data_dir = pathlib.Path(data_dir).expanduser()
  folder = data_dir / dataset.folder
  if not folder.exists():
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / f'.{dataset.name}.lock').open('w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not folder.exists():
        scratch = data_dir / f'.{dataset.name}.incomplete'
        if scratch.exists():  # Of a process that was killed.
          shutil.rmtree(scratch)
        written = _write(dataset, source, scratch)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(written, folder)
        shutil.rmtree(scratch)
  provenance = read_provenance(folder)
  _check_prepared(folder, provenance['prepared'])
  if source and source.exists():
    _check_source(folder, dataset.files(source), provenance['source'])
  elif source:  # Perhaps gone since; perhaps a slip of the pen.
    logging.warning(
      '%s: there is no %s; using %s, as prepared before.', dataset.name, source, folder
    )
  return folder


def read_provenance(folder: pathlib.Path) -> dict[str, Any]:
  """Returns what was written beside a prepared data set.

  Returns: 'dataset', 'version', 'options'; 'counts', records of each split; 'packages', versions
    of those that the content depends on; 'source' and 'prepared', SHA-256 of each file.

  Raises:
    FileNotFoundError: if it is missing.
    ValueError: if it is not what was written.
  """
  path = folder / PROVENANCE
  if not path.is_file():
    raise MissingDataError(f'{path} is missing; {_anew(folder)}')
  try:
    return json.loads(path.read_bytes())
  except ValueError as error:
    raise DataError(f'{path}: expected JSON, got {error}; {_anew(folder)}') from error


def _write(dataset: Dataset, source: pathlib.Path | None, scratch: pathlib.Path) -> pathlib.Path:
  """Returns a folder in `scratch` with the records of a data set and their provenance."""
  _import_tfds()
  from pkpo_jax.data.tfds_builder import Builder

  files = dataset.files(source)
  provenance = {
    'dataset': dataset.name,
    'version': dataset.version,
    'options': dataset.options,
    'source': {name: _checksum(path) for name, path in files.items()},
  }
  splits = {
    split: list(progress_if_slow(records, f'{dataset.name} {split}', 'records'))
    for split, records in dataset.splits(files).items()
  }
  _check_records(dataset, splits)
  packages = dataset.packages if source is None else ()
  provenance['packages'] = {name: importlib.metadata.version(name) for name in packages}
  provenance['counts'] = {split: len(records) for split, records in splits.items()}
  builder, talk = Builder(dataset, splits, scratch), io.StringIO()
  with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):  # Of downloads.
    builder.download_and_prepare()
  folder = pathlib.Path(builder.data_dir)
  for split, records in splits.items():
    if _read(folder, split) != records:
      raise DataError(f'{dataset.name}: {split} does not read as it was written to {folder}.')
  provenance['prepared'] = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
  (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + '\n')
  if dataset.published and provenance['counts'] not in dataset.published:
    logging.warning(
      '%s: records %s; published: %s.', dataset.name, provenance['counts'], dataset.published
    )
  return folder


def _check_records(dataset: Dataset, splits: Mapping[str, Sequence[Record]]) -> None:
  """Raises ValueError if there is no record, an id comes twice, or a text is not Unicode."""
  ids = set()
  for split, records in splits.items():
    if not records:
      raise DataError(f'{dataset.name}: expected records of the split {split}, got none.')
    for record in records:
      where = f'{dataset.name}: {split}, {record["id"]}'
      if record['id'] in ids:
        raise DataError(f'{where}: expected an id that no other record has.')
      ids.add(record['id'])
      try:
        json.dumps(record, ensure_ascii=False).encode()
      except UnicodeEncodeError as error:
        raise DataError(f'{where}: expected text in Unicode, got {error}.') from error


def _check_prepared(folder: pathlib.Path, checksums: Mapping[str, str]) -> None:
  """Raises an error that names the file if one of them is missing or has changed."""
  for name, checksum in checksums.items():
    path = folder / name
    if not path.is_file():
      raise MissingDataError(f'{path} is missing; {_anew(folder)}')
    if _checksum(path) != checksum:
      raise DataError(f'{path} has changed since it was prepared; {_anew(folder)}')


def _check_source(
  folder: pathlib.Path, files: Mapping[str, pathlib.Path], checksums: Mapping[str, str]
) -> None:
  """Raises ValueError that names the file if the source is not that of `folder`."""
  for name in sorted(files.keys() | checksums.keys()):
    if name not in files:
      raise DataError(
        f'{name} is not in the source, but {folder} was made from it; {_anew(folder)}'
      )
    if name not in checksums:
      raise DataError(f'{files[name]}: {folder} was made without it; {_anew(folder)}')
    if _checksum(files[name]) != checksums[name]:
      raise DataError(f'{files[name]} is not what {folder} was made from; {_anew(folder)}')


def _anew(folder: pathlib.Path) -> str:
  """Returns what to do with a folder that is of no use."""
  return f'to prepare it anew, delete {folder}.'


def _checksum(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _read(folder: pathlib.Path, split: str) -> list[Record]:
  """Returns the records of a prepared split, as Python's own types."""
  records = _import_tfds().builder_from_directory(folder).as_data_source(split=split)
  return [{name: _plain(value) for name, value in record.items()} for record in records]


def _plain(value: Any) -> Any:
  """Returns text for bytes, int for NumPy's integers, and lists of these."""
  if isinstance(value, bytes):
    return value.decode()
  return [_plain(item) for item in value] if isinstance(value, list) else int(value)


def _import_tfds() -> types.ModuleType:
  """Returns the module tensorflow_datasets; raises ImportError that says what to install."""
  try:
    import tensorflow_datasets
  except ImportError as error:
    raise MissingPackageError(
      "data sets need tensorflow-datasets: pip install 'pkpo_jax[problems]', or '.[problems]' in "
      'a clone.'
    ) from error
  return tensorflow_datasets

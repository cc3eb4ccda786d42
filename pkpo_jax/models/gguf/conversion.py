"""Makes a Hugging Face folder of a GGUF file."""

import hashlib
import json
import math
import os
import pathlib
from typing import Any

import jax
import numpy as np

from pkpo_jax.errors import DataError, expect
from pkpo_jax.models.config_file import write_json
from pkpo_jax.models.gguf.families import Source, config_and_sources
from pkpo_jax.models.gguf.reading import GGUFFile
from pkpo_jax.models.gguf.vocabulary import Vocabulary
from pkpo_jax.models.saving import DTYPES, new_folder, write_safetensors
from pkpo_jax.progress import Progress

NOTE = 'converted_from.json'
_MILLION = 10**6


def convert(
  gguf_file: str | os.PathLike, folder: str | os.PathLike, dtype: str = 'float32'
) -> pathlib.Path:
  """Writes the weights, config and tokenizer of a GGUF file as Hugging Face has them.

  The folder is a cache: one that was made of this very file (by its SHA-256) in this dtype stays as
  it is. It appears when it is finished. Tensors are dequantized and written one at a time.

  Args:
    gguf_file: of one of `families.FAMILIES`.
    folder: gets model.safetensors, config.json, generation_config.json, tokenizer_config.json, and
      tokenizer.model or tokenizer.json.
    dtype: of the weights: 'float32', which is exact, or 'bfloat16', which rounds to the nearest.

  Returns:
    The folder.

  Raises:
    FieldError: if the dtype is another.
    UnavailableError: if the disk has no room for the weights.
    DataError: if the file is damaged or not understood, or the folder holds something else; see
      `GGUFFile`, `config_and_sources` and `Vocabulary`. Nothing is written then.
  """
  expect(dtype in DTYPES, 'dtype', f'one of {sorted(DTYPES)}', dtype)
  file, folder = GGUFFile(gguf_file), pathlib.Path(folder)
  note = {'sha256': sha256(file.path), 'dtype': dtype}
  if folder.exists():
    check_note(folder, note)
    return folder
  config, sources = config_and_sources(file)
  vocabulary = Vocabulary(file, config['vocab_size'])
  size = _num_weights(sources) * np.dtype(dtype).itemsize
  with new_folder(folder, size) as unfinished:
    vocabulary.write(unfinished)
    write_json(unfinished / 'config.json', {**config, 'torch_dtype': dtype})
    _write_weights(unfinished / 'model.safetensors', file, sources, dtype)
    write_json(unfinished / NOTE, note)
  return folder


def check_note(folder: pathlib.Path, expected: dict[str, Any]) -> None:
  """Raises DataError unless a folder was made of what is expected: its sha256, in its dtype."""
  try:
    note = json.loads((folder / NOTE).read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise DataError(f'{folder}: expected no such folder or one with {NOTE}, got neither.') from None
  except ValueError as error:
    raise DataError(f'{folder / NOTE}: expected JSON: {error}.') from error
  for field in ('sha256', 'dtype'):
    found = note.get(field) if isinstance(note, dict) else None
    if found != expected[field]:
      raise DataError(
        f'{folder / NOTE}: {field}: expected {expected[field]!r}, found {found!r}. Remove the '
        'folder, or name another.'
      )


def _num_weights(sources: dict[str, Source]) -> int:
  return sum(math.prod(source.shape) for source in sources.values())


def sha256(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _write_weights(
  path: pathlib.Path, file: GGUFFile, sources: dict[str, Source], dtype: str
) -> None:
  """Dequantizes tensors and writes them, one at a time."""
  num_weights, done = _num_weights(sources), 0
  with Progress('converting', -(-num_weights // _MILLION), unit='million weight') as bar:

    def arrays():
      nonlocal done
      for source in sources.values():
        array, start = np.empty(source.shape, np.float32), 0
        for chunk in file.chunks(source.name):
          array[start : start + len(chunk)] = chunk
          start += len(chunk)
          bar.update((done + chunk.size) // _MILLION - done // _MILLION)
          done += chunk.size
        yield source.change(array)

    like = {name: jax.ShapeDtypeStruct(x.shape, dtype) for name, x in sources.items()}
    write_safetensors(path, like, arrays())
    if num_weights % _MILLION:
      bar.update()

"""Reads GGUF, the one-file format of llama.cpp: metadata, and tensors that may be quantized.

The header is read here and not by the package's own reader: that makes an array of every number
and string (20 s for a vocabulary of 262,144), and says of a damaged file only where it stumbled.
Dequantization is the package's.
"""

import math
import mmap
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pkpo_jax.errors import DataError, MissingDataError, require_package

# https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
_MAGIC = b'GGUF'
_VERSIONS = (2, 3)
_SCALARS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q'}
_SCALARS |= {12: 'd'}
_STRING, _ARRAY = 8, 9
_MIN_STRING_BYTES = 8  # Its length.
_ALIGNMENT = 32  # Unless general.alignment says otherwise.
_MAX_DIMENSIONS = 4
_ELEMENTS_AT_ONCE = 2**22


class Tensor(NamedTuple):
  """Where a tensor stands in the file.

  Attributes:
    shape: rows first, as in NumPy; the file has the reverse.
    kind: how its numbers are stored, such as 'F32' or 'Q4_K'.
    offset: its first byte.
    num_bytes: its length.
  """

  shape: tuple[int, ...]
  kind: str
  offset: int
  num_bytes: int


class GGUFFile:
  """A GGUF file whose header has been read and whose tensors have not.

  Attributes:
    path: where it is.
    metadata: its fields: numbers, strings, and lists of these.
    tensors: by name.
  """

  def __init__(self, path: str | os.PathLike):
    """Reads the header, and checks that each tensor is there in full and can be dequantized.

    Args:
      path: a local file.

    Raises:
      MissingPackageError: if `gguf` is not installed.
      MissingDataError: if there is no such file.
      DataError: if it is no GGUF file, ends too early, or has a tensor of an unknown quantization;
        names the file, the field or tensor, and what was expected.
    """
    self.path = pathlib.Path(path)
    if not self.path.is_file():
      raise MissingDataError(f'{self.path}: expected a GGUF file, found none.')
    require_package('gguf', extra='gguf')
    with self.path.open('rb') as file:
      if os.fstat(file.fileno()).st_size == 0:
        raise DataError(f'{self.path}: expected a GGUF file, found an empty one.')
      self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    self._position, self._at = 0, 'header'
    self.metadata: dict[str, Any] = {}
    self.tensors: dict[str, Tensor] = {}
    self._read_header()

  def need(self, field: str, kind: type) -> Any:
    """Returns a metadata field.

    Args:
      field: its name.
      kind: int, float, str, bool or list.

    Raises:
      DataError: if it is missing or of another type.
    """
    if field not in self.metadata:
      raise DataError(f'{self.path}: {field}: expected {kind.__name__}, found no such field.')
    value = self.metadata[field]
    if type(value) is not kind:
      raise DataError(f'{self.path}: {field}: expected {kind.__name__}, found {value!r:.100}.')
    return value

  def optional(self, field: str, kind: type, default: Any = None) -> Any:
    """Returns a metadata field, `default` if there is none; DataError if of another type."""
    return self.need(field, kind) if field in self.metadata else default

  def chunks(self, name: str) -> Iterator[np.ndarray]:
    """Yields a tensor's rows in order, dequantized to float32, some megabytes at a time."""
    import gguf

    shape, kind, offset, num_bytes = self.tensors[name]
    stored = np.frombuffer(self._bytes, np.uint8, num_bytes, offset)
    *outer, width = shape
    stored = stored.reshape(math.prod(outer), -1)
    step = max(1, _ELEMENTS_AT_ONCE // width)
    for start in range(0, len(stored), step):
      rows = gguf.dequantize(stored[start : start + step], gguf.GGMLQuantizationType[kind])
      yield rows.reshape(len(rows), *shape[1:]) if len(shape) == 2 else rows.reshape(-1)

  def _read_header(self):
    found = bytes(self._bytes[:4])
    if found != _MAGIC:
      raise DataError(f'{self.path}: expected {_MAGIC} at the start of a GGUF file, found {found}.')
    self._position = 4
    version = self._scalar(4)
    if version not in _VERSIONS:
      raise DataError(f'{self.path}: version: expected one of {_VERSIONS}, found {version}.')
    num_tensors, num_fields = self._scalar(10), self._scalar(10)
    for number in range(num_fields):
      self._at = f'field {number + 1} of {num_fields}'
      field = self._at = self._string()
      self.metadata[field] = self._value(self._scalar(4))
    infos = {}
    for number in range(num_tensors):
      self._at = f'tensor {number + 1} of {num_tensors}'
      name = self._at = self._string()
      num_dimensions = self._scalar(4)
      if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        self._fail(f'expected 1 to {_MAX_DIMENSIONS} dimensions, found {num_dimensions}.')
      reversed_shape = [self._scalar(10) for _ in range(num_dimensions)]
      infos[name] = tuple(reversed_shape[::-1]), self._scalar(4), self._scalar(10)
    alignment = self.optional('general.alignment', int, _ALIGNMENT)
    start = -(-self._position // alignment) * alignment
    for name, (shape, kind, offset) in infos.items():
      self._at = name
      self.tensors[name] = self._tensor(shape, kind, start + offset)

  def _tensor(self, shape: tuple[int, ...], kind: int, offset: int) -> Tensor:
    """Returns the description of a tensor that is all there."""
    import gguf

    kinds = {x.value: x for x in gguf.GGMLQuantizationType}
    if kind not in kinds:
      self._fail(f'expected a quantization that gguf knows, found number {kind}.')
    kind = kinds[kind]
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    try:  # It tells only so what it can dequantize.
      gguf.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError:
      self._fail(f'expected a quantization that gguf can undo, found {kind.name}.')
    if shape[-1] % block_size:
      self._fail(f'expected rows of a multiple of {block_size} for {kind.name}, found {shape}.')
    num_bytes = math.prod(shape) // block_size * block_bytes
    self._expect_bytes(num_bytes, offset)
    return Tensor(shape, kind.name, offset, num_bytes)

  def _value(self, kind: int) -> Any:
    """Returns the metadata value of this type that comes next."""
    if kind in _SCALARS:
      return self._scalar(kind)
    if kind == _STRING:
      return self._string()
    if kind != _ARRAY:
      self._fail(f'expected a type from 0 to 12, found {kind}.')
    kind, length = self._scalar(4), self._scalar(10)
    if kind in _SCALARS:
      layout = f'<{length}{_SCALARS[kind]}'
      self._expect_bytes(length * struct.calcsize(_SCALARS[kind]), self._position)
      return list(self._unpack(layout))
    self._expect_bytes(length * _MIN_STRING_BYTES, self._position)
    return [self._value(kind) for _ in range(length)]

  def _scalar(self, kind: int) -> int | float | bool:
    layout = f'<{_SCALARS[kind]}'
    self._expect_bytes(struct.calcsize(layout), self._position)
    return self._unpack(layout)[0]

  def _unpack(self, layout: str) -> tuple:
    values = struct.unpack_from(layout, self._bytes, self._position)
    self._position += struct.calcsize(layout)
    return values

  def _string(self) -> str:
    length = self._scalar(10)
    self._expect_bytes(length, self._position)
    text = self._bytes[self._position : self._position + length]
    self._position += length
    try:
      return text.decode('utf-8')
    except UnicodeDecodeError as error:
      self._fail(f'expected UTF-8, found {text!r:.80}: {error.reason}.')

  def _expect_bytes(self, count: int, offset: int):
    """Raises DataError if the file ends before."""
    if offset + count > len(self._bytes):
      self._fail(
        f'expected {count:,} bytes from byte {offset:,}, found the end of the file at byte '
        f'{len(self._bytes):,}: it is truncated or damaged.'
      )

  def _fail(self, problem: str):
    raise DataError(f'{self.path}: {self._at}: {problem}')

"""What a data set is."""

import abc
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pkpo_jax.errors import DataError

Record = dict[str, Any]


class Dataset(abc.ABC):
  """A data set; the fields of a subclass, a dataclass, are options that change its content.

  Attributes:
    name: what it is called here, and its folder.
    version: to be raised when the same source gives other records.
    features: the fields of a record, each str, int, list[str] or list[int]; 'id' is one of them.
    published: records of each split, for each form it was published in; empty where it was not.
    packages: distributions whose versions decide on the content where there is no source.
    description: what it is.
    homepage: where it comes from.
    citation: whom to cite.
  """

  name: ClassVar[str]
  version: ClassVar[str] = '1.0.0'
  features: ClassVar[Mapping[str, Any]]
  published: ClassVar[Sequence[Mapping[str, int]]] = ()
  packages: ClassVar[Sequence[str]] = ()
  description: ClassVar[str]
  homepage: ClassVar[str] = ''
  citation: ClassVar[str] = ''

  @property
  def options(self) -> dict[str, Any]:
    """The fields' values."""
    return dataclasses.asdict(self)

  @property
  def folder(self) -> pathlib.Path:
    """Where it stands among prepared data sets: name/[hash of the options/]version."""
    digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()
    return pathlib.Path(self.name, digest[:12] if self.options else '', self.version)

  @abc.abstractmethod
  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns the source files by name; raises FileNotFoundError if one is missing."""

  @abc.abstractmethod
  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, Iterable[Record]]:
    """Returns the records of each split, in the order of the source; reads what `files` names.

    Raises, at the latest while records are read:
      ValueError: if one is malformed.
    """


class Generated(Dataset):
  """A data set without source files."""

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns none; raises ValueError if there is a source."""
    if source is not None:
      raise DataError(f'{self.name}: expected no source, as it is generated, got {source}.')
    return {}

"""How TFDS writes any of the data sets; needs tensorflow-datasets, but no TensorFlow."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from pkpo_jax.data.base import Dataset, Record

_FEATURES = {
  str: tfds.features.Text(),
  int: np.int64,
  list[str]: tfds.features.Sequence(tfds.features.Text()),
  list[int]: tfds.features.Sequence(np.int64),
}


class _Info(tfds.core.DatasetInfo):
  """What TFDS keeps beside the data; does not look for it among Google's own data sets."""

  def initialize_from_bucket(self) -> None:
    """Does nothing: TFDS would leave an empty folder, /tmp/...tfds, at every start."""


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes records that have been read and checked, in their order."""

  def __init__(
    self,
    dataset: Dataset,
    splits: Mapping[str, Sequence[Record]],
    data_dir: pathlib.Path,
  ):
    """Prepares nothing yet.

    Args:
      dataset: what they are records of.
      splits: its records.
      data_dir: gets the folder name/version.
    """
    self.name, self.VERSION = dataset.name, tfds.core.Version(dataset.version)
    self._dataset, self._splits = dataset, splits
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    """Returns what TFDS keeps beside the data."""
    kinds = self._dataset.features
    return _Info(
      builder=self,
      description=self._dataset.description,
      homepage=self._dataset.homepage,
      citation=self._dataset.citation,
      features=tfds.features.FeaturesDict({name: _FEATURES[kinds[name]] for name in kinds}),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    """Returns what each split is made from."""
    del dl_manager  # Nothing is downloaded.
    return {split: self._generate_examples(split) for split in self._splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, Record]]:
    """Yields the records with their places as keys."""
    yield from enumerate(self._splits[split])

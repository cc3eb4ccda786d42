"""MBPP: short Python programs with tests."""

import dataclasses
import pathlib
from collections.abc import Mapping

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.sources import find_files, read_jsonl

# The split of a problem goes by its task_id.
_SPLITS = {
  'prompt': range(1, 11),
  'test': range(11, 511),
  'validation': range(511, 601),
  'train': range(601, 975),
}


@dataclasses.dataclass(frozen=True)
class Mbpp(Dataset):
  """Problems in a sentence, each with a program and with assertions that it fulfils."""

  name = 'mbpp'
  features = {
    'id': str,
    'text': str,
    'code': str,
    'setup_code': str,
    'tests': list[str],
    'challenge_tests': list[str],
  }
  published = ({split: len(ids) for split, ids in _SPLITS.items()},)
  description = 'Mostly Basic Python Problems: short programs with tests.'
  homepage = 'https://github.com/google-research/google-research/tree/master/mbpp'
  citation = 'Austin et al. 2021, Program Synthesis with Large Language Models, arXiv 2108.07732'

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns the file mbpp.jsonl, which is `source` or in that folder."""
    folder = source.parent if source and source.name == 'mbpp.jsonl' else source
    return find_files(self.name, folder, ('mbpp.jsonl',), 'google-research/google-research (mbpp)')

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, list[Record]]:
    """Returns those of 'prompt', 'test', 'validation', 'train' that the file has problems of.

    An id is the task_id as text.
    """
    records = {split: [] for split in _SPLITS}
    for row in read_jsonl(files['mbpp.jsonl']):
      task_id, tests = row.get('task_id', int), row.get('test_list', list[str])
      splits = [split for split, ids in _SPLITS.items() if task_id in ids]
      row.expect(bool(splits), 'task_id', '1 to 974', task_id)
      row.expect(bool(tests), 'test_list', 'at least one test', tests)
      records[splits[0]].append(
        {
          'id': str(task_id),
          'text': row.get('text', str),
          'code': row.get('code', str),
          'setup_code': row.get('test_setup_code', str),
          'tests': tests,
          'challenge_tests': row.get('challenge_test_list', list[str]),
        }
      )
    return {split: found for split, found in records.items() if found}

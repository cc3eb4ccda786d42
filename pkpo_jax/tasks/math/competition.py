r"""MATH: competition mathematics with answers in \boxed{}."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.sources import Row, read_json, read_jsonl
from pkpo_jax.errors import MissingDataError

_FORMS = (
  'folders train and test with <subject>/<n>.json (hendrycks/math), or train.jsonl and test.jsonl '
  '(openai/prm800k, prm800k/math_splits), or folders train and test with a test.jsonl, whose '
  'problems are then the test problems and all others are those to train on'
)


@dataclasses.dataclass(frozen=True)
class Math(Dataset):
  """Problems with subject, level ('1' to '5', '?' where unknown), solution and answer.

  Which files there are decides on the form; a folder that has more than one of them is refused.
  Folders train and test hold the original 7,500 and 5,000 problems, train.jsonl and test.jsonl
  the 12,000 and 500 of Lightman et al. 2023 (arXiv 2305.20050). Folders with test.jsonl alone are
  split like the latter. An id is the file's name in the original folders: 'test/algebra/1.json'.
  """

  name = 'math'
  features = {
    'id': str,
    'problem': str,
    'solution': str,
    'answer': str,
    'subject': str,
    'level': str,
  }
  published = ({'train': 7500, 'test': 5000}, {'train': 12000, 'test': 500})
  description = 'Problems from mathematics competitions with solutions in LaTeX.'
  homepage = 'https://github.com/hendrycks/math'
  citation = (
    'Hendrycks et al. 2021, Measuring Mathematical Problem Solving With the MATH Dataset, '
    'arXiv 2103.03874'
  )

  def files(self, source: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Returns all .json files of the folders, or .jsonl files, or both."""
    if source is None:
      raise MissingDataError(f'{self.name}: expected as source a folder with {_FORMS}; got none.')
    folders = [name for name in ('train', 'test') if (source / name).is_dir()]
    jsonl = [name for name in ('train.jsonl', 'test.jsonl') if (source / name).is_file()]
    if folders and (len(folders) < 2 or 'train.jsonl' in jsonl) or not folders and len(jsonl) < 2:
      raise MissingDataError(
        f'{self.name}: expected in {source} {_FORMS}; got {folders + jsonl or "none of these"}.'
      )
    found = {name: source / name for name in jsonl}
    for folder in folders:
      paths = {str(path.relative_to(source)): path for path in (source / folder).glob('*/*.json')}
      if not paths:
        raise MissingDataError(
          f'{self.name}: {source / folder} has no <subject>/<n>.json; expected {_FORMS}.'
        )
      found |= {name: paths[name] for name in sorted(paths, key=_natural)}
    return found

  def splits(self, files: Mapping[str, pathlib.Path]) -> dict[str, Iterator[Record]]:
    """Returns 'train' and 'test'."""
    ids = [name for name in files if name.endswith('.json')]
    of_folder = lambda split: _from_folder(files, [i for i in ids if i.startswith(f'{split}/')])
    if 'train.jsonl' in files:
      return {
        split: map(_from_row, read_jsonl(files[f'{split}.jsonl'])) for split in ('train', 'test')
      }
    if 'test.jsonl' not in files:
      return {split: of_folder(split) for split in ('train', 'test')}
    test_ids = set()
    for row in read_jsonl(files['test.jsonl']):
      test_id = row.get('unique_id', str)
      row.expect(test_id in files, 'unique_id', 'one of the files in train and test', test_id)
      test_ids.add(test_id)
    return {
      'train': _from_folder(files, [i for i in ids if i not in test_ids]),
      'test': map(_from_row, read_jsonl(files['test.jsonl'])),
    }


def _from_folder(files: Mapping[str, pathlib.Path], ids: list[str]) -> Iterator[Record]:
  """Yields a record for each .json file."""
  for problem_id in ids:
    row = read_json(files[problem_id])
    solution, level = row.get('solution', str), row.get('level', str)
    answer = boxed_answer(solution)
    row.expect(bool(answer), 'solution', r'text with the answer in \boxed{}', solution)
    row.expect(
      re.fullmatch('Level [1-5?]', level) is not None, 'level', "'Level 1' to 'Level 5'", level
    )
    yield {
      'id': problem_id,
      'problem': row.get('problem', str),
      'solution': solution,
      'answer': answer,
      'subject': row.get('type', str),
      'level': level.removeprefix('Level '),
    }


def _from_row(row: Row) -> Record:
  """Returns the record of a line of the other split's files."""
  level = row.get('level', int)
  row.expect(1 <= level <= 5, 'level', '1 to 5', level)
  answer = row.get('answer', str)
  row.expect(bool(answer.strip()), 'answer', 'text that is not empty', answer)
  return {
    'id': row.get('unique_id', str),
    'problem': row.get('problem', str),
    'solution': row.get('solution', str),
    'answer': answer,
    'subject': row.get('subject', str),
    'level': str(level),
  }


def boxed_answer(solution: str) -> str | None:
  r"""Returns what the last \boxed holds, or the last \fbox if there is none; None without one.

  Without braces, as in '\boxed 5$', it holds what follows up to the end of the formula.

  >>> boxed_answer(r'So $x = \boxed{\frac{1}{2}}$.'), boxed_answer(r'Thus $\boxed 5$.')
  ('\\frac{1}{2}', '5')
  """
  for command in ('boxed', 'fbox'):
    *_, last = [None, *re.finditer(rf'\\{command}(?![A-Za-z])\s*', solution)]
    if last is not None:
      rest = solution[last.end() :]
      return (
        _in_braces(rest) if rest.startswith('{') else re.split(r'\$|\\[\])]|\n', rest)[0].strip()
      )
  return None


def _in_braces(text: str) -> str | None:
  r"""Returns what the braces that `text` begins with hold, None if they do not close."""
  depth = 0
  for found in re.finditer(r'\\.|[{}]', text, re.DOTALL):  # \{ and \} are no braces.
    depth += {'{': 1, '}': -1}.get(found[0], 0)
    if depth == 0 and found[0] == '}':
      return text[1 : found.start()].strip()
  return None


def _natural(name: str) -> list[str | tuple[int, str]]:
  """Returns a key that sorts 2.json before 10.json."""
  folder, file = name.rsplit('/', 1)
  return [folder, (len(file), file)]

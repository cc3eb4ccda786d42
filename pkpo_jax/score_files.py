"""Reads samples that were scored elsewhere: tables of samples, and logs of other evaluations."""

import contextlib
import csv
import io
import json
import math
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pkpo_jax.errors import DataError, MissingDataError, MissingPackageError
from pkpo_jax.samples import LEFT_OUT, problem_names

# Columns that are looked for, where none is named.
PROBLEM = ('problem', 'problem_id', 'prompt_id', 'task_id', 'question_id', 'doc_id', 'id')
REWARD = ('reward', 'score', 'correct', 'is_correct', 'passed', 'success')
ANSWER = ('answer', 'prediction', 'extracted_answer')
SUFFIXES = ('.jsonl', '.json', '.csv', '.eval')
# What inspect, and people, write for numbers: correct, incorrect, partially correct, no answer.
_WORDS = {'true': 1.0, 'false': 0.0, 'c': 1.0, 'i': 0.0, 'p': 0.5, 'n': 0.0}


class Samples(NamedTuple):
  """Samples of some problems.

  Attributes:
    ids: `[P]` of the problems, in the order in which they first come.
    rewards: `[P][n]`; None where a sample was not judged.
    answers: `[P][n]` the answers, None where there is none; None if no sample has one.
  """

  ids: list[str]
  rewards: list[list[float | None]]
  answers: list[list[str | None]] | None


class _Sample(NamedTuple):
  problem: str
  reward: float | None
  answer: str | None


class Columns(NamedTuple):
  """Which columns are meant, and which of several results; None looks for one.

  Attributes:
    problem: names the problem.
    reward: the number; of a log of inspect the scorer, of lm-evaluation-harness the metric.
    answer: the answer, for majority votes.
    filter: the filter of lm-evaluation-harness.
  """

  problem: str | None = None
  reward: str | None = None
  answer: str | None = None
  filter: str | None = None


def read_samples(path: pathlib.Path, columns: Columns) -> Samples:
  """Returns the samples of a file, or of all files in a folder together.

  It takes
    - JSON lines or CSV, a row a sample, with a column for the problem and one for its reward;
    - the `samples_*.jsonl` of lm-evaluation-harness, which has a sample of each problem for each
      filter, so that several samples are several files in a folder;
    - logs of inspect, `.eval` or `.json`, whose epochs are the samples;
    - the `samples.jsonl` that `pkpo_jax.evaluate` writes.

  Args:
    path: the file or folder.
    columns: what to read.

  Raises:
    MissingDataError: if there is no such file, or none of these in a folder.
    DataError: if a file is none of these or damaged, or a column is missing or one of several.
  """
  if path.is_dir():
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
      raise MissingDataError(f'{path}: expected files that end in {SUFFIXES}, found none.')
  elif path.is_file():
    files = [path]
  else:
    raise MissingDataError(f'{path}: expected a file or a folder, found none.')
  groups: dict[str, list[_Sample]] = {}
  for file in files:
    for sample in _samples_of(file, columns):
      groups.setdefault(sample.problem, []).append(sample)
  if not groups:
    raise DataError(f'{path}: expected at least one sample, found none.')
  has_answers = any(sample.answer is not None for group in groups.values() for sample in group)
  return Samples(
    list(groups),
    [[sample.reward for sample in group] for group in groups.values()],
    [[sample.answer for sample in group] for group in groups.values()] if has_answers else None,
  )


def _samples_of(file: pathlib.Path, columns: Columns) -> Iterator[_Sample]:
  if file.suffix == '.eval':
    return _of_inspect(file, _unzipped(file), columns)
  if file.suffix not in SUFFIXES:
    raise DataError(f'{file}: expected a file that ends in one of {SUFFIXES}.')
  try:
    text = file.read_text('utf-8-sig')
  except UnicodeDecodeError as error:
    raise DataError(f'{file}: expected text in UTF-8 ({error}).') from error
  if file.suffix == '.json':
    log = _parsed(text, str(file))
    if not isinstance(log, dict) or not isinstance(log.get('samples'), list):
      problem = 'expected a log of inspect, with samples (a table is .jsonl or .csv).'
      raise DataError(f'{file}: {problem}')
    return _of_inspect(file, log['samples'], columns)
  if not text.strip():
    return iter(())
  if file.suffix == '.csv':
    rows = list(csv.DictReader(io.StringIO(text, newline='')))
    return _of_table(file, rows, columns, first_line=2)
  rows = [
    _parsed(line, f'{file}, line {i}') for i, line in enumerate(text.split('\n'), 1) if line.strip()
  ]
  for i, row in enumerate(rows, 1):
    if not isinstance(row, dict):
      raise DataError(f'{file}, sample {i}: expected an object such as {{"problem": ...}}.')
  if rows and {'doc_id', 'filtered_resps'} <= rows[0].keys():
    return _of_harness(file, rows, columns)
  if rows and {'prompt_id', 'reward', 'success', 'step'} <= rows[0].keys():
    return _of_own(file, rows)
  return _of_table(file, rows, columns, first_line=1)


def _of_table(
  file: pathlib.Path, rows: Sequence[Mapping[str, Any]], columns: Columns, first_line: int
) -> Iterator[_Sample]:
  names = list(dict.fromkeys(name for row in rows for name in row))
  problem = _column(file, 'problem', columns.problem, PROBLEM, names)
  reward = _column(file, 'reward', columns.reward, REWARD, names)
  answer = _column(file, 'answer', columns.answer, ANSWER, names, is_needed=False)
  for i, row in enumerate(rows, first_line):
    where = f'{file}, line {i}'
    if row.get(problem) in (None, ''):
      raise DataError(f'{where}: {problem}: expected the name of a problem, found none.')
    given = row.get(answer) if answer else None
    shown = None if given in (None, '') else str(given)
    yield _Sample(str(row[problem]), _number(row.get(reward), f'{where}: {reward}'), shown)


def _of_own(file: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[_Sample]:
  """Yields what `pkpo_jax.samples` reads: successes, or rewards where nothing is right or wrong."""
  steps = sorted({row['step'] for row in rows})
  if len(steps) > 1:
    raise DataError(f'{file}: expected the samples of one evaluation, got those of steps {steps}.')
  samples = [row for row in rows if LEFT_OUT not in row]
  if len(samples) < len(rows):
    raise DataError(
      f'{file}: expected all samples of an evaluation, got some (log.max_samples_mib).'
    )
  is_right = any(row['success'] is not None for row in samples)
  for i, (row, name) in enumerate(zip(samples, problem_names(samples), strict=True), 1):
    reward = row['success' if is_right else 'reward']
    yield _Sample(name, _number(reward, f'{file}, sample {i}'), row['answer'])


def _of_harness(
  file: pathlib.Path, rows: Sequence[Mapping[str, Any]], columns: Columns
) -> Iterator[_Sample]:
  filters = list(dict.fromkeys(str(row.get('filter')) for row in rows))
  wanted = columns.filter or filters[0]
  if (columns.filter is None and len(filters) > 1) or wanted not in filters:
    raise DataError(f'{file}: --filter: expected one of {filters}, got {columns.filter!r}.')
  metrics = list(dict.fromkeys(name for row in rows for name in row.get('metrics', ())))
  metric = _column(file, 'reward', columns.reward, metrics, metrics)
  for row in rows:
    if str(row.get('filter')) == wanted:
      where = f'{file}, doc_id {row["doc_id"]}: {metric}'
      answers = row['filtered_resps']
      answer = answers[0] if len(answers) == 1 and isinstance(answers[0], str) else None
      yield _Sample(str(row['doc_id']), _number(row.get(metric), where), answer)


def _of_inspect(
  file: pathlib.Path, samples: Sequence[Mapping[str, Any]], columns: Columns
) -> Iterator[_Sample]:
  names = list(dict.fromkeys(name for sample in samples for name in sample.get('scores') or ()))
  if not names:
    raise DataError(f'{file}: expected samples with scores, found none among {len(samples)}.')
  scorer = _column(file, 'reward', columns.reward, names, names)
  for sample in samples:
    score = (sample.get('scores') or {}).get(scorer) or {}  # A sample that failed has none.
    where = f'{file}, sample {sample["id"]}, epoch {sample.get("epoch")}: {scorer}'
    yield _Sample(str(sample['id']), _number(score.get('value'), where), score.get('answer'))


def _unzipped(file: pathlib.Path) -> list[Any]:
  """Returns the samples in a log of inspect, which compresses them with zstd."""
  with contextlib.suppress(ImportError):
    import zipfile_zstd  # noqa: F401  (teaches zipfile zstd, which Python knows from 3.14 on)
  try:
    with zipfile.ZipFile(file) as archive:
      names = [name for name in archive.namelist() if name.startswith('samples/')]
      return [_parsed(archive.read(name).decode(), f'{file}, {name}') for name in names]
  except NotImplementedError as error:
    raise MissingPackageError(
      f"{file}: reading it needs zipfile-zstd: pip install 'pkpo_jax[inspect]', or '.[inspect]' in "
      'a clone. Without it, `inspect log convert --to json` writes a log that can be read.'
    ) from error
  except (zipfile.BadZipFile, EOFError) as error:
    raise DataError(f'{file}: expected a log of inspect, a zip archive ({error}).') from error


def _parsed(text: str, where: str) -> Any:
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise DataError(f'{where}: expected JSON ({error}).') from error


def _column(
  file: pathlib.Path,
  flag: str,
  named: str | None,
  candidates: Sequence[str],
  names: Sequence[str],
  is_needed: bool = True,
) -> str | None:
  """Returns the column that is meant: the one that is named, or the only one of the candidates."""
  if named is not None:
    if named not in names:
      raise DataError(f'{file}: --{flag}: expected one of {list(names)}, got {named!r}.')
    return named
  found = [name for name in candidates if name in names]
  if len(found) == 1 or (not found and not is_needed):
    return found[0] if found else None
  if found:
    raise DataError(f'{file}: --{flag}: expected which of {found} to take.')
  raise DataError(
    f'{file}: --{flag}: expected the name of a column among {list(names)}; '
    f'{list(candidates)} are known by themselves.'
  )


def _number(value: Any, where: str) -> float | None:
  """Returns a reward as a number, None for a sample without one."""
  if value is None or value == '':
    return None
  if isinstance(value, str):
    value = _WORDS.get(value.strip().lower(), value)
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise DataError(f'{where}: expected a finite number, true or false, got {value!r}.')
  return number

"""Scores samples that were judged elsewhere: pass@k, pass^k, max@k and maj@k with intervals.

  python -m pkpo_jax.score results.jsonl
  python -m pkpo_jax.score results.jsonl other.csv --output=scores

A file has a row for each sample, with a column for its problem and one for its reward (a number,
0/1 or true/false), and may have one for its answer; `pkpo_jax.score_files` says what else is read.
It needs no model, and of the package only its kernels. --output writes score.json and score.png.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pkpo_jax.curves import estimates
from pkpo_jax.errors import CONFIG_ERRORS, FieldError, expect
from pkpo_jax.evaluation import report
from pkpo_jax.evaluation.summary import LEVEL, Evaluation, compare, summarize
from pkpo_jax.score_files import Columns, Samples, read_samples
from pkpo_jax.votes import MAX_VOTERS, maj_at_k


def score(
  files: Sequence[Samples],
  names: Sequence[str],
  ks: Sequence[int] | None = None,
  bounds: tuple[float, float] | None = None,
  seed: int = 0,
) -> dict[str, Any]:
  """Returns a report on one set of samples, or on two and their difference.

  See `pkpo_jax.evaluation.report`. A problem none of whose samples was judged is left out of every
  curve. Differences are of the problems that both sets have.

  Args:
    files: one or two sets of samples.
    names: of them, for the report.
    ks: the values of k; None is 1, 2, 4, ... and the largest k that there can be, the smallest
      number of judged samples of a problem.
    bounds: the least and the greatest reward there can be, which the intervals of max@k need; None
      is (0, 1), and pass@k if all rewards are 0 or 1.
    seed: of the resamples.

  Raises:
    FieldError: if no sample was judged, a k is larger than there can be, a reward is outside the
      bounds, only one set has rewards of 0 and 1, or no problem is in both.
  """
  most = min(_fewest(samples, name) for samples, name in zip(files, names, strict=True))
  if ks is None:
    ks = sorted({*(2**i for i in range(most.bit_length())), most})
  for k in ks:
    expect(1 <= k <= most, '--k', f'1 to {most}, the fewest judged samples of a problem', k)
  is_binary = {bounds is None and _is_binary(samples) for samples in files}
  if len(is_binary) > 1:
    problem = f'expected the range of rewards, as one of {list(names)} has others than 0 and 1.'
    raise FieldError('--bounds', problem)
  objective = 'pass@k' if is_binary.pop() else 'max@k'
  evaluations = [
    _evaluate(samples, ks, objective, bounds or (0.0, 1.0), name)
    for samples, name in zip(files, names, strict=True)
  ]
  key = jax.random.key(seed)
  runs = [
    {'name': name, **_size(samples), **summarize(evaluation, ks, key)}
    for samples, name, evaluation in zip(files, names, evaluations, strict=True)
  ]
  found = {'seed': seed, 'level': LEVEL, 'runs': runs, 'differences': {}}
  if len(files) == 2:
    both = [name for name in files[0].ids if name in set(files[1].ids)]
    if not both:
      raise FieldError(names[1], f'expected problems of {names[0]}, got none of them.')
    aligned = [_picked(evaluation, both) for evaluation in evaluations]
    found |= {'num_problems_in_both': len(both), 'differences': compare(*aligned, ks, key)}
  return found


def _evaluate(
  samples: Samples, ks: Sequence[int], objective: str, bounds: tuple[float, float], name: str
) -> Evaluation:
  """Returns the estimates for each problem."""
  most = max(map(len, samples.rewards))
  rewards = np.zeros((len(samples.ids), most), np.float32)
  where = np.zeros(rewards.shape, bool)
  for p, group in enumerate(samples.rewards):
    for i, reward in enumerate(group):
      if reward is not None:
        rewards[p, i], where[p, i] = reward, True
  outside = where & ~((rewards >= bounds[0]) & (rewards <= bounds[1]))
  if outside.any():
    p, i = np.argwhere(outside)[0]
    got = f'{rewards[p, i]} for problem {samples.ids[p]!r} of {name}'
    problem = f'expected the range of rewards, which intervals need: {bounds} has not {got}.'
    raise FieldError('--bounds', problem)
  curves = {x: np.asarray(y) for x, y in estimates({objective: rewards}, ks, where).items()}
  if samples.answers is not None and objective == 'pass@k' and most <= MAX_VOTERS:
    majority = _majorities(samples, ks)
    if not np.isnan(majority).all():
      curves['maj@k'] = majority
  all_bounds = dict.fromkeys(curves, (0.0, 1.0)) | {objective: bounds}
  return Evaluation(np.asarray(samples.ids), curves, {}, {}, all_bounds)


def _majorities(samples: Samples, ks: Sequence[int]) -> np.ndarray:
  """Returns maj@k of each problem, `[P, K]`; NaN if equal answers are not equally right."""
  found = np.full((len(samples.ids), len(ks)), np.nan)
  for p, (rewards, answers) in enumerate(zip(samples.rewards, samples.answers, strict=True)):
    pairs = [
      (answer, reward == 1)
      for answer, reward in zip(answers, rewards, strict=True)
      if reward is not None
    ]
    voters = [pair for pair in pairs if pair[0] is not None]
    if pairs and len(set(voters)) == len({answer for answer, _ in voters}):
      given, is_right = zip(*pairs, strict=True)
      found[p] = maj_at_k([given], np.asarray([is_right]), ks)[0]
  return found


def _picked(evaluation: Evaluation, ids: Sequence[str]) -> Evaluation:
  """Returns the evaluation of these problems, in their order."""
  places = {name: i for i, name in enumerate(evaluation.ids.tolist())}
  rows = [places[name] for name in ids]
  curves = {name: values[rows] for name, values in evaluation.curves.items()}
  return evaluation._replace(ids=evaluation.ids[rows], curves=curves)


def _size(samples: Samples) -> dict[str, Any]:
  counts = [len(group) for group in samples.rewards]
  num_unjudged = sum(reward is None for group in samples.rewards for reward in group)
  sizes = [min(counts), max(counts)]
  return {'num_problems': len(counts), 'num_samples': sizes, 'num_unjudged': num_unjudged}


def _is_binary(samples: Samples) -> bool:
  return all(reward in (None, 0, 1) for group in samples.rewards for reward in group)


def _fewest(samples: Samples, name: str) -> int:
  """Returns the fewest judged samples of a problem that has any."""
  counts = [sum(reward is not None for reward in group) for group in samples.rewards]
  expect(any(counts), name, 'a sample with a reward', 'none')
  return min(filter(None, counts))


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints the table; writes JSON and figure, if that is asked for."""
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    prog='python -m pkpo_jax.score', description=__doc__.splitlines()[0]
  )
  parser.add_argument('files', nargs='+', metavar='FILE', help='samples; two are compared')
  parser.add_argument('--k', help='values of k, such as 1,8,64')
  parser.add_argument('--problem', help='column that names the problem')
  parser.add_argument('--reward', help='column of the reward; scorer of inspect; metric of lm-eval')
  parser.add_argument('--answer', help='column of the answer, for maj@k')
  parser.add_argument('--filter', help='filter of lm-eval')
  parser.add_argument('--bounds', help='least and greatest reward there can be, such as -1,1')
  parser.add_argument('--seed', type=int, default=0, help='of the resamples of the intervals')
  parser.add_argument('--output', type=pathlib.Path, help='folder for score.json and score.png')
  options = parser.parse_args(arguments)
  try:
    expect(len(options.files) <= 2, 'FILE', 'one file, or two to compare', options.files)
    expect(options.seed >= 0, '--seed', 'at least 0', options.seed)
    ks = None if options.k is None else sorted(set(_numbers('--k', options.k, int)))
    bounds = None if options.bounds is None else _numbers('--bounds', options.bounds, float)
    is_pair = bounds is None or (len(bounds) == 2 and bounds[0] < bounds[1])
    expect(is_pair, '--bounds', 'two increasing numbers', options.bounds)
    if options.output is not None:
      report.require_matplotlib()
    columns = Columns(options.problem, options.reward, options.answer, options.filter)
    files = [read_samples(pathlib.Path(file), columns) for file in options.files]
    found = score(files, options.files, ks, bounds, options.seed)
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  command = shlex.join(['python', '-m', 'pkpo_jax.score', *arguments])
  found = {'command': command, **found}
  print(report.table(found))
  if options.output is not None:
    options.output.mkdir(parents=True, exist_ok=True)
    report.write_json(found, options.output / 'score.json')
    report.draw(found, options.output / 'score.png')
    print(f'Problem by problem: {options.output}/score.json    Figure: {options.output}/score.png')


def _numbers(flag: str, text: str, kind: type) -> tuple:
  try:
    return tuple(map(kind, text.split(',')))
  except ValueError:
    raise FieldError(flag, f'expected numbers such as 1,2, got {text!r}.') from None


if __name__ == '__main__':
  main()

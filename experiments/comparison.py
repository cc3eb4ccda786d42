"""Rows that compare the trainings of several methods, each with several seeds."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from experiments.launcher import Job
from pkpo_jax.estimators import standard_error
from pkpo_jax.intervals import Interval
from pkpo_jax.metrics import read_metrics


def over_seeds(values: np.ndarray, name: str) -> dict[str, float | int | None]:
  """Returns the mean over seeds, its standard error (None for one seed) and the number of seeds."""
  error = standard_error(values) if len(values) > 1 else None
  return {name: values.mean(), 'standard_error': error, 'num_seeds': len(values)}


def paired_rows(
  values: Mapping[str, np.ndarray],
  pairs: Sequence[tuple[str, str]],
  ks: Sequence[int],
  interval: Callable[[np.ndarray, np.ndarray, jax.Array], Interval],
) -> list[dict]:
  """Returns the differences of pairs, paired by problem and by seed (or to a baseline of one seed).

  Two intervals: over problems, of the mean over seeds (what other problems would give, for these
  runs); and the standard error over seeds (what other runs would give, on these problems).

  Args:
    values: of each method, `[seeds, P, K]`.
    pairs: a method and its baseline.
    ks: the K.
    interval: of the difference of two `[P, K]`, such as `pkpo_jax.intervals.paired_interval`.
  """
  rows = []
  for index, (method, baseline) in enumerate(pairs):
    own, base = values[method], values[baseline]
    found = interval(own.mean(axis=0), base.mean(axis=0), jax.random.key(index))
    differences = (own - base).mean(axis=1)
    for i, k in enumerate(ks):
      rows.append(
        {
          'method': method,
          'baseline': baseline,
          'k_eval': k,
          'difference': found.mean[i],
          'low_95_over_problems': found.low[i],
          'high_95_over_problems': found.high[i],
          'standard_error_over_seeds': standard_error(differences[:, i]),
          'num_seeds_above': int(np.sum(differences[:, i] > 0)),
          'num_seeds': len(differences),
          'num_problems': own.shape[1],
        }
      )
  return rows


def curve_rows(jobs: Mapping[str, Sequence[Job]], names: Sequence[str]) -> list[dict]:
  """Returns the training metrics of each method at each logged step, means over seeds."""
  rows = []
  for method, group in jobs.items():
    lines = [[x for x in read_metrics(one.workdir) if 'train/entropy' in x] for one in group]
    for at_step in zip(*lines, strict=True):
      row = {'method': method, 'step': at_step[0]['step']}
      for name in names:
        found = over_seeds(np.asarray([line[f'train/{name}'] for line in at_step]), name)
        row |= {name: found[name], f'{name}_se': found['standard_error']}
      rows.append(row)
  return rows

"""Means over problems with their intervals, from what was measured for each problem."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pkpo_jax.estimators import standard_error
from pkpo_jax.intervals import few_problems, mean_interval, paired_interval
from pkpo_jax.typing import Key

LEVEL = 0.95  # Of the intervals.


class Evaluation(NamedTuple):
  """What one evaluation measured; all but `exact` for each problem.

  Attributes:
    ids: `[P]` the problems.
    curves: for each of the task's objectives, 'pass^k' beside 'pass@k', and 'maj@k' where answers
      can be compared, estimates `[P, K]` for each k in config.eval.ks; NaN where a problem has
      fewer than k judged samples.
    statistics: means over the problem's samples, `[P]` each, NaN where there is nothing to take
      the mean of; see `statistics.sample_statistics`.
    exact: for the first objective, `[K]` over all problems there are, exactly; empty where the task
      cannot tell.
    bounds: for each curve the least and the greatest value that a problem can have.
  """

  ids: Int[np.ndarray, 'P']
  curves: dict[str, Float[np.ndarray, 'P K']]
  statistics: dict[str, Float[np.ndarray, 'P']]
  exact: dict[str, Float[np.ndarray, 'K']]
  bounds: dict[str, tuple[float, float]]


def summarize(evaluation: Evaluation, ks: Sequence[int], key: Key) -> dict[str, Any]:
  """Returns the curves, statistics and problems of a report; `key` draws the resamples.

  A problem with too few judged samples for one k is left out of the curve.
  """
  curves = {}
  for name, values in evaluation.curves.items():
    known = values[~np.isnan(values).any(axis=-1)]
    mean, low, high = mean_interval(known, key, level=LEVEL, bounds=evaluation.bounds[name])
    warnings = [few_problems(column) for column in known.T]
    error = standard_error(known) if len(known) > 1 else [None] * len(ks)
    curves[name] = {'k': ks, 'mean': mean, 'standard_error': error}
    curves[name] |= {'low': low, 'high': high, 'num_problems': len(known), 'warnings': warnings}
    if name in evaluation.exact:
      curves[name]['exact'] = evaluation.exact[name]
  statistics = {}
  for name, values in evaluation.statistics.items():
    known = values[~np.isnan(values)]
    if known.size:
      error = standard_error(known) if known.size > 1 else None
      statistics[name] = {
        'mean': np.mean(known),
        'standard_error': error,
        'num_problems': known.size,
      }
  problems = {'id': evaluation.ids, **evaluation.curves, **evaluation.statistics}
  return _plain({'curves': curves, 'statistics': statistics, 'problems': problems})


def compare(
  evaluation: Evaluation, other: Evaluation, ks: Sequence[int], key: Key
) -> dict[str, Any]:
  """Returns the differences of a report; `key` draws the resamples."""
  differences = {}
  for name, values in evaluation.curves.items():
    if name in other.curves:
      others = other.curves[name]
      known = ~np.isnan(values + others).any(axis=-1)
      if not known.any():
        continue
      bounds = evaluation.bounds[name]
      interval = paired_interval(values[known], others[known], key, level=LEVEL, bounds=bounds)
      warnings = [few_problems(column) for column in (values - others)[known].T]
      means = {'first': values[known].mean(axis=0), 'second': others[known].mean(axis=0)}
      differences[name] = _plain({'k': ks, **means, **interval._asdict(), 'warnings': warnings})
  return differences


def _plain(tree: Any) -> Any:
  """Returns nested dicts of arrays as nested dicts of lists, None for what is not a number."""
  if isinstance(tree, Mapping):
    return {name: _plain(value) for name, value in tree.items()}
  if tree is None:
    return None
  listed = np.asarray(tree).tolist()
  known = lambda x: None if isinstance(x, float) and np.isnan(x) else x
  return [known(x) for x in listed] if isinstance(listed, list) else known(listed)

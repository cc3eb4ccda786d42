"""What the ranks among k samples count for: the a_j of sum_j a_j g_(j:k), g_(1:k) the smallest."""

import jax
import jax.numpy as jnp
import numpy as np

from pkpo_jax.errors import Choices, expect
from pkpo_jax.typing import K


def _max(j, k, share, num_top):
  del share, num_top
  return j == k


def _min(j, k, share, num_top):
  del k, share, num_top
  return j == 1


def _median(j, k, share, num_top):
  del share
  return _quantile(j, k, 0.5, num_top)


def _quantile(j, k, share, num_top):
  del num_top
  return jnp.maximum(1 - jnp.abs(j - 1 - (k - 1) * share), 0)


def _top_mean(j, k, share, num_top):
  del share
  return (j > k - num_top) / num_top


def _lower_mean(j, k, share, num_top):
  del num_top
  size = share * k
  return jnp.clip(size - (j - 1), 0, 1) / size


# Name -> fn(j, k, share, num_top) -> a_j for j = 1..n, of which those up to k count.
STATISTICS = Choices(
  {
    'max': _max,
    'min': _min,
    'median': _median,
    'quantile': _quantile,
    'top_mean': _top_mean,
    'lower_mean': _lower_mean,
  }
)


def weights_of_ranks(
  statistic: str,
  k: K,
  n: int,
  *,
  share: float,
  num_top: int,
  rank_weights: tuple[float, ...] | None,
) -> jax.Array:
  """Returns a_1..a_k as `[n]` float32, 0 beyond k; all 0 for a traced k they are not defined for.

  Args:
    statistic: a key of STATISTICS.
    k: checked; int or traced int32.
    n: at least k.
    share: of 'quantile' and 'lower_mean'.
    num_top: of 'top_mean'.
    rank_weights: a_1..a_k themselves; None takes the statistic.

  Raises:
    ValueError: if the statistic is unknown or an argument out of its range.
  """
  expect(statistic in STATISTICS, 'statistic', f'one of {sorted(STATISTICS)}', statistic)
  low = 'in (0, 1]' if statistic == 'lower_mean' else 'in [0, 1]'
  in_range = 0 <= share <= 1 and (share > 0 or statistic != 'lower_mean')
  expect(in_range, 'share', f'a number {low}', share)
  expect(num_top >= 1, 'num_top', 'at least 1', num_top)
  k_is_known = isinstance(k, int | np.integer)
  if rank_weights is None:
    is_defined = statistic != 'top_mean' or k >= num_top
    if k_is_known:
      expect(is_defined, 'num_top', f'at most k = {k}', num_top)
    j = jnp.arange(1, n + 1)
    found = STATISTICS[statistic](j, k, share, num_top) * (j <= k)
    return jnp.where(is_defined, found, 0).astype(jnp.float32)
  given = np.asarray(rank_weights, np.float32)
  expect(bool(np.all(np.isfinite(given))), 'rank_weights', 'k finite numbers', rank_weights)
  if k_is_known:
    expect(len(given) == k, 'rank_weights', f'k = {k} numbers', rank_weights)
  expect(len(given) <= n, 'rank_weights', f'at most n = {n} numbers', rank_weights)
  padded = np.pad(given, (0, n - len(given)))
  return jnp.where(jnp.asarray(k) == len(given), padded, 0)

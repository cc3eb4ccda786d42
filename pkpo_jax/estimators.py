"""Estimates of pass@k and max@k from samples, and their uncertainty over problems.

A group with a NaN or an infinite reward has the estimate NaN; other groups do not notice.
`where=jnp.isfinite(rewards)` leaves such samples out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Shaped

from pkpo_jax import groups, ranks, weights
from pkpo_jax.errors import FieldError, FieldTypeError, expect
from pkpo_jax.group_ks import takes_k_per_group
from pkpo_jax.typing import AnyArray, K, Mask, PerGroup, Rewards
from pkpo_jax.weights import subset_weights

# Samples of each problem, or of all alike.
Counts = Shaped[AnyArray, '*p'] | int | np.integer


@takes_k_per_group
def max_at_k(rewards: Rewards, k: K, *, where: Mask = None) -> PerGroup:
  """Returns the unbiased estimate of max@k = E[max of k rewards] for each group.

  rho = sum_t v_t g_(t), the mean of the largest reward over all k-subsets of the n samples
  (Walder & Karkhanis 2025, arXiv 2505.15201, eq. 12). On {0, 1} rewards it is pass@k.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the best of, 1 <= k <= n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists.

  Returns:
    `[...]` float32, reward units; 0 for a group that does not allow k (k < 1 or k > its samples),
    which has no unbiased estimate: leave such groups out of a mean.

  Raises:
    ValueError: if a Python int k is outside [1, n].

  >>> print(max_at_k(jnp.array([0., 1., 0., 2.]), 3))
  1.75
  """
  group = groups.as_group(rewards, where)
  k = groups.check_k(k, group.n)
  v = subset_weights(group.n, k, num_valid=group.num_valid, dtype=group.rewards.dtype)
  top = group.max()
  below_top = jnp.sum(v * (groups.order(group).values - top), axis=-1, keepdims=True)
  return jnp.where(group.allows(k), top + below_top, 0)[..., 0]


@takes_k_per_group
def order_statistic_at_k(
  rewards: Rewards,
  k: K,
  *,
  statistic: str = 'median',
  share: float = 0.5,
  num_top: int = 1,
  rank_weights: tuple[float, ...] | None = None,
  where: Mask = None,
) -> PerGroup:
  """Returns the unbiased estimate of E[sum_j a_j g_(j:k)], g_(j:k) the j-th smallest of k rewards.

  The mean of that over all k-subsets of the n samples; what `order_statistic` climbs.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples of which ranks are taken, 1 <= k <= n; int or traced int32.
    statistic: and what follows: as in `order_statistic`.
    share: of 'quantile' and 'lower_mean'.
    num_top: of 'top_mean'.
    rank_weights: a_1..a_k in place of a statistic.
    where: `[..., n]` bool, True where a sample exists.

  Returns:
    `[...]` float32, reward units; 0 for a group that does not allow k.

  Raises:
    ValueError: if a Python int k is outside [1, n], or an argument out of its range.

  >>> print(order_statistic_at_k(jnp.array([0., 1., 2.]), 2, statistic='min'))
  0.33333334
  """
  group = groups.as_group(rewards, where)
  checked = groups.check_k(k, group.n)
  options = {'share': share, 'num_top': num_top, 'rank_weights': rank_weights}
  a = ranks.weights_of_ranks(statistic, k, group.n, **options)
  w = weights.rank_weights(a, checked, num_valid=group.num_valid, dtype=group.rewards.dtype)
  top = group.max()
  below_top = jnp.sum(w * (groups.order(group).values - top), axis=-1, keepdims=True)
  estimate = jnp.sum(a) * top + below_top
  return jnp.where(group.allows(checked), estimate, 0)[..., 0]


@takes_k_per_group
def min_at_k(rewards: Rewards, k: K, *, where: Mask = None) -> PerGroup:
  """Returns the unbiased estimate of E[min of k rewards]; of 0 and 1, of pass^k: all k are right.

  C(c, k) / C(n, k) where c of n samples are right.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples the objective takes the worst of, 1 <= k <= n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists.

  Returns:
    `[...]` float32, reward units; 0 for a group that does not allow k.

  Raises:
    ValueError: if a Python int k is outside [1, n].

  >>> print(min_at_k(jnp.array([0., 1., 1.]), 2))
  0.33333334
  """
  # From 0, as the negative of 0 is shown as -0.
  return 0 - max_at_k(-groups.as_group(rewards, where).rewards, k, where=where)


def pass_at_k(num_correct: Counts, num_samples: Counts, k: K) -> PerGroup:
  """Returns the unbiased estimate of pass@k, the chance that one of k samples is right.

  rho = 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374), built up from pass@0 = 0 by
  pass@(j+1) = pass@j + (1 - pass@j) c/(n-j): every term is positive, so float32 keeps a relative
  error of about k 1e-7 even where pass@k is tiny.

  Args:
    num_correct: `[...]` integers, right samples c of each problem, 0 <= c <= n.
    num_samples: `[...]` integers, samples n of each problem.
    k: samples that may be drawn, 1 <= k <= n; int or traced int32.

  Returns:
    `[...]` float32 in [0, 1]; 0 where traced numbers break the bounds.

  Raises:
    ValueError: if known numbers break the bounds.

  >>> print(pass_at_k(np.array([0, 1, 4]), 4, k=2))
  [0.  0.5 1. ]
  """
  for name, count in (('num_correct', num_correct), ('num_samples', num_samples)):
    if not jnp.issubdtype(jnp.result_type(count), jnp.integer):
      raise FieldTypeError(name, f'expected integers, got dtype {jnp.result_type(count)}.')
  known = [x for x in (num_correct, num_samples) if not isinstance(x, jax.core.Tracer)]
  if len(known) == 2:
    c, n = np.broadcast_arrays(*known)
    if np.any((c < 0) | (c > n)):
      at = tuple(np.argwhere((c < 0) | (c > n))[0])
      raise FieldError(
        'num_correct', f'expected 0 <= num_correct <= num_samples = {n[at]}, got {c[at]}.'
      )
    if not isinstance(k, jax.Array):
      groups.check_k(k, int(n.min()))
  c, n = jnp.asarray(num_correct), jnp.asarray(num_samples)
  k = groups.check_k(k, np.iinfo(np.int32).max)

  def draw_one_more(j, pass_at_j):
    chance = jnp.clip(c / jnp.maximum(n - j, 1), 0, 1).astype(jnp.float32)
    return pass_at_j + (1 - pass_at_j) * chance

  zeros = jnp.zeros(jnp.broadcast_shapes(c.shape, n.shape), jnp.float32)
  in_bounds = (k >= 1) & (k <= n) & (c >= 0) & (c <= n)
  # However large a traced k is, nobody can draw more samples than there are.
  num_draws = jnp.minimum(k, jnp.max(n, initial=0))
  estimate = lax.fori_loop(0, num_draws, draw_one_more, zeros)
  return lax.stop_gradient(jnp.where(in_bounds, estimate, 0))


def pass_at_k_curve(
  rewards: Rewards, ks: Sequence[int], *, where: Mask = None
) -> Float[jax.Array, '*p k']:
  """Returns the estimates of max@k (pass@k on {0, 1} rewards) of each problem for several k.

  Args:
    rewards: `[..., n]` rewards of n samples of each problem.
    ks: the values of k, each in [1, n].
    where: `[..., n]` bool, True where a sample exists; every problem needs max(ks) samples.

  Returns:
    `[..., K]` float32, reward units. Reduce over problems with `standard_error` and
    `pkpo_jax.mean_interval`.

  Raises:
    ValueError: if a k is outside [1, n], or a known problem has fewer than max(ks) samples.

  >>> print(pass_at_k_curve(jnp.array([[0., 1., 0., 0.], [1., 1., 1., 1.]]), [1, 2, 4]).mean(0))
  [0.625 0.75  1.   ]
  """
  if where is not None and not isinstance(where, jax.core.Tracer):
    num_valid = np.sum(np.asarray(where), axis=-1)
    if np.any(num_valid < max(ks)):
      at = tuple(int(i) for i in np.argwhere(num_valid < max(ks))[0])
      raise FieldError(
        'ks',
        f'expected every k <= the samples of every problem, got k = {max(ks)} and '
        f'{num_valid[at]} samples at problem {at}.',
      )
  return jnp.stack([max_at_k(rewards, k, where=where) for k in ks], axis=-1)


def standard_error(values: Float[AnyArray, 'p *rest']) -> Float[jax.Array, '*rest']:
  """Returns the standard error of the mean over problems: sample standard deviation / sqrt(P).

  Args:
    values: `[P, ...]` one estimate per problem, P >= 2.

  Raises:
    ValueError: if there are fewer than 2 problems.

  >>> print(standard_error(jnp.array([0., 1., 0., 1.])))
  0.28867513
  """
  shape = jnp.shape(values)
  expect(bool(shape) and shape[0] >= 2, 'values', 'shape [P, ...] with P >= 2 problems', shape)
  return jnp.std(jnp.asarray(values), axis=0, ddof=1) / jnp.sqrt(shape[0])

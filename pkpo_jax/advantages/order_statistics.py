"""Advantages for what a rank among k samples is worth: the worst of k, the median, a tail's mean.

The objective is E[sum_j a_j g_(j:k)], g_(j:k) the j-th smallest of the rewards of k samples and a_j
the weight of that rank. Not in the PKPO paper; OrderGrad (arXiv 2606.06096) has the same estimator
for one group of fixed size. As everywhere, A_i is for a loss that averages over samples.
"""

import jax
import jax.numpy as jnp

from pkpo_jax import groups, weights
from pkpo_jax.advantages.pkpo import gains_less_losses
from pkpo_jax.group_ks import takes_k_per_group
from pkpo_jax.ranks import weights_of_ranks
from pkpo_jax.typing import Advantages, K, Mask, Rewards


@takes_k_per_group
def order_statistic(
  rewards: Rewards,
  *,
  k: K,
  statistic: str = 'median',
  share: float = 0.5,
  num_top: int = 1,
  rank_weights: tuple[float, ...] | None = None,
  where: Mask = None,
) -> Advantages:
  """Returns centered advantages, unbiased for a mean of order statistics of k samples.

  A_i = kn/(n-k) (mean of f over the k-subsets that hold sample i - mean over all k-subsets),
  f(I) = sum_j a_j g_(j:I). By gaps D_t = g_(t+1) - g_(t) between rewards in ascending order,

    A_i = k/(n-1) (sum_{t < i} t c_t D_t - sum_{t >= i} (n-t) c_t D_t),

  where c_t = sum_j a_j C(t-1, j-1) C(n-t-1, k-j) / C(n-2, k-1) is the weight of the rank between
  samples t and t + 1 when k - 1 of the other n - 2 are drawn. No terms cancel where no a_j is
  negative. They sum to 0 in every group, and do not change when a number is added to all rewards.
  'max' is `pkpo_centered`, k = 1 is `rloo`. O(n log n), and O(n) more for each rank with a weight.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples of which ranks are taken, 1 <= k < n; int or traced int32.
    statistic: a key of `pkpo_jax.STATISTICS`: 'max', 'min', 'median', 'quantile', 'top_mean' or
      'lower_mean'.
    share: of 'quantile', between 0 (the smallest) and 1, interpolated as NumPy does; of
      'lower_mean' (CVaR), in (0, 1]: the mean of the lowest share * k ranks, the last in part.
    num_top: of 'top_mean', how many of the largest; groups are 0 for a traced k below it.
    rank_weights: a_1..a_k, smallest first, in place of a statistic; k is then their number.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n) or not that of rank_weights, n = 1, or an
      argument is out of its range.

  >>> print(order_statistic(jnp.array([0., 1., 2.]), k=2, statistic='min'))
  [-2.  1.  1.]
  """
  group = groups.as_group(rewards, where)
  groups.require_other_samples(group)
  checked = groups.check_k(k, group.n, below_n=True)
  options = {'share': share, 'num_top': num_top, 'rank_weights': rank_weights}
  return _centered(group, weights_of_ranks(statistic, k, group.n, **options), checked)


@takes_k_per_group
def pass_hat_k(rewards: Rewards, *, k: K, where: Mask = None) -> Advantages:
  """Returns centered advantages, unbiased for pass^k: that all of k samples are right.

  For rewards other than 0 and 1 it is E[min of k rewards]. `order_statistic` with 'min', and minus
  `pkpo_centered` of the negated rewards. With c right samples of n it is 0 for all where c < k.

  Args:
    rewards: `[..., n]` task rewards; flat `[P * n]` are one group, see `pkpo_jax.by_group`.
    k: samples that all have to be right, 1 <= k < n; int or traced int32.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n), or n = 1.

  >>> print(pass_hat_k(jnp.array([0., 1., 1.]), k=2))
  [-2.  1.  1.]
  """
  return order_statistic(rewards, k=k, statistic='min', where=where)


@jax.jit
def _centered(group: groups.Group, a: jax.Array, k: jax.Array) -> jax.Array:
  ranked = groups.order(group)
  dtype = group.rewards.dtype
  c = weights.rank_weights(a, k, num_valid=group.num_valid, dtype=dtype, between=True)
  gains = gains_less_losses(group, ranked, c)
  advantages = gains * k / jnp.maximum(group.count - 1, 1)
  return group.mask(jnp.where(group.allows(k, below_n=True), advantages, 0))

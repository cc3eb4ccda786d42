"""The advantage for majority voting: what a sample changes about the vote of k.

The centered estimator over all k-subsets is unbiased for any symmetric function f of k samples; of
the vote it can be computed from how often each answer came.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Shaped

from pkpo_jax import groups
from pkpo_jax.errors import expect
from pkpo_jax.group_ks import takes_k_per_group
from pkpo_jax.typing import Advantages, AnyArray, K, Mask, Rewards

# The work grows with n^3 log n: vote counts and nodes, points of the circle, answers.
MAX_SAMPLES = 64
# C(size, j), at most 2e18.
_WAYS = np.array(
  [[math.comb(size, j) for j in range(MAX_SAMPLES + 1)] for size in range(MAX_SAMPLES + 1)],
  np.float32,
)


@takes_k_per_group
def maj_at_k(
  rewards: Rewards,
  *,
  k: K,
  answers: Shaped[AnyArray, '*p n'],
  success_threshold: float = 1.0,
  where: Mask = None,
) -> Advantages:
  """Returns centered advantages, unbiased for maj@k: that the majority of k samples is right.

  A_i = n (mean of f over all k-subsets - mean over those without sample i), where f is the share of
  right answers among those with the most votes of a subset, 0 without a vote. It equals
  kn/(n-k) (mean over the k-subsets that hold sample i - mean over all). They sum to 0 in a group.

  The chance that an answer wins with t votes is a product over the other answers, which get fewer;
  a tie with j of them is worth 1/(j+1), the integral of u^j over [0, 1]. As samples that are drawn
  one by one with chance k/n are k in all with a chance that is not small, the products are those of
  generating functions on the unit circle, and the float32 error is below 2e-5 of the largest.

  Args:
    rewards: `[..., n]` task rewards, n <= 64; flat `[P * n]` are one group, see
      `pkpo_jax.by_group`.
    k: samples that vote, 1 <= k < n; int or traced int32.
    answers: `[..., n]` integers, equal where two samples of a group have the same answer; a
      negative one does not vote. An answer is right if one of its samples is.
    success_threshold: a sample is right if its reward is at least this.
    where: `[..., n]` bool, True where a sample exists.

  Raises:
    ValueError: if a Python int k is outside [1, n), n = 1 or n > 64, or answers have another shape.

  >>> answers = jnp.array([0, 1, 1, 2])
  >>> print(maj_at_k(jnp.array([1., 0., 0., 0.]), k=1, answers=answers).round(4))
  [ 1.     -0.3333 -0.3333 -0.3333]
  """
  group = groups.as_group(rewards, where)
  groups.require_other_samples(group)
  k = groups.check_k(k, group.n, below_n=True)
  expect(group.n <= MAX_SAMPLES, 'rewards', f'at most {MAX_SAMPLES} samples a group', group.n)
  shape = group.rewards.shape
  expect(jnp.shape(answers) == shape, 'answers', f'shape {shape}', jnp.shape(answers))
  answers = jnp.asarray(answers)
  is_integer = jnp.issubdtype(answers.dtype, jnp.integer)
  expect(is_integer, 'answers', 'integers', answers.dtype)
  return _maj_at_k(group, answers, k, success_threshold)


@jax.jit
def _maj_at_k(
  group: groups.Group, answers: jax.Array, k: jax.Array, success_threshold: jax.Array
) -> jax.Array:
  exists = jnp.ones(answers.shape, bool) if group.where is None else group.where
  votes = exists & (answers >= 0)
  is_same = (answers[..., :, None] == answers[..., None, :]) & votes[..., :, None]
  is_same &= votes[..., None, :]
  # An answer stands at the place of its first sample.
  place = jnp.argmax(is_same, axis=-1)
  is_first = votes & (place == jnp.arange(group.n))
  counts = jnp.where(is_first, jnp.sum(is_same, axis=-1), 0)
  right = group.rewards >= success_threshold
  is_right = is_first & jnp.any(is_same & right[..., None, :], axis=-1)
  num_silent = jnp.sum(exists & ~votes, axis=-1)
  allowed = group.allows(k, below_n=True)
  # A group that does not allow k is computed for another one, so that nothing is NaN.
  is_allowed = jnp.broadcast_to(allowed, (*answers.shape[:-1], 1))[..., 0]
  num_valid = jnp.where(is_allowed, jnp.sum(exists, axis=-1), 2)
  safe_k = jnp.where(is_allowed, k, 1)
  of_all, without = _shares_won(counts, is_right, num_silent, num_valid, safe_k)
  # Samples that do not vote stand at an answer of their own, the last.
  place = jnp.where(votes, place, group.n)
  advantages = group.count * (of_all[..., None] - jnp.take_along_axis(without, place, axis=-1))
  # Where all is right or nothing, there is nothing to gain, to the last digit.
  is_certain = jnp.all((is_right | ~is_first) & (votes | ~exists), axis=-1, keepdims=True)
  advantages = jnp.where(allowed & ~is_certain, advantages, 0)
  return group.mask(advantages + group.zeros())


def _shares_won(
  counts: jax.Array, is_right: jax.Array, num_silent: jax.Array, m: jax.Array, k: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the means of f over all k-subsets, and over those without one sample.

  Args:
    counts: `[*p, n]` votes of each answer.
    is_right: `[*p, n]` whether it is right.
    num_silent: `[*p]` samples that do not vote.
    m: `[*p]` samples in all.
    k: `[*p]` how many are drawn.

  Returns:
    `[*p]`, and `[*p, n + 1]` without a sample of each answer, at last without one that does not
    vote.
  """
  n = counts.shape[-1]
  chance = k / m
  # Those that do not vote are an answer, too, that never wins: it may have any number of votes.
  counts = jnp.concatenate([counts, num_silent[..., None]], axis=-1)
  is_right = jnp.concatenate([is_right, jnp.zeros_like(is_right[..., :1])], axis=-1)
  is_silent = jnp.arange(n + 1) == n
  j = jnp.arange(n + 1)
  binomial = lambda size: _binomial(size[..., None], j, chance[..., None, None])
  of_count, of_one_less = binomial(counts), binomial(jnp.maximum(counts - 1, 0))
  circle = jnp.exp(2j * np.pi * jnp.arange(n + 1) / (n + 1)).astype(jnp.complex64)
  powers = circle ** j[:, None]
  # What is below t votes so far, `[*p, n + 1, z]`; all that do not vote are.
  silent = lambda pmf: (pmf @ powers) * is_silent[:, None]
  below = silent(of_count), silent(of_one_less)

  def win_with(t, carry, nodes, node_weights):
    below, of_all, without = carry
    tops = [
      jnp.where(is_silent[:, None], 0, lax.dynamic_index_in_dim(pmf, t, axis=-1) * powers[t])
      for pmf in (of_count, of_one_less)
    ]
    u = nodes[:, None, None]
    factor, other_factor = (
      low[..., None, :, :] + u * top[..., None, :, :] for low, top in zip(below, tops, strict=True)
    )
    wins, other_wins = (is_right[..., None, :, None] * top[..., None, :, :] for top in tops)
    wins = jnp.broadcast_to(wins, factor.shape)
    rest, rest_won = _products_of_others(factor, wins)
    whole = rest[..., 0, :] * wins[..., 0, :] + rest_won[..., 0, :] * factor[..., 0, :]
    less = rest * other_wins + rest_won * other_factor
    over_nodes = lambda x, axis: jnp.tensordot(node_weights, jnp.moveaxis(x, axis, 0), axes=1)
    of_all += over_nodes(whole, whole.ndim - 2)
    without += over_nodes(less, less.ndim - 3)
    below = [
      low + jnp.where(is_silent[:, None], 0, top) for low, top in zip(below, tops, strict=True)
    ]
    return tuple(below), of_all, without

  # No answer has 0 votes and wins; with none it is below any.
  below = tuple(
    low + jnp.where(is_silent[:, None], 0, pmf[..., :1] * powers[0])
    for low, pmf in zip(below, (of_count, of_one_less), strict=True)
  )
  # Made from inputs, so that they are on the same devices under shard_map.
  carry = below, jnp.zeros_like(below[0][..., 0, :]), jnp.zeros_like(below[0])
  first = 1
  while first <= n:
    # With t votes or more for each, at most n // t answers tie.
    last = min(2 * first - 1, n)
    nodes, node_weights = (x.astype(np.float32) for x in gauss_legendre(n // first // 2 + 1))
    step = functools.partial(win_with, nodes=nodes, node_weights=node_weights)
    carry = lax.fori_loop(first, last + 1, step, carry)
    first = last + 1
  _, of_all, without = carry

  def coefficient(values, size):
    """Returns the share won of the subsets of k, by the coefficient of z^k."""
    like_values = lambda x: jnp.expand_dims(x, range(k.ndim, values.ndim))
    total = _binomial(size, k, chance)
    total = like_values(jnp.where(total > 0, total, 1))
    return jnp.mean(values / circle ** like_values(k) / total, axis=-1).real

  return coefficient(of_all, m), coefficient(without, m - 1)


def _products_of_others(factors: jax.Array, wins: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns, for each answer, of the others the product of factors, and its sum over winners.

  The sum has the factor of each in turn replaced by its `wins`. Answers are on the last axis but
  one.
  """

  def multiply(left, right):
    return left[0] * right[0], left[0] * right[1] + left[1] * right[0]

  axis = factors.ndim - 2
  pairs = factors, wins
  scan = functools.partial(lax.associative_scan, multiply, axis=axis)
  # The product of nothing, and its sum over winners.
  one = jnp.ones_like(factors[..., :1, :])
  ends = one, jnp.zeros_like(one)
  before = lambda x, end: jnp.concatenate([end, x[..., :-1, :]], axis)
  after = lambda x, end: jnp.concatenate([x[..., 1:, :], end], axis)
  first_ones, last_ones = scan(pairs), scan(pairs, reverse=True)
  return multiply(tuple(map(before, first_ones, ends)), tuple(map(after, last_ones, ends)))


def _binomial(size: jax.Array, j: jax.Array, chance: jax.Array) -> jax.Array:
  """Returns the chance of j among `size`, each with `chance` in (0, 1); 0 for other j."""
  inside = (j >= 0) & (j <= size)
  safe = jnp.where(inside, j, 0)
  ways = jnp.asarray(_WAYS)[size, safe]
  return jnp.where(inside, ways * chance**safe * (1 - chance) ** (size - safe), 0)


@functools.cache
def gauss_legendre(num_points: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns float64 nodes and weights on [0, 1], exact for powers below 2 num_points."""
  nodes, node_weights = np.polynomial.legendre.leggauss(num_points)
  return (nodes + 1) / 2, node_weights / 2

"""v_t, the weights that turn sorted rewards into max@k: the one numeric kernel."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from pkpo_jax.typing import AnyArray, K


@functools.cache
def _split_log_factorials(n: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns log m! for m = 0..n as float64 `hi`, `lo` with hi + lo = log m!.

  `hi` lies on a grid so coarse that sums of entries up to 4 log n! are exact in float32; what
  is left over (`lo`) is small enough for float32 to hold it to 1e-7.
  """
  log_factorials = np.array([math.lgamma(m + 1) for m in range(n + 1)])
  grid = 2.0 ** max(0, math.ceil(math.log2(4.0 * max(log_factorials[-1], 1.0))) - 24)
  hi = np.round(log_factorials / grid) * grid
  return hi, log_factorials - hi


def subset_weights(
  n: int,
  k: K,
  *,
  num_valid: AnyArray | None = None,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> Float[jax.Array, '*p n']:
  """Returns the weight v_t of the t-th smallest of n rewards in the estimate of max@k.

  v_t = C(t-1, k-1) / C(n, k) is the chance that the t-th smallest of n samples is the largest of
  k drawn without replacement; 0 for t < k. The rewards' estimate is sum_t v_t g_(t), unbiased for
  max@k (Walder & Karkhanis 2025, arXiv 2505.15201, eq. 12).

  The logarithm of v_t is a sum of six log-factorials, of size n log n each and almost canceling.
  They come from a host float64 table split in two, so that the large parts cancel exactly: the
  relative error of every weight above 1e-30 stays below 5e-6 up to n = 131072, where log-gamma
  in float32 is off by 15 %.

  Args:
    n: length of the sample axis, at least 1.
    k: samples the objective takes the best of; int or traced int32. Not checked here: outside
      [1, n] the result is 0.
    num_valid: `[*p]` int32, samples that exist in each group, at most n; None means n in all.
    dtype: float dtype of the result, float32 or float64.

  Returns:
    `[n]`, or `[*p, n]` if num_valid is given; 0 beyond a group's num_valid, and 0 everywhere in a
    group where k is outside [1, num_valid].

  >>> print(subset_weights(4, 2))
  [0.         0.16666667 0.33333333 0.5       ]
  """
  hi, lo = _split_log_factorials(n)
  m = jnp.asarray(n if num_valid is None else num_valid, jnp.int32)[..., None]
  return _subset_weights(hi.astype(dtype), lo.astype(dtype), jnp.asarray(k, jnp.int32), m)


@jax.jit
def _subset_weights(hi: jax.Array, lo: jax.Array, k: jax.Array, m: jax.Array) -> jax.Array:
  """Returns v_t `[*p, n]` from the tables `[n + 1]` and the samples m `[*p, 1]`."""
  n = len(hi) - 1
  t = jnp.arange(1, n + 1, dtype=jnp.int32)
  safe_k = jnp.clip(k, 1, n)
  safe_m = jnp.maximum(m, safe_k)

  def log_weights(table):
    # log (t-k)! for all t at once is a window of the table; t < k reads the padding.
    padded = jnp.concatenate([jnp.zeros(n, table.dtype), table])
    log_t_minus_k = jax.lax.dynamic_slice(padded, (n + 1 - safe_k,), (n,))
    log_n_choose = table[safe_m] - table[safe_m - safe_k]
    return (table[:n] - log_t_minus_k) - log_n_choose + (table[safe_k] - table[safe_k - 1])

  weights = jnp.exp(log_weights(hi)) * jnp.exp(log_weights(lo))
  valid = (t >= safe_k) & (t <= m) & (k >= 1) & (k <= m)
  return jnp.where(valid, weights, 0)


def rank_weights(
  a: Float[AnyArray, 'n'],
  k: Int[AnyArray, ''],
  *,
  num_valid: AnyArray | None = None,
  dtype: jax.typing.DTypeLike = jnp.float32,
  between: bool = False,
) -> Float[jax.Array, '*p n']:
  """Returns what the t-th smallest of n rewards counts for where rank j of k counts for a_j.

  w_t = sum_j a_j C(t-1, j-1) C(n-t, k-j) / C(n, k): the estimate of E[sum_j a_j g_(j:k)] is
  sum_t w_t g_(t). With a_k alone it is `subset_weights`. As exact in float32, for the same reason.

  Args:
    a: `[n]` weights of ranks, 0 beyond k. One pass for each from the first to the last with one.
    k: how many samples are drawn.
    num_valid: `[*p]` int32, samples that exist in each group; None means n in all.
    dtype: of the result.
    between: return c_t = sum_j a_j C(t-1, j-1) C(n-t-1, k-j) / C(n-2, k-1) instead, for t < n: what
      a rank that falls between samples t and t + 1 counts for when the other k - 1 are drawn from
      the samples without one on either side.

  Returns:
    `[n]`, or `[*p, n]` if num_valid is given; 0 where nothing can be drawn so.
  """
  hi, lo = _split_log_factorials(a.shape[-1])
  m = jnp.asarray(a.shape[-1] if num_valid is None else num_valid, jnp.int32)[..., None]
  tables = hi.astype(dtype), lo.astype(dtype)
  return _rank_weights(tables, jnp.asarray(a, dtype), jnp.asarray(k, jnp.int32), m, between)


@functools.partial(jax.jit, static_argnums=4)
def _rank_weights(tables, a, k, m, between):
  """Returns w_t or c_t `[*p, n]` from the tables, a `[n]`, k `[]` and the samples m `[*p, 1]`."""
  n = len(a)
  t = jnp.arange(1, n + 1, dtype=jnp.int32)
  below, above = t - 1, m - t - between
  total, drawn = m - 2 * between, k - between
  has_weight = a != 0
  first = jnp.argmax(has_weight) + 1
  last = jnp.where(jnp.any(has_weight), n - jnp.argmax(has_weight[::-1]), 0)

  def chance(j):
    counts = (below, j - 1), (above, k - j), (total, drawn)
    inside = functools.reduce(
      jnp.logical_and, [(0 <= chosen) & (chosen <= size) for size, chosen in counts]
    )

    def log_chance(table):
      # Of the large parts each logarithm is exact, and so are their sums.
      log = lambda x: table[jnp.clip(x, 0, n)]
      ways = [log(size) - log(chosen) - log(size - chosen) for size, chosen in counts]
      return ways[0] + ways[1] - ways[2]

    hi, lo = map(log_chance, tables)
    # Where there is no way to draw so, the number may be any.
    return jnp.where(inside, jnp.exp(jnp.where(inside, hi, 0)) * jnp.exp(lo), 0)

  add = lambda j, found: found + a[j - 1] * chance(j)
  shape = jnp.broadcast_shapes(t.shape, m.shape)
  return jax.lax.fori_loop(first, last + 1, add, jnp.zeros(shape, a.dtype))

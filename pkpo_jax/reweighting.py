"""What an advantage makes of a pass rate: the weight that a prompt's gradient gets.

For rewards of 0 and 1, an advantage is what right and what wrong samples of a group get, and its
expected gradient is a weight that depends on the pass rate, times the gradient of the pass rate
(Thrampoulidis, Mahdavi & Deng 2025, arXiv 2510.23049).
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pkpo_jax.advantages import ADVANTAGES
from pkpo_jax.errors import expect
from pkpo_jax.typing import AnyArray

# Those that look at the places of samples: all arrangements of right and wrong ones are needed.
_BY_PLACE = ('passk_full_sampling',)
_MOST_ARRANGED = 16
_NO_CURVE = ('passk_adaptive', 'maj_at_k')
# One draw of sets says little about the mean over draws.
_NUM_DRAWS = 4096


class WeightCurve(NamedTuple):
  """What right and wrong samples get on average, at each pass rate p; all `[R]` float64.

  Attributes:
    pass_rates: p.
    right: E[A_i] for a right sample i, over what the other n - 1 samples are.
    wrong: E[A_i] for a wrong one.
  """

  pass_rates: np.ndarray
  right: np.ndarray
  wrong: np.ndarray

  @property
  def weight(self) -> np.ndarray:
    """`[R]`: F'(p) = right - wrong; the expected gradient is F'(p) times that of p."""
    return self.right - self.wrong


def weight_curve(
  name: str,
  pass_rates: Float[AnyArray, 'R'] | Sequence[float],
  *,
  n: int,
  k: int = 1,
  **options: Any,
) -> WeightCurve:
  """Returns the weight that an advantage gives to a prompt, as a function of its pass rate.

  With p the chance that a sample is right, the expectation of (1/n) sum_i A_i grad log p(x_i) is
  F'(p) grad p, F'(p) = E[A_i | i is right] - E[A_i | i is wrong]: the advantage climbs F(p), the
  integral of that. pass@k itself has F'(p) = k (1-p)^(k-1).

  Exact, up to float32, but for `passk_bootstrap`, whose sets are drawn 4096 times.
  `max_at_k_off_policy` is taken on policy, `pkpo_weighted_loo` with equal weights.
  `passk_adaptive`, which compares prompts, and `maj_at_k`, which compares answers, have no curve.

  Args:
    name: a key of `pkpo_jax.ADVANTAGES`.
    pass_rates: `[R]` in [0, 1].
    n: samples of a group, at least 1; at most 16 for `passk_full_sampling`, which depends on their
      order.
    k: as of the advantage; not used by those without.
    **options: further arguments of the advantage, such as beta or success_threshold.

  Raises:
    ValueError: if the name is unknown or has no curve, a pass rate is outside [0, 1], n is out of
      its range, or the advantage refuses k or n.

  >>> curve = weight_curve('pkpo_loo_minus_one', [0.0, 0.5], n=4, k=3)
  >>> print(curve.weight.round(4))
  [3.   0.75]
  """
  expect(name in ADVANTAGES, 'name', f'one of {sorted(ADVANTAGES)}', name)
  expected = 'an advantage that depends on how many samples are right, and on nothing else'
  expect(name not in _NO_CURVE, 'name', expected, name)
  p = np.asarray(pass_rates, np.float64)
  in_range = p.ndim == 1 and bool(np.all((p >= 0) & (p <= 1)))
  expect(in_range, 'pass_rates', 'flat numbers in [0, 1]', pass_rates)
  expect(n >= 1, 'n', 'at least 1', n)
  right, wrong = _by_number_right(name, n, k, options)
  # The others of a sample: chances that j = 0..n-1 of them are right.
  from scipy import special  # It takes longer to import than all of the kernels.

  j = np.arange(n)
  ways = special.binom(n - 1, j)
  chances = ways * p[:, None] ** j * (1 - p[:, None]) ** (n - 1 - j)
  return WeightCurve(p, chances @ right[1:], chances @ wrong[:n])


def _by_number_right(
  name: str, n: int, k: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns what a right and a wrong sample get, `[n + 1]` each, with c = 0..n right ones.

  Where no sample is right, or none is wrong, the entry is 0.
  """
  if name in _BY_PLACE:
    expect(n <= _MOST_ARRANGED, 'n', f'at most {_MOST_ARRANGED} with {name}', n)
    rewards = (np.arange(2**n)[:, None] >> np.arange(n)) % 2
  else:
    rewards = np.arange(n) < np.arange(n + 1)[:, None]
  rewards = rewards.astype(np.float32)
  advantages = np.asarray(_advantages(name, rewards, k, options), np.float64)
  num_right = rewards.sum(axis=1).astype(int)
  means = []
  for is_of_kind in (rewards == 1, rewards == 0):
    sums = np.bincount(num_right, (advantages * is_of_kind).sum(axis=1), minlength=n + 1)
    counts = np.bincount(num_right, is_of_kind.sum(axis=1), minlength=n + 1)
    means.append(sums / np.maximum(counts, 1))
  return means[0], means[1]


def _advantages(name: str, rewards: np.ndarray, k: int, options: dict[str, Any]) -> jax.Array:
  function = ADVANTAGES[name]
  parameters = inspect.signature(function).parameters
  if 'ratios' in parameters:
    options = {'ratios': jnp.ones(rewards.shape), **options}
  if 'baseline_weights' in parameters:
    options = {'baseline_weights': None, **options}
  if 'key' not in parameters:
    return function(rewards, k=k, **options)
  of_draw = jax.jit(lambda key: function(rewards, k=k, key=key, **options))
  keys = jax.random.split(jax.random.key(0), _NUM_DRAWS)
  return jnp.mean(jax.lax.map(of_draw, keys), axis=0)

"""The intervals that are compared, in NumPy: many data sets at a time.

Each takes values `[D, P, K]` in [0, 1], D data sets of P problems, and returns the ends, each
`[D, K]`. Those that redraw share their redraws among the data sets of one call.
"""

import numpy as np
from scipy import special, stats

TAIL = 0.025  # Left out at each end: 95 % intervals.
NUM_RESAMPLES = 1000

Ends = tuple[np.ndarray, np.ndarray]


def redrawn(values: np.ndarray, rng: np.random.Generator) -> dict[str, Ends]:
  """Returns the intervals from redrawn problems: percentile bootstrap, BCa, bootstrap-t."""
  num_problems = values.shape[1]
  draws = rng.integers(num_problems, size=(NUM_RESAMPLES, num_problems))
  rows = np.arange(NUM_RESAMPLES)[:, None] * num_problems
  flat = np.bincount((rows + draws).ravel(), minlength=draws.size)
  shares = (flat.reshape(draws.shape) / num_problems).astype(np.float32)
  mean, error = (x.astype(np.float32) for x in (_mean(values), _standard_error(values)))
  means = _weigh(shares, values)  # [D, K, B]
  squares = _weigh(shares, (values - mean[:, None]) ** 2)
  # The error of each redraw; of a redraw of equal problems it is 0, and its t is left out.
  errors = np.sqrt(np.maximum(squares - (means - mean[..., None]) ** 2, 0) / (num_problems - 1))
  with np.errstate(divide='ignore', invalid='ignore'):
    t = np.where(errors > 1e-6, (means - mean[..., None]) / errors, np.nan)
  t.sort(axis=-1)  # NaN comes last.
  num_known = np.sum(~np.isnan(t), axis=-1)
  t_low, t_high = (_known_quantile(t, num_known, q) for q in (TAIL, 1 - TAIL))
  by_t = (_clip(mean - t_high * error), _clip(mean - t_low * error))

  means.sort(axis=-1)
  percentile = tuple(_sorted_quantile(means, q) for q in (TAIL, 1 - TAIL))
  # Efron's bias z0 from the redraws, acceleration from the skewness of the problems.
  slack = 1e-6  # Equal means differ by rounding.
  below = np.mean(means < mean[..., None] - slack, axis=-1)
  ties = np.mean(abs(means - mean[..., None]) <= slack, axis=-1)
  z0 = special.ndtri(np.clip(below + ties / 2, 1 / NUM_RESAMPLES, 1 - 1 / NUM_RESAMPLES))
  centered = values - mean[:, None]
  spread = np.sum(centered**2, axis=1) ** 1.5
  skewness = np.sum(centered**3, axis=1) / np.where(spread > 0, spread, 1)
  bca = []
  for q in (TAIL, 1 - TAIL):
    z = z0 + special.ndtri(q)
    bca.append(_sorted_quantile(means, special.ndtr(z0 + z / (1 - skewness / 6 * z))))
  return {'percentile bootstrap': percentile, 'BCa': tuple(bca), 'bootstrap-t': by_t}


def reweighted(values: np.ndarray, rng: np.random.Generator) -> dict[str, Ends]:
  """Returns the intervals from random shares of the problems and of others at 0 and 1.

  The shares are Dirichlet: of weight 1 for each problem. Those at the ends of the range have
  weight 1 at the far end of each side (`pkpo_jax.mean_interval`), 1 at an end drawn at random,
  or 1/2 at both, as in Jeffreys' prior.
  """
  size = (NUM_RESAMPLES, values.shape[1])
  shares = rng.standard_exponential(size, dtype=np.float32)
  total, seen = shares.sum(axis=1), _weigh(shares, values)
  extra = rng.standard_exponential(NUM_RESAMPLES, dtype=np.float32)
  ends = rng.integers(2, size=NUM_RESAMPLES, dtype=np.int32).astype(np.float32)
  sums = {
    'one more at the far end (chosen)': (seen / (total + extra), (seen + extra) / (total + extra)),
  }
  at_random = (seen + extra * ends) / (total + extra)
  halves = rng.standard_gamma(0.5, (2, NUM_RESAMPLES)).astype(np.float32)
  jeffreys = (seen + halves[0]) / (total + halves.sum(axis=0))
  sums['one more at a random end'] = (at_random, at_random)
  sums['half a problem at each end'] = (jeffreys, jeffreys)
  intervals = {}
  for name, (lows, highs) in sums.items():
    same, lows = highs is lows, np.sort(lows, axis=-1)
    highs = lows if same else np.sort(highs, axis=-1)
    intervals[name] = (_sorted_quantile(lows, TAIL), _sorted_quantile(highs, 1 - TAIL))
  return intervals


def closed_forms(values: np.ndarray, num_samples: int) -> dict[str, Ends]:
  """Returns the intervals that a formula gives.

  Wilson, Clopper-Pearson and Jeffreys treat the mean m as a share of an effective number of
  problems, m (1 - m) / standard_error^2 (Korn & Graubard 1998): P or more, and no more than all the
  samples; P where all problems are 0 or all 1.
  """
  num_problems = values.shape[1]
  mean, error = _mean(values), _standard_error(values)
  variance = num_problems * error**2
  known = np.clip(mean * (1 - mean) / np.maximum(error, 1e-12) ** 2, num_problems, None)
  size = np.where(mean * (1 - mean) < 1e-9, num_problems, known)
  size = np.minimum(size, num_problems * num_samples)
  t = stats.t.ppf(1 - TAIL, num_problems - 1)
  z = special.ndtri(1 - TAIL)
  centre = (mean + z**2 / (2 * size)) / (1 + z**2 / size)
  half = z * np.sqrt(mean * (1 - mean) / size + z**2 / (4 * size**2)) / (1 + z**2 / size)
  right, wrong = mean * size, (1 - mean) * size
  # With no right sample the low end is 0, with no wrong one the high end is 1.
  beta = lambda a, b, q: special.betaincinv(np.maximum(a, 1e-9), np.maximum(b, 1e-9), q)
  exact = (
    np.where(right < 1e-6, 0, beta(right, wrong + 1, TAIL)),
    np.where(wrong < 1e-6, 1, beta(right + 1, wrong, 1 - TAIL)),
  )
  jeffreys = (
    np.where(right < 1e-6, 0, beta(right + 0.5, wrong + 0.5, TAIL)),
    np.where(wrong < 1e-6, 1, beta(right + 0.5, wrong + 0.5, 1 - TAIL)),
  )
  log = np.log(1 / TAIL)
  hoeffding = np.sqrt(log / (2 * num_problems))
  bernstein = np.sqrt(2 * variance * np.log(2 / TAIL) / num_problems)
  bernstein += 7 * np.log(2 / TAIL) / (3 * (num_problems - 1))
  return {
    't': (_clip(mean - t * error), _clip(mean + t * error)),
    'Wilson': (_clip(centre - half), _clip(centre + half)),
    'Clopper-Pearson': exact,
    'Jeffreys': jeffreys,
    'Hoeffding': (_clip(mean - hoeffding), _clip(mean + hoeffding)),
    'empirical Bernstein': (_clip(mean - bernstein), _clip(mean + bernstein)),
    'Anderson': _anderson(values),
  }


def betting(values: np.ndarray) -> Ends:
  """Returns the hedged betting interval of Waudby-Smith & Ramdas 2024 (arXiv 2010.09686).

  Whoever bets on each problem in turn against the mean m becomes rich if m is wrong: the interval
  holds the m at which neither side has multiplied its money by 1 / TAIL.
  """
  x = np.moveaxis(values, 1, -1).astype(np.float32)  # [D, K, P]
  num_problems = x.shape[-1]
  t = np.arange(1, num_problems + 1)
  mean = (0.5 + np.cumsum(x, axis=-1)) / (t + 1)
  variance = (0.25 + np.cumsum((x - mean) ** 2, axis=-1)) / (t + 1)
  before = np.concatenate([np.full_like(variance[..., :1], 0.25), variance[..., :-1]], axis=-1)
  stake = np.sqrt(2 * np.log(1 / TAIL) / (before * num_problems)).astype(np.float32)

  def bound(x):
    """Returns the least m that is not refuted from below."""
    low, high = np.zeros(x.shape[:2], np.float32), np.ones(x.shape[:2], np.float32)
    for _ in range(12):
      m = (low + high) / 2
      capped = np.minimum(stake, 0.5 / m[..., None])
      wealth = np.log1p(capped * (x - m[..., None])).sum(axis=-1)
      refuted = wealth > np.log(1 / TAIL)
      low, high = np.where(refuted, m, low), np.where(refuted, high, m)
    return low

  return bound(x), 1 - bound(1 - x)


class BetaBinomial:
  """A Bayesian model as in arXiv 2503.01747: pass rates ~ Beta(m d, (1 - m) d), on a grid.

  m ~ Beta(1, 1) and d ~ Gamma(1, 1). The interval holds the posterior's mass of the population's
  pass@k = 1 - E[(1 - p)^k].
  """

  def __init__(self, num_samples: int, ks: tuple[int, ...]):
    m = special.ndtr(np.linspace(-3.6, 3.6, 601))  # Denser towards 0 and 1.
    d = np.exp(np.linspace(np.log(0.01), np.log(50), 61))
    m, d = (x.ravel() for x in np.meshgrid(m, d, indexing='ij'))
    a, b, c = m * d, (1 - m) * d, np.arange(num_samples + 1)[:, None]
    self._log_chances = stats.betabinom.logpmf(c, num_samples, a, b)  # [n + 1, G]
    # Density times the cell's size: m is laid out by ndtr, d by exp.
    self._log_prior = stats.norm.logpdf(special.ndtri(m)) + np.log(d) - d
    k = np.array(ks)[:, None]
    pass_at_k = 1 - np.exp(special.betaln(a, b + k) - special.betaln(a, b))  # [K, G]
    self._order = np.argsort(pass_at_k, axis=-1)
    self._pass_at_k = np.sort(pass_at_k, axis=-1)

  def __call__(self, counts: np.ndarray) -> Ends:
    """Returns the interval from the right samples of each problem, `[D, P]`."""
    size = self._log_chances.shape[0]
    numbers = np.stack([np.bincount(row, minlength=size) for row in counts])
    ends = np.empty((2, len(counts), len(self._pass_at_k)))
    for row, log in enumerate(numbers @ self._log_chances + self._log_prior):
      mass = np.exp(log - log.max())
      for i, (order, values) in enumerate(zip(self._order, self._pass_at_k, strict=True)):
        cumulative = np.cumsum(mass[order])
        at = np.searchsorted(cumulative, cumulative[-1] * np.array([TAIL, 1 - TAIL]))
        ends[:, row, i] = values[at]
    return ends[0], ends[1]


def fixed_problems(counts: np.ndarray, num_samples: int, ks: tuple[int, ...]) -> Ends:
  """Returns the interval of Bayes@N (arXiv 2510.04265): the problems are all there are.

  Each pass rate has its own posterior Beta(1 + c, 1 + n - c); the mean over problems of
  1 - (1 - p)^k is taken as normal. It is made for another estimand, and is shown for that.
  """
  right = np.arange(num_samples + 1)[:, None]
  a, b, k = 1.0 + right, 1.0 + num_samples - right, np.array(ks)
  moment = lambda k: np.exp(special.betaln(a, b + k) - special.betaln(a, b))  # E[(1 - p)^k]
  mean = (1 - moment(k))[counts].mean(axis=1)
  variance = (moment(2 * k) - moment(k) ** 2)[counts].mean(axis=1) / counts.shape[1]
  half = special.ndtri(1 - TAIL) * np.sqrt(variance)
  return _clip(mean - half), _clip(mean + half)


def _anderson(values: np.ndarray) -> Ends:
  """Anderson 1969: the mean under the Dvoretzky-Kiefer-Wolfowitz band, Massart's constant."""
  num_problems = values.shape[1]
  band = np.sqrt(np.log(1 / TAIL) / (2 * num_problems))
  # The band takes the share `band` from the largest values for the low end.
  share = np.clip(np.arange(1, num_problems + 1) / num_problems - band, 0, 1)
  share = np.diff(share, prepend=0)  # Of the values from the largest down, what is left of each.
  ordered = np.sort(values, axis=1)
  low = np.einsum('dpk,p->dk', ordered, share[::-1])
  return low, 1 - np.einsum('dpk,p->dk', 1 - ordered[:, ::-1], share[::-1])


def _mean(values):
  return values.mean(axis=1)


def _standard_error(values):
  return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])


def _weigh(shares, values):
  """Returns sums over problems, [B, P] with [D, P, K] -> [D, K, B]."""
  d, p, k = values.shape
  flat = np.ascontiguousarray(np.moveaxis(values, 1, -1).reshape(d * k, p), np.float32)
  return (flat @ shares.T).reshape(d, k, -1)


def _clip(ends):
  return np.clip(ends, 0, 1)


def _sorted_quantile(ordered, q):
  """Returns the quantiles of sorted numbers, interpolated; q may differ between rows."""
  at = np.broadcast_to(q, ordered.shape[:-1]) * (ordered.shape[-1] - 1)
  return _at(ordered, at)


def _known_quantile(ordered, num_known, q):
  """Returns the quantiles of the numbers before the NaN; 0 where there are none."""
  return np.where(num_known > 0, _at(ordered, q * np.maximum(num_known - 1, 0)), 0)


def _at(ordered, at):
  below = np.floor(at).astype(int)
  above = np.minimum(below + 1, np.ceil(at).astype(int))
  take = lambda i: np.take_along_axis(ordered, i[..., None], axis=-1)[..., 0]
  return take(below) + (at - below) * (take(above) - take(below))

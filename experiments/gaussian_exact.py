"""max@k of PKPO's toy section in closed form, in float64, apart from the package's own code.

Policy x ~ Normal(theta, sd), reward g(x) = x^2 on [0, 1], else 0 (arXiv 2505.15201, section 4).
"""

import numpy as np
from scipy import optimize, stats

SD = 0.1

# F(u)^k is smooth at the scale sd / k = 1/160 at the least: 400 nodes are exact to 1e-12.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(400)
_U, _DU = (_NODES + 1) / 2, _WEIGHTS / 2


def reward(x: np.ndarray) -> np.ndarray:
  """Returns g(x)."""
  return np.where((x >= 0) & (x <= 1), np.square(x), 0.0)


def max_at_k(theta: float, k: int) -> float:
  """Returns max@k = int_0^1 2u (1 - F(u)^k) du, F(u) = P(x is not in (u, 1])."""
  return float(np.sum(2 * _U * (1 - _not_above(theta) ** k) * _DU))


def derivative(theta: float, k: int) -> float:
  """Returns d max@k / d theta, the same integral with F(u)^k differentiated under it."""
  density = stats.norm(theta, SD).pdf
  slope = density(1.0) - density(_U)
  return float(-np.sum(2 * _U * k * _not_above(theta) ** (k - 1) * slope * _DU))


def best_theta(k: int) -> float:
  """Returns the theta that maximizes max@k."""
  grid = np.linspace(0.0, 1.2, 121)
  start = grid[np.argmax([max_at_k(theta, k) for theta in grid])]
  return float(optimize.brentq(derivative, start - 0.02, start + 0.02, args=(k,), xtol=1e-12))


def _not_above(theta: float) -> np.ndarray:
  """Returns F(u) at the nodes."""
  cdf = stats.norm(theta, SD).cdf
  return 1 - (cdf(1.0) - cdf(_U))

"""The rival: PKPO weights in NumPy, float64, by the recursions of the paper.

Walder & Karkhanis 2025 (arXiv 2505.15201), section 3 and its listing: sort one prompt's rewards,
run the recurrences over the sorted samples (vectorized, as there), put the results back in place.
Sum convention of the paper: the gradient estimate is sum_i w_i grad log p(x_i). Shares no code
with the package.
"""

import numpy as np


def s(rewards: np.ndarray, k: int) -> np.ndarray:
  """Returns s `[n]` (eq. 27): s_n = (k/n) g_n, s_i = s_{i+1} - v_i (g_{i+1} - g_i)."""
  order = np.argsort(rewards)
  return _unsort(_s(rewards[order], k), order)


def s_loo(rewards: np.ndarray, k: int) -> np.ndarray:
  """Returns s_loo `[n]` (eq. 29): s_i minus the mean of the others' s without sample i, k < n."""
  order = np.argsort(rewards)
  g = rewards[order]
  return _unsort(_s(g, k) - _others(g, k) / (len(g) - 1), order)


def s_loo1(rewards: np.ndarray, k: int) -> np.ndarray:
  """Returns s_loo1 `[n]` (eq. 33): s_i minus its share of max@(k-1) without sample i, k >= 2."""
  order = np.argsort(rewards)
  g = rewards[order]
  return _unsort(_s(g, k) - _others(g, k - 1) * k / ((k - 1) * len(g)), order)


def centered(rewards: np.ndarray, k: int) -> np.ndarray:
  """Returns (n/(n-k)) (s_i - mean s) `[n]`, k < n: s_i with the unbiased baseline."""
  n, weights = len(rewards), s(rewards, k)
  return n / (n - k) * (weights - weights.mean())


def analytical(rewards: np.ndarray, k: int) -> np.ndarray:
  """Returns (n/k) (s_i - mean s) / sigma `[n]`, sigma that of the maxima of all k-subsets.

  The analytical advantages of Pass@k Training (Chen et al. 2025, arXiv 2508.10751).
  """
  v, g, weights = _weights(len(rewards), k), np.sort(rewards), s(rewards, k)
  sigma = np.sqrt(v @ (g - v @ g) ** 2)
  return len(rewards) / k * (weights - weights.mean()) / sigma


def _weights(n: int, k: int) -> np.ndarray:
  """Returns v_t = C(t-1, k-1) / C(n, k) for t = 1..n, from v_n = k/n down."""
  v = np.zeros(n)
  j = np.arange(n, k, -1)
  v[k - 1 :] = k / n * np.cumprod(np.concatenate([[1.0], (j - k) / (j - 1)]))[::-1]
  return v


def _s(g: np.ndarray, k: int) -> np.ndarray:
  steps = _weights(len(g), k)
  steps[:-1] *= -np.diff(g)
  steps[-1] *= g[-1]
  return np.cumsum(steps[::-1])[::-1]


def _others(g: np.ndarray, k: int) -> np.ndarray:
  """Returns b_i, the sum over j != i of s_j without sample i, from b_1 up.

  b_1 = k sum_{i >= 2} u_{i-1} g_i and b_{i+1} = b_i + k u_i (g_i - g_{i+1}), u the weights of
  n - 1 samples.
  """
  u = k * _weights(len(g) - 1, k)
  return np.cumsum(np.concatenate([[u @ g[1:]], -u * np.diff(g)]))


def _unsort(values: np.ndarray, order: np.ndarray) -> np.ndarray:
  unsorted = np.empty_like(values)
  unsorted[order] = values
  return unsorted

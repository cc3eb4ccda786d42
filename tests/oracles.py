"""The definitions themselves: sums over all subsets, one group at a time, in plain Python.

Shares no code with the package. Rewards are a sequence of numbers; with `fractions.Fraction` all
but the normalized advantages are exact, with floats they are float64. Advantages come in the mean
convention, A_i = n w_i, and take (g, k) whether they depend on k or not.
"""

import itertools
import math
from fractions import Fraction

import numpy as np


def subsets(n, k):
  """Returns all k-subsets of range(n)."""
  return list(itertools.combinations(range(n), k))


def subset_weights(n, k):
  """Returns v_1..v_n exactly: C(t-1, k-1) / C(n, k)."""
  return [Fraction(math.comb(t - 1, k - 1), math.comb(n, k)) for t in range(1, n + 1)]


def subset_weights_float64(n, k):
  """Returns v_1..v_n by the recurrence from the top, v_{j-1} = v_j (j-k) / (j-1)."""
  j = np.arange(n, 1, -1, dtype=np.float64)
  factors = np.maximum(j - k, 0) / (j - 1)
  return np.concatenate([[k / n], k / n * np.cumprod(factors)])[::-1]


def max_at_k(g, k):
  """Returns the mean over all k-subsets of the largest reward."""
  return _mean([max(g[i] for i in subset) for subset in subsets(len(g), k)])


def pass_at_k(num_correct, num_samples, k):
  """Returns the share of k-subsets that hold a right sample."""
  is_right = [i < num_correct for i in range(num_samples)]
  return _mean([Fraction(any(is_right[i] for i in s)) for s in subsets(num_samples, k)])


def best_with(g, k):
  """Returns s_i: the sum of max_I g over the k-subsets I that hold i, over C(n, k)."""
  return [
    sum(max(g[j] for j in subset) for subset in subsets(len(g), k) if i in subset)
    / _exactly(math.comb(len(g), k))
    for i in range(len(g))
  ]


def without(g, i):
  """Returns g without its i-th entry."""
  return [x for j, x in enumerate(g) if j != i]


def pkpo(g, k):
  """Returns n s_i."""
  return [len(g) * s for s in best_with(g, k)]


def leave_one_out(g, k):
  """Returns n s_loo_i by eq. (29): s_i minus the mean of the others' s computed without i."""
  n = len(g)
  s = best_with(g, k)
  return [n * (s[i] - sum(best_with(without(g, i), k)) / _exactly(n - 1)) for i in range(n)]


def pkpo_loo(g, k):
  """Returns n s_loo_i; at k = 1 the leave-one-out baseline of REINFORCE."""
  return rloo(g) if k == 1 else leave_one_out(g, k)


def pkpo_loo_minus_one(g, k):
  """Returns n s_loo1_i: what i adds to the subsets that hold it; at k = 1 as `pkpo_loo`."""
  if k == 1:
    return rloo(g)
  n = len(g)
  added = [Fraction(0)] * n
  for subset in subsets(n, k):
    for i in subset:
      added[i] += max(g[j] for j in subset) - max(g[j] for j in subset if j != i)
  return [n * a / _exactly(math.comb(n, k)) for a in added]


def pkpo_centered(g, k):
  """Returns n (s_i - (k/n) rho_k(g without i)), for k < n."""
  n = len(g)
  return [n * s - k * max_at_k(without(g, i), k) for i, s in enumerate(best_with(g, k))]


def pkpo_weighted_loo(g, k, weights=None):
  """Returns L_i(g_i) less the mean of L_i(g_j) over the others, weighted by theirs, if any is."""
  n = len(g)
  if n == 1:
    return [0]
  weights = [1] * n if weights is None else [float(w) for w in weights]
  advantages = []
  for i in range(n):
    others = [0 if j == i else w for j, w in enumerate(weights)]
    if not any(others):
      others = [int(j != i) for j in range(n)]
    values = [pkpo_loo_minus_one([*g[:i], x, *g[i + 1 :]], k)[i] for x in g]
    baseline = sum(w * x for w, x in zip(others, values, strict=True))
    advantages.append(values[i] - baseline / sum(others))
  return advantages


def of_ranks(g, a):
  """Returns the mean over all k-subsets of sum_j a_j g_(j), k the length of a."""
  return _mean([_of_ranks(g, a, subset) for subset in subsets(len(g), len(a))])


def _of_ranks(g, a, subset):
  return sum(x * y for x, y in zip(a, sorted(g[i] for i in subset), strict=True))


def centered_of_ranks(g, a):
  """Returns (kn/(n-k)) times the mean over the k-subsets that hold i, less that over all."""
  n, k = len(g), len(a)
  held = [[s for s in subsets(n, k) if i in s] for i in range(n)]
  mean = of_ranks(g, a)
  excess = [_mean([_of_ranks(g, a, s) for s in with_i]) - mean for with_i in held]
  return [k * n * x / _exactly(n - k) for x in excess]


def quantile_ranks(k, share):
  """Returns the weights of the ranks between which NumPy's quantile lies."""
  place = (k - 1) * share
  return [max(0, 1 - abs(j - place)) for j in range(k)]


def lower_ranks(k, share):
  """Returns the weights of the lowest share * k ranks, the last in part."""
  size = share * k
  return [min(1, max(0, size - j)) / size for j in range(k)]


def order_statistic(g, k):
  return centered_of_ranks(g, quantile_ranks(k, Fraction(1, 2)))


def pass_hat_k(g, k):
  return centered_of_ranks(g, [1] + [0] * (k - 1))


def maj_at_k(g, k, answers, threshold=1.0):
  """Returns (kn/(n-k)) times the mean vote of the k-subsets that hold i, less that of all."""
  n, right = len(g), {a for x, a in zip(g, answers, strict=True) if x >= threshold}

  def vote(subset):
    votes = [answers[i] for i in subset if answers[i] >= 0]
    most = [a for a in set(votes) if votes.count(a) == max(map(votes.count, votes))]
    return Fraction(sum(a in right for a in most), len(most)) if most else Fraction(0)

  found = {subset: vote(subset) for subset in subsets(n, k)}
  held = [[x for subset, x in found.items() if i in subset] for i in range(n)]
  mean = _mean(list(found.values()))
  return [k * n * (_mean(with_i) - mean) / _exactly(n - k) for with_i in held]


def f_grpo(g, k=None, gamma=1, threshold=1.0):
  share_wrong = sum(x < threshold for x in g) / len(g)
  return [share_wrong**gamma * a for a in grpo(g)]


def mean_best_with(g, k):
  """Returns G_i: the mean of max_I g over the k-subsets that hold i."""
  per_sample = math.comb(len(g) - 1, k - 1)
  return [s * _exactly(math.comb(len(g), k)) / _exactly(per_sample) for s in best_with(g, k)]


def std_of_max(g, k):
  """Returns sigma: the population standard deviation of max_I g over all k-subsets."""
  return _std([max(g[i] for i in subset) for subset in subsets(len(g), k)])


def passk_analytical(g, k):
  """Returns (G_i - mu) / sigma, 0 where sigma is 0."""
  sigma = std_of_max(g, k)
  if sigma == 0:
    return [0.0] * len(g)
  mu = max_at_k(g, k)
  return [float(best - mu) / sigma for best in mean_best_with(g, k)]


def passk_bootstrap(g, sets):
  """Returns the bootstrap advantages for given sets of samples."""
  z_scores = grpo([max(g[i] for i in members) for members in sets])
  return [
    sum(z for z, members in zip(z_scores, sets, strict=True) if i in members) for i in range(len(g))
  ]


def passk_full_sampling(g, k):
  """Returns the z-score of the maximum of each sample's set of k neighbors, 0 for the rest."""
  n = len(g)
  sets = [range(first, first + k) for first in range(0, n - k + 1, k)]
  return passk_bootstrap(g, sets)


def passk_exceeding(g, k, threshold=1.0):
  """Returns `passk_analytical` times 0.4 / ln(c + 0.5), unscaled where c = 0."""
  c = sum(x >= threshold for x in g)
  scale = 0.4 / math.log(c + 0.5) if c else 1.0
  return [scale * a for a in passk_analytical(g, k)]


def passk_combination(g, k, threshold=1.0):
  """Returns (c/n) Pass@k + (1 - c/n) Pass@1 advantages."""
  accuracy = sum(x >= threshold for x in g) / len(g)
  pairs = zip(passk_analytical(g, k), grpo(g), strict=True)
  return [accuracy * pass_k + (1 - accuracy) * pass_1 for pass_k, pass_1 in pairs]


def passk_adaptive(gs, k, entropies):
  """Returns, a prompt each, Pass@1 advantages in the upper half by entropy, Pass@k below."""
  by_entropy = sorted(range(len(gs)), key=lambda p: entropies[p])
  upper = by_entropy[len(gs) - len(gs) // 2 :]
  return [grpo(g) if p in upper else passk_analytical(g, k) for p, g in enumerate(gs)]


def reinforce(g, k=None):
  """Returns r_i."""
  return list(g)


def rloo(g, k=None):
  """Returns r_i minus the mean of the others, 0 without others."""
  if len(g) == 1:
    return [0]
  return [x - _mean(without(g, i)) for i, x in enumerate(g)]


def mean_centered(g, k=None):
  """Returns r_i minus the mean."""
  return [x - _mean(g) for x in g]


def grpo(g, k=None):
  """Returns (r_i - mean) / population standard deviation, 0 where that is 0."""
  std = _std(g)
  return [float(x - _mean(g)) / std if std else 0.0 for x in g]


def tzsm(g, k=None):
  """Returns n (max g - max of the others), 0 without others."""
  n = len(g)
  return [n * (max(g) - max(without(g, i))) if n > 1 else 0 for i in range(n)]


def maxrl(g, k=None):
  """Returns (r_i - mean) / mean, 0 where the mean is 0."""
  mean = _mean(g)
  return [(x - mean) / mean if mean else 0 for x in g]


def tail_weights(g):
  """Returns w_(i) = sum over j <= i of (x_(j) - x_(j-1)) / (n - j + 1), for each sample."""
  n, x = len(g), [0, *sorted(g)]
  steps = [(x[j] - x[j - 1]) / _exactly(n - j + 1) for j in range(1, n + 1)]
  return [sum(steps[: sorted(g).index(value) + 1]) for value in g]


def tailrl(g, k=None):
  """Returns n (w_i - mean w)."""
  w = tail_weights(g)
  return [len(g) * (x - _mean(w)) for x in w]


def rs_grpo(g, k=None, beta=2.0):
  """Returns (1/beta) (exp(beta r_i) / mean exp(beta r) - 1)."""
  risk = [math.exp(beta * x) for x in g]
  return [(x / _mean(risk) - 1) / beta for x in risk]


def max_at_k_off_policy(g, k, ratios):
  """Returns n/C(n, k) times the sum over I with i of max_I g (1 + sum in I of ratio - 1)."""
  n = len(g)
  total = [0.0] * n
  for subset in subsets(n, k):
    value = max(g[j] for j in subset) * (1 + sum(ratios[j] - 1 for j in subset))
    for i in subset:
      total[i] += value
  return [n * x / math.comb(n, k) for x in total]


def _mean(values):
  return sum(values) / _exactly(len(values))


def _std(values):
  """Returns the population standard deviation, exactly 0 for equal values."""
  if len(set(values)) == 1:
    return 0.0
  return math.sqrt(sum((x - _mean(values)) ** 2 for x in values) / len(values))


def _exactly(count):
  """Returns the integer as a Fraction, which divides ints and Fractions exactly."""
  return Fraction(count)

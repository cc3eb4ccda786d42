"""Answers of a problem's samples beside each other: the majority's, and how many there are."""

import functools
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, special

from pkpo_jax.advantages.majority import gauss_legendre
from pkpo_jax.errors import expect

# With a few more, C(N, N/2) is beyond float64.
MAX_VOTERS = 1024


def maj_at_k(
  answers: Sequence[Sequence[Hashable | None]],
  is_right: Bool[np.ndarray, 'P N'],
  ks: Sequence[int],
) -> Float[np.ndarray, 'P K']:
  """Returns maj@k of each problem: the probability that the majority of k samples is right.

  It is exact: the mean over all k-subsets of the N samples. Equal answers are one choice, and None
  does not vote. If several choices have the most votes, each counts in equal parts. A subset
  without a vote counts 0.

  Let n_a of the samples have answer a. A choice that gets t votes wins if no other gets more. If j
  others get t votes, too, its share is 1/(j+1), the integral of u^j over u in [0, 1]. With B the
  answers that can get t votes (n_a >= t),
    maj@k = 1/C(N, k) sum_t integral [z^k] (1+z)^(N - sum_B n_b)
              sum_{a in B, right} C(n_a, t) z^t prod_{b in B, b != a} (q_b(z) + u C(n_b, t) z^t),
    q_b(z) = sum_{j<t} C(n_b, j) z^j,
  Nothing is ever subtracted here, so float64 keeps all but the last digits. Gauss-Legendre
  quadrature makes the integral exact. The cost is O(N^3) for a problem, mostly far less.

  Args:
    answers: `[P][N]` the answers; equal ones are equally right. None is no answer.
    is_right: `[P, N]` True where a sample is right.
    ks: the values of k, each in [1, N].

  Raises:
    ValueError: if a k is outside [1, N], or N is larger than 1024.

  >>> print(maj_at_k([['a', 'b', 'a', None]], np.array([[True, False, True, False]]), [1, 2, 4]))
  [[0.5        0.66666667 1.        ]]
  """
  num_samples = is_right.shape[-1]
  expect(num_samples <= MAX_VOTERS, 'answers', f'at most {MAX_VOTERS} samples', num_samples)
  for k in ks:
    expect(1 <= k <= num_samples, 'ks', f'1 <= k <= N = {num_samples}', k)
  found = np.zeros((len(is_right), len(ks)))
  for p, (group, right) in enumerate(zip(answers, is_right, strict=True)):
    counts = Counter(answer for answer in group if answer is not None)
    right_answers = {answer for answer, one in zip(group, right, strict=True) if one}
    choices = [(count, answer in right_answers) for answer, count in counts.items()]
    found[p] = _won(choices, num_samples)[list(ks)]
  return found / special.comb(num_samples, ks)


def answer_diversity(
  contents: Sequence[Sequence[Hashable]], is_right: Bool[np.ndarray, 'P N']
) -> Float[np.ndarray, 'P']:
  """Returns for each problem the share of its wrong samples that is distinct.

  Chen et al. 2025 (arXiv 2508.10751). It is 1 if no two of them are equal, NaN if none is wrong.

  Args:
    contents: `[P][N]` what two samples are compared by.
    is_right: `[P, N]` True where a sample is right.

  >>> print(answer_diversity([['a', 'b', 'b', 'c']], np.array([[True, False, False, False]])))
  [0.66666667]
  """
  shares = []
  for group, right in zip(contents, is_right, strict=True):
    wrong = [content for content, one in zip(group, right, strict=True) if not one]
    shares.append(len(set(wrong)) / len(wrong) if wrong else np.nan)
  return np.asarray(shares)


def _won(choices: Sequence[tuple[int, bool]], num_samples: int) -> Float[np.ndarray, 'k']:
  """Returns for k = 0, ..., N the number of k-subsets that a right choice wins, ties in shares.

  Args:
    choices: for each answer, its number of samples and whether it is right.
    num_samples: N.
  """
  won = np.zeros(num_samples + 1)
  for t in range(1, max((n for n, is_right in choices if is_right), default=0) + 1):
    able = [choice for choice in choices if choice[0] >= t]
    # At most this many choices get t votes each, which bounds the power of u.
    u, weights = gauss_legendre(min(len(able), num_samples // t) // 2 + 1)
    # Coefficients of 1, z, ..., z^N for each u: of the product, and of the sum over winners.
    product = np.zeros((2, len(u), num_samples + 1))
    product[0] = _choose(num_samples - sum(n for n, _ in able))[: num_samples + 1]
    for n, is_right in able:
      top = np.zeros_like(product)
      top[..., t:] = _choose(n)[t] * product[..., :-t]
      # The origin makes it a product of polynomials, cut off beyond z^N.
      below = ndimage.convolve1d(
        product, _choose(n)[:t], mode='constant', cval=0.0, origin=-(t // 2)
      )
      product = below + u[:, None] * top
      if is_right:
        product[1] += top[0]
    won += weights @ product[1]
  return won


@functools.cache
def _choose(n: int) -> Float[np.ndarray, 'j']:
  """Returns C(n, j) for j = 0, ..., 1024."""
  return special.comb(n, np.arange(MAX_VOTERS + 1))

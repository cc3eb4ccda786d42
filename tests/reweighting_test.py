"""The weight curve times the gradient of the pass rate is the expected gradient, by enumeration."""

import jax.numpy as jnp
import numpy as np
import pytest
from advantage_cases import BELOW_N, bind, extra_arguments
from advantages_unbiased_test import (
  BINARY_ARM_REWARDS,
  LOGITS,
  expected_gradient,
  gradient_of_max_at_k,
  outcomes_of,
  softmax,
)

from pkpo_jax import ADVANTAGES, weight_curve
from pkpo_jax.errors import FieldError

N = 4
PASS_RATE = softmax(LOGITS)[BINARY_ARM_REWARDS == 1].sum()
NAMES = sorted(set(ADVANTAGES) - {'passk_adaptive', 'maj_at_k'})


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('k', [1, 3, 4])
def test_is_the_expected_gradient(name, k):
  if name in BELOW_N and k == N:
    with pytest.raises(FieldError, match='undefined at k = n'):
      weight_curve(name, [0.5], n=N, k=k)
    return
  outcomes = outcomes_of(N)
  rewards = BINARY_ARM_REWARDS[outcomes].astype(np.float32)
  curve = weight_curve(name, [PASS_RATE], n=N, k=k)
  expected = curve.weight[0] * gradient_of_max_at_k(1, BINARY_ARM_REWARDS)
  if 'key' in extra_arguments(name, rewards):
    # Its own draw of sets for each of as many groups as its mean over draws needs.
    outcomes = np.tile(outcomes, (64, 1))
    advantages = bind(name, rewards)(BINARY_ARM_REWARDS[outcomes].astype(np.float32), k)
    actual, atol = expected_gradient(advantages, outcomes) / 64, 2e-2
  elif name == 'pkpo_weighted_loo':
    advantages = ADVANTAGES[name](rewards, k=k, baseline_weights=None)
    actual, atol = expected_gradient(advantages, outcomes), 2e-6
  else:
    advantages = bind(name, rewards, neutral=True)(rewards, jnp.int32(k))
    actual, atol = expected_gradient(advantages, outcomes), 2e-6
  np.testing.assert_allclose(actual, expected, atol=atol)


@pytest.mark.parametrize('k', [1, 2, 7])
def test_unbiased_ones_have_the_weight_of_their_objective(k):
  p = np.linspace(0, 1, 11)
  for name in ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered', 'pkpo_weighted_loo'):
    weight = weight_curve(name, p, n=8, k=k).weight
    np.testing.assert_allclose(weight, k * (1 - p) ** (k - 1), atol=1e-5, err_msg=name)
  np.testing.assert_allclose(
    weight_curve('pass_hat_k', p, n=8, k=k).weight, k * p ** (k - 1), atol=1e-5
  )


def test_what_right_and_wrong_samples_get():
  curve = weight_curve('rloo', [0.0, 0.25, 1.0], n=5)
  np.testing.assert_allclose(curve.right, [1, 0.75, 0], atol=1e-6)
  np.testing.assert_allclose(curve.wrong, [0, -0.25, -1], atol=1e-6)
  steep = weight_curve('f_grpo', [0.5], n=8, gamma=2.0).weight
  np.testing.assert_array_less(steep, weight_curve('grpo', [0.5], n=8).weight)


def test_what_has_no_curve(no_type_checker):
  del no_type_checker
  with pytest.raises(FieldError, match='name: expected an advantage that depends on'):
    weight_curve('passk_adaptive', [0.5], n=4, k=2)
  with pytest.raises(FieldError, match='name: expected an advantage that depends on'):
    weight_curve('maj_at_k', [0.5], n=4, k=2)
  with pytest.raises(FieldError, match='name: expected one of'):
    weight_curve('typo', [0.5], n=4, k=2)
  for wrong in ([1.5], [-0.1], [np.nan], [[0.5]]):
    with pytest.raises(FieldError, match=r'pass_rates: expected flat numbers in \[0, 1\]'):
      weight_curve('rloo', wrong, n=4)
  with pytest.raises(FieldError, match='n: expected at most 16 with passk_full_sampling, got 17'):
    weight_curve('passk_full_sampling', [0.5], n=17, k=2)
  with pytest.raises(FieldError, match='n: expected at least 1, got 0'):
    weight_curve('rloo', [0.5], n=0)

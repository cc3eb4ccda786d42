"""Policies sample from the distribution whose log-probabilities they report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pkpo_jax.policies import Gaussian, Policy, SoftmaxBandit
from pkpo_jax.tasks.hidden_answer import HiddenAnswer
from pkpo_jax.tasks.parabola import Parabola


def _bandit():
  policy = SoftmaxBandit(HiddenAnswer(num_contexts=2, num_arms=4, exponent=1.0))
  return policy, {'logits': jnp.array([[0.0, 1.0, -1.0, 3.0], [5.0, 0.0, 0.0, -30.0]])}


def _rollout(policy, params, num_samples=20_000):
  task = HiddenAnswer(num_contexts=2, num_arms=4, exponent=1.0)
  prompts = task.prompts(0, 4, jax.random.key(1))
  prompts = prompts.replace(tokens=jnp.array([[0], [1], [0], [1]]))
  return policy.sample(params, prompts, num_samples, jax.random.key(2))


def test_bandit_starts_uniform():
  policy, _ = _bandit()
  np.testing.assert_allclose(policy.action_probs(policy.init(jax.random.key(0))), 0.25)


def test_bandit_samples_its_softmax():
  policy, params = _bandit()
  rollout = _rollout(policy, params)
  assert rollout.completions.shape == (4, 20_000, 1)
  probs = np.asarray(policy.action_probs(params), np.float64)
  for p in range(4):
    counts = np.bincount(np.asarray(rollout.completions[p, :, 0]), minlength=4)
    expected = probs[p % 2] / probs[p % 2].sum() * counts.sum()
    likely = expected > 1
    assert counts[~likely].sum() <= 5
    scaled = expected[likely] * counts[likely].sum() / expected[likely].sum()
    assert stats.chisquare(counts[likely], scaled).pvalue > 1e-4


def test_bandit_log_probs_and_entropy():
  policy, params = _bandit()
  rollout = _rollout(policy, params, num_samples=50)
  log_probs, entropy = policy.log_probs_and_entropy(params, rollout)
  np.testing.assert_array_equal(log_probs, rollout.sampling_log_probs)
  probs = np.asarray(policy.action_probs(params), np.float64)
  arms = np.asarray(rollout.completions[..., 0])
  for p in range(4):
    np.testing.assert_allclose(log_probs[p, :, 0], np.log(probs[p % 2][arms[p]]), rtol=1e-5)
    np.testing.assert_allclose(entropy[p], stats.entropy(probs[p % 2]), rtol=1e-5)


def test_gaussian_samples_and_log_density():
  policy = Gaussian(Parabola(), init_theta=0.3, sd=0.1)
  params = policy.init(jax.random.key(0))
  rollout = _rollout(policy, params)
  x = np.asarray(rollout.completions).ravel()
  assert stats.kstest(x, stats.norm(0.3, 0.1).cdf).pvalue > 1e-4
  log_density, entropy = policy.log_probs_and_entropy(params, rollout)
  expected = stats.norm(0.3, 0.1).logpdf(x)
  np.testing.assert_allclose(np.ravel(log_density), expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(log_density, rollout.sampling_log_probs, rtol=1e-5)
  np.testing.assert_allclose(entropy, stats.norm(0.3, 0.1).entropy(), rtol=1e-5)


def test_policies_meet_the_protocol():
  assert isinstance(_bandit()[0], Policy)
  assert isinstance(Gaussian(Parabola(), init_theta=0.0, sd=1.0), Policy)
  with pytest.raises(ValueError, match='sd: expected a number > 0, got 0.0'):
    Gaussian(Parabola(), init_theta=0.0, sd=0.0)

"""The surrogate's gradient is the policy gradient, in the one normalisation there is."""

import jax
import jax.numpy as jnp
import numpy as np

from pkpo_jax import losses


def _inputs():
  rng = np.random.default_rng(0)
  log_probs = -rng.exponential(size=(2, 3, 4)).astype(np.float32)
  advantages = rng.normal(size=(2, 3)).astype(np.float32)
  mask = np.arange(4) < rng.integers(1, 5, size=(2, 3, 1))
  return jnp.asarray(log_probs), jnp.asarray(advantages), jnp.asarray(mask)


def test_loss_is_minus_the_mean_over_samples_of_advantage_times_log_prob():
  log_probs, advantages, mask = _inputs()
  total = 0.0
  for p in range(2):
    for i in range(3):
      tokens = int(mask[p, i].sum())
      total += float(advantages[p, i]) * float(np.sum(log_probs[p, i, :tokens]))
  loss = losses.policy_gradient_loss(log_probs, advantages, mask)
  np.testing.assert_allclose(loss, -total / 6, rtol=1e-5)


def test_gradient_is_the_advantage_on_tokens_and_nothing_elsewhere():
  log_probs, advantages, mask = _inputs()
  grads = jax.grad(losses.policy_gradient_loss, argnums=(0, 1))(log_probs, advantages, mask)
  np.testing.assert_allclose(grads[0], -np.where(mask, advantages[..., None], 0) / 6, rtol=1e-6)
  np.testing.assert_array_equal(grads[1], 0)


def test_masked_tokens_may_hold_anything():
  log_probs, advantages, mask = _inputs()
  dirty = jnp.where(mask, log_probs, -jnp.inf)
  assert losses.policy_gradient_loss(dirty, advantages, mask) == losses.policy_gradient_loss(
    log_probs, advantages, mask
  )
  clean = losses.mean_entropy(-log_probs, mask)
  assert losses.mean_entropy(-dirty, mask) == clean
  np.testing.assert_allclose(clean, np.mean(-np.asarray(log_probs)[np.asarray(mask)]), rtol=1e-6)

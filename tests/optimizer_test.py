"""The optimiser's learning rate, decay, warm-up and clipping do what the config says."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pkpo_jax.optimizer import make_optimizer


def _sgd_steps(num_steps=10, grad=1.0, **changes):
  """Returns the sizes of SGD's steps for a constant gradient."""
  settings = {
    'name': 'sgd',
    'learning_rate': 0.5,
    'warmup_steps': 0,
    'decay': 'constant',
    'max_grad_norm': None,
    **changes,
  }
  optimizer = make_optimizer(**settings, num_train_steps=10)
  params, sizes = jnp.zeros(()), []
  state = optimizer.init(params)
  for _ in range(num_steps):
    updates, state = optimizer.update(jnp.asarray(grad), state, params)
    sizes.append(-float(updates))
    params = optax.apply_updates(params, updates)
  return np.array(sizes)


def test_decay():
  np.testing.assert_allclose(_sgd_steps(), 0.5)
  np.testing.assert_allclose(_sgd_steps(decay='linear'), 0.5 * (1 - np.arange(10) / 10), rtol=1e-6)
  cosine = 0.5 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
  np.testing.assert_allclose(_sgd_steps(decay='cosine'), cosine, rtol=1e-5)


def test_warmup_rises_to_the_peak_and_then_decays():
  sizes = _sgd_steps(warmup_steps=5, decay='linear')
  np.testing.assert_allclose(sizes[:5], 0.5 * np.arange(5) / 5, rtol=1e-6)
  np.testing.assert_allclose(sizes[5:], 0.5 * (1 - np.arange(5) / 5), rtol=1e-6)


def test_gradients_are_clipped_to_the_norm():
  np.testing.assert_allclose(_sgd_steps(grad=7.0, max_grad_norm=2.0), 1.0, rtol=1e-6)
  np.testing.assert_allclose(_sgd_steps(grad=1.5, max_grad_norm=2.0), 0.75, rtol=1e-6)


@pytest.mark.parametrize('name, first', [('sgd', 1.5), ('adam', 0.5)])
def test_adam_normalises_the_gradient_and_sgd_does_not(name, first):
  np.testing.assert_allclose(_sgd_steps(num_steps=1, name=name, grad=3.0), first, rtol=1e-5)

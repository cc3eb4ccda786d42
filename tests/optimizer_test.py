"""The optimiser's learning rate, decay, warm-up, clipping and master copies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from pkpo_jax.optimizer import make_optimizer, with_float32_master


def _make(updates_per_step=1, **changes):
  settings = {**default.get_config().optimizer, 'decay': 'constant', **changes}
  return make_optimizer(**settings, num_train_steps=10, updates_per_step=updates_per_step)


def _sgd_steps(num_updates=10, grad=1.0, start=0.0, **changes):
  """Returns the sizes of the steps for a constant gradient; SGD's unless another is named."""
  optimizer = _make(**{'name': 'sgd', 'learning_rate': 0.5, **changes})
  params, sizes = jnp.float32(start), []
  state = optimizer.init(params)
  for _ in range(num_updates):
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


def test_schedule_counts_training_steps_and_not_their_updates():
  schedule = {'warmup_steps': 5, 'decay': 'linear'}
  sizes = _sgd_steps(num_updates=30, updates_per_step=3, **schedule)
  np.testing.assert_array_equal(sizes, np.repeat(_sgd_steps(**schedule), 3))


def test_gradients_are_clipped_to_the_norm():
  np.testing.assert_allclose(_sgd_steps(grad=7.0, max_grad_norm=2.0), 1.0, rtol=1e-6)
  np.testing.assert_allclose(_sgd_steps(grad=1.5, max_grad_norm=2.0), 0.75, rtol=1e-6)


@pytest.mark.parametrize('name, first', [('sgd', 1.5), ('adam', 0.5), ('adamw', 0.5)])
def test_adam_normalises_the_gradient_and_sgd_does_not(name, first):
  np.testing.assert_allclose(_sgd_steps(num_updates=1, name=name, grad=3.0), first, rtol=1e-5)


def test_adam_takes_its_constants():
  """Two steps by the definition (Kingma & Ba 2015, algorithm 1)."""
  b1, b2, eps, mean, square = 0.8, 0.6, 0.1, 0.0, 0.0
  optimizer = _make(learning_rate=0.5, b1=b1, b2=b2, eps=eps)
  params = jnp.float32(0)
  state = optimizer.init(params)
  for t, grad in enumerate([1.0, -3.0], start=1):
    updates, state = optimizer.update(jnp.float32(grad), state, params)
    mean, square = b1 * mean + (1 - b1) * grad, b2 * square + (1 - b2) * grad**2
    expected = -0.5 * (mean / (1 - b1**t)) / (np.sqrt(square / (1 - b2**t)) + eps)
    np.testing.assert_allclose(updates, expected, rtol=1e-5)


def test_adamw_takes_a_share_off_the_weight():
  plain = _sgd_steps(num_updates=1, name='adam', start=4.0)
  decayed = _sgd_steps(num_updates=1, name='adamw', start=4.0, weight_decay=0.1)
  np.testing.assert_allclose(decayed, plain + 0.5 * 0.1 * 4.0, rtol=1e-6)


def _bfloat16_updates(optimizer):
  """Yields (grads, params, state) after each of 5 updates under jit."""

  @jax.jit
  def update(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  params, *all_grads = jax.random.normal(jax.random.key(0), (6, 64, 33)).astype(jnp.bfloat16)
  state = optimizer.init(params)
  for grads in all_grads:
    params, state = update(params, state, grads)
    yield grads, params, state


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
@pytest.mark.parametrize('learning_rate', [1e-4, 3.0])
def test_bfloat16_parameters_are_their_float32_masters_rounded(name, learning_rate):
  for _, params, state in _bfloat16_updates(_make(name=name, learning_rate=learning_rate)):
    assert params.dtype == jnp.bfloat16 and state.master.dtype == jnp.float32
    np.testing.assert_array_equal(params, state.master.astype(jnp.bfloat16))
    assert np.any(params != state.master), 'the master holds more than the parameter'
    moments = [x for x in jax.tree.leaves(state.inner) if x.ndim]
    assert all(x.dtype == jnp.float32 for x in moments)


@pytest.mark.parametrize('learning_rate', [1e-3, 0.1])
def test_masters_train_like_float32_parameters(learning_rate):
  optimizer = _make(name='adamw', learning_rate=learning_rate, weight_decay=0.01, max_grad_norm=1.0)
  expected = jax.random.normal(jax.random.key(0), (6, 64, 33))[0]
  expected = expected.astype(jnp.bfloat16).astype(jnp.float32)
  expected_state = optimizer.init(expected)
  for grads, _, state in _bfloat16_updates(optimizer):
    grads = grads.astype(jnp.float32)
    updates, expected_state = optimizer.update(grads, expected_state, expected)
    expected = optax.apply_updates(expected, updates)
    np.testing.assert_allclose(state.master, expected, rtol=2e-6, atol=2e-7)


def test_updates_too_small_for_bfloat16_add_up():
  """A thousand steps of 1e-4 from 1, where bfloat16 has steps of 1/128."""
  params = jnp.ones((), jnp.bfloat16)
  assert params + jnp.bfloat16(1e-4) == params
  optimizer = _make(name='sgd', learning_rate=1e-4)
  state = optimizer.init(params)
  update = jax.jit(lambda p, s: optimizer.update(-jnp.ones((), jnp.bfloat16), s, p))
  for _ in range(1000):
    updates, state = update(params, state)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(state.master, 1.1, rtol=1e-4)
  assert params == jnp.bfloat16(1.1)


def test_float32_parameters_have_no_second_copy():
  params = {'a': jnp.ones(3), 'b': jnp.ones(2, jnp.bfloat16)}
  state = with_float32_master(optax.sgd(0.1)).init(params)
  assert state.master['a'] is None and state.master['b'].dtype == jnp.float32
  assert not jax.tree.leaves(with_float32_master(optax.sgd(0.1)).init({'a': jnp.ones(3)}))

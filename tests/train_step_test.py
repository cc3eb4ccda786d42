"""The training step in pieces equals the step in one, and the step written as a loop."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from pkpo_jax import losses, maj_at_k, pkpo_weighted_loo
from pkpo_jax.losses import LOSS_CHOICES
from pkpo_jax.optimizer import make_optimizer
from pkpo_jax.settings import AdvantageSettings, LossSettings
from pkpo_jax.train_step import (
  init_state,
  make_advantage_fn,
  make_forward,
  make_train_step,
)
from tests.sequence_policy import make_policy, make_rollout

SETTINGS = LossSettings(**default.get_config().loss)
EVERYTHING = {'name': 'ppo', 'kl_coef': 0.3, 'entropy_coef': 0.2}
KEY = jax.random.key(7)


@functools.cache
def _make(optimizer=None, dtype=jnp.float32, **options):
  """Returns (policy, optimizer, state, frozen, rollout, advantages), somewhat off-policy."""
  policy = make_policy(dtype=dtype, **options)
  optimizer = optimizer or optax.sgd(1.0)
  state, frozen = init_state(policy, optimizer, jax.random.key(0))
  params = frozen | state.params
  noisy = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(KEY, x.shape, x.dtype), params)
  rollout, advantages = make_rollout(policy, noisy)
  assert len(np.unique(rollout.completion_mask.sum(-1))) >= 3, 'ragged completions'
  ref = policy.log_probs_and_entropy(jax.tree.map(lambda x: 0.5 * x, params), rollout)[0]
  return policy, optimizer, state, frozen, rollout.replace(ref_log_probs=ref), advantages


def _step(settings, policy, optimizer, *arguments):
  return jax.jit(make_train_step(policy, optimizer, settings))(*arguments, KEY)


@functools.cache
def _whole(settings):
  """Returns (state, metrics) after a step in one piece."""
  return _step(settings, *_make())


def _assert_close(tree, other, **tolerance):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), tree, other)


def _alternating(options, *choices):
  """Returns the product of all choices, with one of the options each: a program is compiled once.

  Neighbours of each choice have different options, so that every choice meets all of them.
  """
  products = itertools.product(*(enumerate(each) for each in choices))
  return [
    (*(x for _, x in each), options[sum(i for i, _ in each) % len(options)]) for each in products
  ]


@pytest.mark.parametrize(
  'counts, normalization, options',  # (num_microbatches, num_sample_blocks, num_lengths).
  [
    *_alternating([{}, EVERYTHING], [(8, 1, 1), (2, 2, 3)], LOSS_CHOICES['normalization']),
    *itertools.product([(1, 2, 1), (1, 1, 3), (8, 4, 2)], ['token'], [{}, EVERYTHING]),
  ],
)
def test_pieces_equal_one_batch(counts, normalization, options):
  settings = dataclasses.replace(SETTINGS, normalization=normalization, **options)
  whole, metrics = _whole(settings)
  split, split_metrics = _step(_in_pieces(settings, *counts), *_make())
  _assert_close(split, whole, rtol=1e-5, atol=1e-6)
  assert metrics.keys() == split_metrics.keys()
  for name in metrics:
    np.testing.assert_allclose(split_metrics[name], metrics[name], rtol=1e-5, err_msg=name)


def _in_pieces(settings, num_microbatches, num_sample_blocks, num_lengths, **options):
  counts = {'num_microbatches': num_microbatches, 'num_sample_blocks': num_sample_blocks}
  return dataclasses.replace(settings, num_lengths=num_lengths, **counts, **options)


def _watch(policy, monkeypatch):
  """Returns a list that gains the shape of the completions of each piece that is computed."""
  seen = []
  compute = policy.log_probs_and_entropy

  def watched(params, rollout):
    shape = rollout.completions.shape
    jax.debug.callback(lambda: seen.append(shape))
    return compute(params, rollout)

  monkeypatch.setattr(policy, 'log_probs_and_entropy', watched)
  return seen


def test_pieces_are_as_long_as_they_have_to_be(monkeypatch):
  """Prompts of 8 in 4 blocks by their total length, samples of 4 in 2 by their own."""
  policy, _, _, _, rollout, _ = made = _make()
  seen = _watch(policy, monkeypatch)
  jax.block_until_ready(_step(_in_pieces(SETTINGS, 4, 2, 3), *made))
  jax.effects_barrier()
  lengths = np.sort(np.asarray(rollout.completion_mask).sum(-1), axis=1)
  lengths = lengths[np.argsort(lengths.sum(1), kind='stable')].reshape(4, 2, 2, 2)
  needed = lengths.max(axis=(1, 3)).ravel()
  expected = [(2, 2, min(x for x in (2, 3, 5) if x >= length)) for length in needed]
  assert sorted(seen) == sorted(expected)
  assert len(set(expected)) > 1


HAS_SIGNAL = np.array([3, 4, 7])


def _few_with_signal():
  """Returns _make()'s, with advantages of 0 but for three of eight prompts."""
  *made, advantages = _make()
  return *made, advantages.at[np.setdiff1d(np.arange(8), HAS_SIGNAL)].set(0)


@functools.cache
def _whole_and_others(settings):
  """Returns (state, metrics) after a step of all prompts, and metrics of those with signal."""
  *made, rollout, advantages = _few_with_signal()
  others = jax.tree.map(lambda x: x[HAS_SIGNAL], (rollout, advantages))
  return *_step(settings, *made, rollout, advantages), _step(settings, *made, *others)[1]


@pytest.mark.parametrize(
  'counts, normalization, name',
  _alternating(
    LOSS_CHOICES['name'], [(1, 1, 1), (4, 1, 1), (8, 2, 3)], LOSS_CHOICES['normalization']
  ),
)
def test_prompts_without_signal_are_left_out(counts, normalization, name, monkeypatch):
  """All that is summed stays. Means over tokens are those of an update of the other prompts."""
  settings = dataclasses.replace(SETTINGS, normalization=normalization, name=name)
  whole, metrics, metrics_of_others = _whole_and_others(settings)
  policy, *made = _few_with_signal()
  seen = _watch(policy, monkeypatch)
  settings = _in_pieces(settings, *counts, skip_without_signal=True)
  actual, actual_metrics = jax.block_until_ready(_step(settings, policy, *made))
  jax.effects_barrier()
  assert len(seen) == {1: 1, 4: 2, 8: 3 * 2}[counts[0]], '3 of 8 prompts fill 2 of 4 blocks'
  _assert_close(actual, whole, rtol=1e-5, atol=1e-6)
  summed = {'loss', 'grad_norm', 'zero_advantage_share', 'completion_tokens'}
  assert actual_metrics.keys() == metrics.keys() > summed
  for key, value in actual_metrics.items():
    expected = metrics if key in summed else metrics_of_others
    np.testing.assert_allclose(value, expected[key], rtol=1e-5, err_msg=key)


def test_an_update_without_any_signal_changes_nothing():
  *made, state, frozen, rollout, advantages = _make()
  settings = _in_pieces(SETTINGS, 2, 1, 1, skip_without_signal=True)
  actual, metrics = _step(settings, *made, state, frozen, rollout, 0 * advantages)
  _assert_close(actual.params, state.params, rtol=0)
  assert metrics.pop('completion_tokens') > 1
  assert {name: float(x) for name, x in metrics.items() if x} == {'zero_advantage_share': 1.0}


def test_gradients_of_microbatches_add_up_in_float32():
  """Of bfloat16 parameters too: the sum of the pieces' gradients, each rounded, is not rounded."""
  # An optimizer that keeps the last gradients as its state.
  keep = optax.GradientTransformation(
    lambda params: jax.tree.map(lambda p: jnp.zeros(p.shape), params),
    lambda grads, state, params: (jax.tree.map(jnp.zeros_like, params), grads),
  )
  policy, _, state, frozen, rollout, advantages = made = _make(keep, dtype=jnp.bfloat16)
  actual = _step(dataclasses.replace(SETTINGS, num_microbatches=4), *made)[0].opt_state
  assert {g.dtype for g in jax.tree.leaves(actual)} == {jnp.dtype('float32')}
  expected = jax.tree.map(jnp.zeros_like, actual)
  for m in range(4):
    piece = jax.tree.map(lambda x, m=m: x[m::4], (rollout, advantages))
    grads = _step(SETTINGS, policy, keep, state, frozen, *piece)[0].opt_state
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype('bfloat16')}
    expected = jax.tree.map(lambda e, g: e + g.astype(jnp.float32) / 4, expected, grads)
  _assert_close(actual, expected, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize('num_epochs, num_minibatches, num_microbatches', [(3, 1, 1), (2, 4, 2)])
def test_epochs_and_minibatches_equal_a_loop(num_epochs, num_minibatches, num_microbatches):
  fields = {'optimizer': {**default.get_config().optimizer, 'learning_rate': 0.03}}
  num_updates = num_epochs * num_minibatches
  optimizer = make_optimizer(**fields['optimizer'], num_train_steps=3, updates_per_step=num_updates)
  policy, optimizer, state, frozen, rollout, advantages = made = _make(optimizer, freeze_cell=True)
  settings = dataclasses.replace(
    SETTINGS,
    **EVERYTHING,
    normalization='token',
    num_epochs=num_epochs,
    num_minibatches=num_minibatches,
    num_microbatches=num_microbatches,
  )
  actual, actual_metrics = _step(settings, *made)

  def loss_fn(params, rollout, advantages):
    weights = losses.token_weights(rollout.completion_mask, 'token')
    return losses.policy_gradient_loss(
      *policy.log_probs_and_entropy({**frozen, **params}, rollout),
      advantages=advantages,
      completion_mask=rollout.completion_mask,
      sampling_log_probs=rollout.sampling_log_probs,
      ref_log_probs=rollout.ref_log_probs,
      weights=weights,
      mean_weights=weights,
      **settings.terms,
    )

  params, opt_state, all_metrics = state.params, state.opt_state, []
  for epoch_key in jax.random.split(KEY, num_epochs):
    order = np.asarray(jax.random.permutation(epoch_key, 8)) if num_minibatches > 1 else range(8)
    for rows in np.reshape(order, (num_minibatches, -1)):
      minibatch = jax.tree.map(lambda x, rows=rows: x[rows], (rollout, advantages))
      grads, metrics = jax.grad(loss_fn, has_aux=True)(params, *minibatch)
      updates, opt_state = optimizer.update(grads, opt_state, params)
      params = optax.apply_updates(params, updates)
      all_metrics.append((metrics, optax.tree.norm(grads)))
  _assert_close((actual.params, actual.opt_state), (params, opt_state), rtol=1e-4, atol=1e-6)
  assert actual.step == 1 and len(all_metrics) == num_updates
  assert not np.allclose(params['head']['kernel'], state.params['head']['kernel'])
  first, second = (metrics.agreement for metrics, _ in all_metrics[:2])
  assert first.sums['ratio_mean'] != second.sums['ratio_mean']
  sums = [metrics.update.sums | {'grad_norm': norm} for metrics, norm in all_metrics]
  expected = {name: np.mean([each[name] for each in sums]) for name in sums[0]}
  expected |= first.sums | first.maxima
  for name, value in expected.items():
    np.testing.assert_allclose(actual_metrics[name], value, rtol=1e-4, err_msg=name)


def test_minibatches_depend_on_the_key_and_one_batch_does_not():
  policy, optimizer, *arguments = _make()
  for num_minibatches, is_shuffled in ((1, False), (2, True)):
    settings = dataclasses.replace(
      SETTINGS, name='ppo', num_epochs=2, num_minibatches=num_minibatches
    )
    train_step = jax.jit(make_train_step(policy, optimizer, settings))
    heads = [train_step(*arguments, jax.random.key(i))[0].params['head'] for i in range(2)]
    assert np.array_equal(heads[0]['bias'], heads[1]['bias']) != is_shuffled


def test_frozen_parameters_are_used_and_not_trained():
  policy, optimizer, state, frozen, rollout, advantages = made = _make(freeze_cell=True)
  assert set(state.params) == {'head'} and set(frozen) == {'cell'}
  whole = init_state(make_policy(), optimizer, jax.random.key(0))[0]
  _assert_close(frozen | state.params, whole.params, rtol=0)
  actual = _step(SETTINGS, *made)[0]
  arguments = (whole, {}, rollout, advantages)
  expected = _step(SETTINGS, make_policy(), optimizer, *arguments)[0]
  _assert_close(actual.params['head'], expected.params['head'], rtol=1e-6)
  assert jax.tree.structure(actual) == jax.tree.structure(state)


def test_pretrained_parameters_take_the_place_of_the_initial_ones():
  head = {'kernel': jnp.full((16, 8), 2.0), 'bias': jnp.ones(8)}
  state, frozen = init_state(
    make_policy(freeze_cell=True), optax.sgd(1.0), jax.random.key(0), {'head': head}
  )
  _assert_close(state.params['head'], head, rtol=0)
  assert set(frozen) == {'cell'}


def test_metrics_of_the_rollout():
  made = _make()
  rollout, advantages = made[4:]
  _, metrics = _step(SETTINGS, *made)
  assert metrics['zero_advantage_share'] == 1 / 8
  lengths = np.asarray(rollout.completion_mask).sum(-1)
  np.testing.assert_allclose(metrics['completion_tokens'], lengths.mean(), rtol=1e-6)
  assert metrics['log_ratio_max'] > 0.1


def test_a_step_counts_once_whatever_its_updates():
  settings = dataclasses.replace(SETTINGS, name='ppo', num_epochs=3)
  assert _step(settings, *_make())[0].step == 1


@pytest.mark.parametrize('counts', [(2, 1, 1), (2, 2, 1), (2, 4, 3)])
def test_forward_in_pieces_equals_the_whole(counts, monkeypatch):
  policy, _, state, _, rollout, _ = _make()
  expected = policy.log_probs_and_entropy(state.params, rollout)
  seen = _watch(policy, monkeypatch)
  settings = _in_pieces(dataclasses.replace(SETTINGS, name='ppo', num_minibatches=2), *counts)
  actual = jax.block_until_ready(jax.jit(make_forward(policy, settings))(state.params, rollout))
  jax.effects_barrier()
  is_cut = np.unique([length for _, _, length in seen]) < 5
  assert len(seen) == 4 * counts[1] and np.any(is_cut) == (counts[2] > 1)
  mask = rollout.completion_mask
  tokens_only = lambda tree: jax.tree.map(lambda x: jnp.where(mask, x, 0), tree)
  _assert_close(tokens_only(actual), tokens_only(expected), rtol=1e-5, atol=1e-6)


def _no_forward(params, rollout):
  raise AssertionError('log-probabilities are asked for without need')


def _advantage_fn(name, num_samples=4, forward=_no_forward, **options):
  settings = AdvantageSettings(name=name, k=1, schedule={}, options=options)
  return make_advantage_fn(settings, forward, np.array([1, 2]), num_samples)


def test_sequence_ratios_stay_finite():
  """However far the policy is from the one that sampled."""
  rollout = _make()[4]
  lowest = jnp.full(rollout.completions.shape, np.finfo(np.float32).min)
  for log_probs, sampling in ((0 * lowest, lowest), (lowest, 0 * lowest), (lowest, lowest)):
    forward = lambda params, rollout, x=log_probs: (x, 0 * x)
    fn = _advantage_fn('max_at_k_off_policy', forward=forward)
    rewards = jnp.zeros((8, 4)).at[:, 0].set(1)
    moved = rollout.replace(sampling_log_probs=sampling)
    assert np.all(np.isfinite(fn(None, moved, rewards, None, jnp.int32(2), KEY)))


def test_baselines_are_weighted_by_surprise():
  rollout, rewards = _make()[4], jax.random.normal(KEY, (8, 4))
  chances = np.exp(np.asarray(rollout.sampling_log_probs))
  weights = [
    [sum((1 - p) ** 2 for p in row[: int(mask.sum())]) for row, mask in zip(*group, strict=True)]
    for group in zip(chances, np.asarray(rollout.completion_mask), strict=True)
  ]
  found = _advantage_fn('pkpo_weighted_loo')(None, rollout, rewards, None, jnp.int32(2), KEY)
  expected = pkpo_weighted_loo(rewards, k=2, baseline_weights=np.array(weights, np.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  alike = pkpo_weighted_loo(rewards, k=2, baseline_weights=None)
  assert not np.allclose(found, alike, atol=1e-2)


def test_votes_are_of_given_answers_or_of_completions():
  """Samples 1 and 3 are the same, sample 0 is their beginning."""
  rollout, rewards = _make()[4], jnp.zeros((8, 4)).at[:, 1].set(1)
  tokens, twin = rollout.completions, rollout.completions[:, 1]
  mask = jnp.arange(tokens.shape[-1]) < jnp.array([3, 4, 4, 4])[:, None]
  rollout = rollout.replace(
    completions=tokens.at[:, 0].set(twin).at[:, 2].set(twin + 1).at[:, 3].set(twin),
    completion_mask=jnp.broadcast_to(mask, tokens.shape),
  )
  of_completions = np.array([[0, 1, 2, 1]] * 8, np.int32)
  given = np.array([[0, 1, 0, -1]] * 8, np.int32)
  fn = _advantage_fn('maj_at_k', num_samples=4)
  for answers, expected in ((None, of_completions), (given, given)):
    found = fn(None, rollout, rewards, None, jnp.int32(2), KEY, answers)
    np.testing.assert_array_equal(found, maj_at_k(rewards, k=2, answers=expected))


def test_advantages_that_cannot_work_name_the_field():
  with pytest.raises(ValueError, match=r'^rollout.num_samples: .*needs n >= 2'):
    _advantage_fn('rloo', num_samples=1)
  with pytest.raises(ValueError, match=r'^advantage.k: .*k < n = 2, got 2'):
    _advantage_fn('pkpo_loo', num_samples=2)
  with pytest.raises(ValueError, match=r'^advantage.beta: .*other than 0'):
    _advantage_fn('rs_grpo', beta=0.0)
  with pytest.raises(ValueError, match=r'^advantage.bta: unknown field \(did you mean beta'):
    _advantage_fn('rs_grpo', bta=1.0)

"""Losses against loops in float64, limits, exact expectations, and whatever masked places hold."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from pkpo_jax import losses
from pkpo_jax.errors import FieldError
from pkpo_jax.losses import LOSS_CHOICES
from pkpo_jax.settings import LossSettings
from pkpo_jax.types import Rollout
from tests.sequence_policy import END, make_policy, merged

SETTINGS = LossSettings(**default.get_config().loss)
NORMALIZATIONS = LOSS_CHOICES['normalization']
EVERYTHING = {'name': 'ppo', 'kl_coef': 0.3, 'entropy_coef': 0.2}
SHAPE = (2, 3, 4)
ALWAYS = {'loss', 'entropy', 'bounded_share', 'ratio_mean', 'log_ratio_max'}
NUM_TOKENS = np.array([[4, 1, 2], [3, 0, 4]])  # One completion is empty.


def _inputs():
  """Returns (log_probs, entropy, rollout, advantages); the ratios lie on both sides of the clip."""
  rng = np.random.default_rng(0)
  log_probs, ref, entropy = (rng.exponential(size=SHAPE).astype(np.float32) for _ in range(3))
  sampling = log_probs + rng.normal(scale=0.3, size=SHAPE).astype(np.float32)
  mask = np.arange(SHAPE[-1]) < NUM_TOKENS[..., None]
  prompts = np.zeros((2, 1), int), np.ones((2, 1), bool)
  rollout = Rollout(*prompts, np.zeros(SHAPE, int), mask, -sampling, -ref)
  advantages = rng.normal(size=SHAPE[:2]).astype(np.float32)
  return jax.tree.map(jnp.asarray, (-log_probs, entropy, rollout, advantages))


def _constants(log_probs, sampling, ref):
  """Returns inputs like `_inputs`, the same numbers for every token of every sample."""
  _, entropy, rollout, advantages = _inputs()
  full = lambda value: jnp.full(SHAPE, value, jnp.float32)
  rollout = rollout.replace(sampling_log_probs=full(sampling), ref_log_probs=full(ref))
  return full(log_probs), entropy, rollout, advantages


def _loss(settings, log_probs, entropy, rollout, advantages):
  weights = losses.token_weights(rollout.completion_mask, settings.normalization)
  mean_weights = losses.token_weights(rollout.completion_mask, 'token')
  loss, metrics = losses.policy_gradient_loss(
    log_probs,
    entropy,
    advantages=advantages,
    completion_mask=rollout.completion_mask,
    sampling_log_probs=rollout.sampling_log_probs,
    ref_log_probs=rollout.ref_log_probs,
    weights=weights,
    mean_weights=mean_weights,
    **settings.terms,
  )
  return loss, merged(metrics)


def _oracle(settings, log_probs, entropy, rollout, advantages):
  """The same by loops over tokens that exist, in float64."""
  num_prompts, num_samples, length = log_probs.shape
  numbers = (log_probs, entropy, rollout.sampling_log_probs, rollout.ref_log_probs, advantages)
  log_probs, entropy, sampling, ref, advantages = (np.asarray(x, np.float64) for x in numbers)
  samples = []  # One (sums of token terms) per sample.
  for p, i in itertools.product(range(num_prompts), range(num_samples)):
    sample = {'tokens': 0, 'term': 0.0, 'entropy': 0.0, 'kl': 0.0, 'clipped': 0, 'ratio': 0.0}
    for t in range(NUM_TOKENS[p, i]):
      ratio = np.exp(log_probs[p, i, t] - sampling[p, i, t])
      a = advantages[p, i]
      if settings.name == 'ppo':
        unclipped = ratio * a
        clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high) * a
        surrogate = min(unclipped, clipped)
        sample['clipped'] += clipped < unclipped
      else:
        surrogate = a * log_probs[p, i, t]
      log_ref_ratio = ref[p, i, t] - log_probs[p, i, t]
      k1, k3 = -log_ref_ratio, np.exp(log_ref_ratio) - 1 - log_ref_ratio
      kl = ratio * {'k1': k1, 'k3': k3}[settings.kl_estimator]
      sample['tokens'] += 1
      sample['ratio'] += ratio
      sample['kl'] += kl
      sample['entropy'] += entropy[p, i, t]
      sample['term'] += settings.kl_coef * kl - settings.entropy_coef * entropy[p, i, t] - surrogate
    samples.append(sample)
  num_tokens = sum(sample['tokens'] for sample in samples)
  per_sample = {
    'sum': lambda s: s['term'],
    'sequence': lambda s: s['term'] / max(s['tokens'], 1),
    'constant': lambda s: s['term'] / length,
  }
  if settings.normalization == 'token':
    loss = sum(s['term'] for s in samples) / num_tokens
  else:
    loss = np.mean([per_sample[settings.normalization](s) for s in samples])
  mean = lambda name: sum(s[name] for s in samples) / num_tokens
  return {
    'loss': loss,
    'entropy': mean('entropy'),
    'kl': mean('kl'),
    'clip_share': mean('clipped'),
    'ratio_mean': mean('ratio'),
    'bounded_share': 0,
  }


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize('options', [{}, EVERYTHING, {**EVERYTHING, 'kl_estimator': 'k1'}])
def test_loss_and_metrics_equal_a_loop_over_tokens(normalization, options):
  settings = dataclasses.replace(SETTINGS, normalization=normalization, **options)
  loss, metrics = _loss(settings, *_inputs())
  expected = _oracle(settings, *_inputs())
  assert loss == metrics['loss']
  extra = {'clip_share', 'kl', 'policy_loss'} if options else set()
  assert metrics.keys() == ALWAYS | extra
  for name in metrics.keys() & expected.keys():
    np.testing.assert_allclose(metrics[name], expected[name], rtol=2e-5, err_msg=name)
  if options:
    assert 0 < metrics['clip_share'] < 1


def test_loss_is_its_terms():
  _, metrics = _loss(dataclasses.replace(SETTINGS, normalization='token', **EVERYTHING), *_inputs())
  sum_of_terms = metrics['policy_loss'] + 0.3 * metrics['kl'] - 0.2 * metrics['entropy']
  np.testing.assert_allclose(metrics['loss'], sum_of_terms, rtol=1e-5)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_gradient_of_reinforce_is_the_weighted_advantage(normalization):
  settings = dataclasses.replace(SETTINGS, normalization=normalization)
  log_probs, entropy, rollout, advantages = _inputs()
  grad_fn = jax.grad(lambda x, a: _loss(settings, x, entropy, rollout, a)[0], argnums=(0, 1))
  grads = grad_fn(log_probs, advantages)
  weights = {
    'sum': np.ones((2, 3)) / 6,
    'token': np.ones((2, 3)) / NUM_TOKENS.sum(),
    'sequence': 1 / (6 * np.maximum(NUM_TOKENS, 1)),
    'constant': np.ones((2, 3)) / 24,
  }[normalization]
  expected = np.where(rollout.completion_mask, -(weights * advantages)[..., None], 0)
  np.testing.assert_allclose(grads[0], expected, rtol=1e-6)
  np.testing.assert_array_equal(grads[1], 0)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_ppo_at_the_sampling_policy_has_the_gradient_of_reinforce_exactly(normalization):
  log_probs, entropy, rollout, advantages = _inputs()
  rollout = rollout.replace(sampling_log_probs=log_probs)
  grads = []
  for name in ('reinforce', 'ppo'):
    settings = dataclasses.replace(SETTINGS, name=name, normalization=normalization)
    loss_fn = lambda x, s=settings: _loss(s, x, entropy, rollout, advantages)
    grad, metrics = jax.grad(loss_fn, has_aux=True)(log_probs)
    assert metrics['ratio_mean'] == pytest.approx(1) and metrics['log_ratio_max'] == 0
    grads.append(grad)
  np.testing.assert_array_equal(*grads)
  assert np.any(grads[0] != 0)


@pytest.mark.parametrize(
  'ratio, advantage, value, slope',
  [
    (1.1, 2.0, 2.2, 2.0),  # Inside: ratio * advantage.
    (0.9, -2.0, -1.8, -2.0),
    (1.5, 2.0, 2.56, 0.0),  # Past the upper bound, where the advantage wants it: 1.28 * 2.
    (1.5, -2.0, -3.0, -2.0),  # Past it, where it does not: the way back has its gradient.
    (0.5, 2.0, 1.0, 2.0),  # Past the lower bound, likewise.
    (0.5, -2.0, -1.6, 0.0),  # 0.8 * -2.
    (1.5, 0.0, 0.0, 0.0),
    (0.5, 0.0, 0.0, 0.0),
  ],
)
def test_ppo_clips_the_gain_and_never_the_loss(ratio, advantage, value, slope):
  surrogate = lambda r: losses.ppo_surrogate(r, jnp.float32(advantage), 0.2, 0.28)
  (gain, is_clipped), grad = jax.value_and_grad(surrogate, has_aux=True)(jnp.float32(ratio))
  np.testing.assert_allclose([gain, grad], [value, slope], rtol=1e-6)
  assert is_clipped == (slope == 0 and advantage != 0)


@pytest.mark.parametrize('dirt', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_masked_tokens_may_hold_anything(dirt, normalization):
  settings = dataclasses.replace(SETTINGS, normalization=normalization, **EVERYTHING)
  log_probs, entropy, rollout, advantages = _inputs()

  def gradients(log_probs, entropy, rollout):
    loss_fn = lambda x, e: _loss(settings, x, e, rollout, advantages)
    return jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(log_probs, entropy)

  soil = lambda x: jnp.where(rollout.completion_mask, x, dirt)
  dirty = rollout.replace(
    sampling_log_probs=soil(rollout.sampling_log_probs), ref_log_probs=soil(rollout.ref_log_probs)
  )
  actual = gradients(soil(log_probs), soil(entropy), dirty)
  jax.tree.map(np.testing.assert_array_equal, actual, gradients(log_probs, entropy, rollout))


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_prompts_without_signal_stay_in_the_denominator(normalization):
  """Two prompts, of which one has advantage 0: half of the loss of the other alone."""
  settings = dataclasses.replace(SETTINGS, normalization=normalization)
  log_probs, entropy, rollout, advantages = jax.tree.map(lambda x: x[:1], _inputs())
  alone, _ = _loss(settings, log_probs, entropy, rollout, advantages)
  twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), (log_probs, entropy, rollout))
  with_zero = jnp.concatenate([advantages, 0 * advantages])
  both, _ = _loss(settings, *twice, with_zero)
  np.testing.assert_allclose(both, alone / 2, rtol=1e-6)


@pytest.mark.parametrize(
  'log_ratio, value, slope',
  [
    (-200.0, 0.0, 0.0),
    (0.0, 1.0, 1.0),
    (3.0, np.exp(3), np.exp(3)),
    (19.9, np.exp(19.9), np.exp(19.9)),
    (20.0, np.exp(20), np.exp(20)),
    (20.5, np.exp(20) * 1.5, np.exp(20)),  # On the tangent.
    (1e4, np.exp(20) * 9981, np.exp(20)),
  ],
)
def test_ratios_are_exact_up_to_the_bound_and_on_the_tangent_beyond(log_ratio, value, slope):
  actual = jax.value_and_grad(losses.exp_bounded)(jnp.float32(log_ratio))
  np.testing.assert_allclose(actual, [value, slope], rtol=3e-6)


@pytest.mark.parametrize(
  'log_prob, ref, value, slope',
  [
    (-95.0, -1.0, np.exp(20) * 75 - 95, 1 - np.exp(20)),
    (-21.5, -1.0, np.exp(20) * 1.5 - 21.5, 1 - np.exp(20)),
    (-20.9, -1.0, np.exp(19.9) - 20.9, 1 - np.exp(19.9)),
    (-1.25, -1.0, np.exp(0.25) - 1.25, 1 - np.exp(0.25)),
    (-1.0, -95.0, 93.0, 1.0),
  ],
)
def test_k3_is_exact_up_to_the_bound_and_finite_beyond(log_prob, ref, value, slope):
  # Where the policy sampled: the factor is 1, and its own slope adds the value to that of k3.
  kl = lambda x, sampling: losses.token_kl(x, sampling, jnp.float32(ref), 'k3')
  actual, grad = jax.value_and_grad(kl)(jnp.float32(log_prob), jnp.float32(log_prob))
  np.testing.assert_allclose(actual, value, rtol=1e-5)
  # Of two terms that may almost cancel.
  np.testing.assert_allclose(grad, value + slope, rtol=1e-5, atol=1e-7 * value)


@pytest.mark.parametrize('kl_estimator', LOSS_CHOICES['kl_estimator'])
@pytest.mark.parametrize('name', LOSS_CHOICES['name'])
def test_no_log_probability_makes_anything_infinite(name, kl_estimator):
  """Not the loss, its gradient or a metric, and what is bounded is counted."""
  lowest = float(np.finfo(np.float32).min)
  settings = dataclasses.replace(SETTINGS, **EVERYTHING | {'name': name}, kl_estimator=kl_estimator)

  def both(log_prob, sampling, ref):
    log_probs, entropy, rollout, advantages = _constants(log_prob, sampling, ref)
    loss_fn = lambda x: _loss(settings, x, entropy, rollout, advantages)
    return jax.grad(loss_fn, has_aux=True)(log_probs)

  values = (0.0, -1.0, -95.0, -9999.0, -10001.0, lowest, -np.inf, -lowest)
  cases = np.array(list(itertools.product(values, repeat=3)), np.float32)
  grads, metrics = jax.device_get(jax.jit(jax.vmap(both))(*cases.T))
  for x in (grads, *metrics.values()):
    is_finite = np.isfinite(x).reshape(len(cases), -1).all(axis=-1)
    assert is_finite.all(), cases[~is_finite]
  log_prob, sampling, ref = bounded = np.clip(cases.astype(np.float64), -1e4, 1e4).T
  is_bounded = np.any(bounded.T != cases, axis=-1) | (log_prob - sampling > 20)
  is_bounded |= (kl_estimator == 'k3') & (ref - log_prob > 20)
  np.testing.assert_allclose(metrics['bounded_share'], is_bounded, rtol=1e-6)


def test_bounded_share_is_one_of_tokens():
  log_probs, entropy, rollout, advantages = _constants(-1.0, -1.0, -1.0)
  rollout = rollout.replace(sampling_log_probs=rollout.sampling_log_probs.at[0, 0, :2].set(-21.5))
  _, metrics = _loss(SETTINGS, log_probs, entropy, rollout, advantages)
  np.testing.assert_allclose(metrics['bounded_share'], 2 / NUM_TOKENS.sum(), rtol=1e-6)
  assert metrics['log_ratio_max'] == 20.5


@pytest.mark.parametrize(
  'terms, field',
  [
    ({'name': 'a2c'}, 'name'),
    ({'kl_estimator': 'k2'}, 'kl_estimator'),
    ({'clip_low': 1.5}, 'clip_low'),
    ({'clip_high': 0.0}, 'clip_high'),
    ({'kl_coef': -0.1}, 'kl_coef'),
    ({'entropy_coef': -0.1}, 'entropy_coef'),
    ({'kl_coef': 0.1}, 'ref_log_probs'),
  ],
)
def test_arguments_out_of_range_are_named(terms, field):
  x = jnp.zeros(SHAPE)
  arrays = {'completion_mask': x == 0, 'sampling_log_probs': x, 'weights': x, 'mean_weights': x}
  with pytest.raises(FieldError, match=f'^{field}: expected') as raised:
    losses.policy_gradient_loss(x, x, advantages=x[..., 0], **arrays, **terms)
  assert raised.value.field == field


def test_unknown_names_of_the_parts_are_refused():
  with pytest.raises(FieldError, match='normalization: expected one of .*sequence.* got .mean.'):
    losses.token_weights(jnp.ones(SHAPE, bool), 'mean')
  with pytest.raises(FieldError, match='kl_estimator: expected one of .*k3.* got .k2.'):
    losses.token_kl(*jnp.zeros((3, 1)), 'k2')


@pytest.mark.parametrize('is_on_policy', [True, False])
@pytest.mark.parametrize('estimator', ['k1', 'k3'])
def test_expected_gradient_of_the_kl_penalty_is_that_of_the_kl(estimator, is_on_policy):
  """Over all tokens of a vocabulary, each with its chance to be drawn."""
  logits, ref_logits, other = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
  sampling = jax.nn.log_softmax(logits if is_on_policy else other)
  ref = jax.nn.log_softmax(ref_logits)

  def expected_estimate(logits):
    log_probs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(sampling) * losses.token_kl(log_probs, sampling, ref, estimator))

  def kl(logits):
    log_probs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probs) * (log_probs - ref))

  actual, expected = (jax.value_and_grad(f)(logits) for f in (expected_estimate, kl))
  np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
  np.testing.assert_allclose(actual[1], expected[1], rtol=1e-4, atol=1e-6)
  assert np.abs(expected[1]).max() > 0.1


def test_expected_gradient_of_the_sum_is_that_of_the_expected_reward():
  """Over all completions of a sequence policy, of all lengths."""
  policy, length = make_policy(vocab_size=3, width=4), 3
  params = policy.init(jax.random.key(0))
  completions, mask = [], []
  for tokens in itertools.product(range(3), repeat=length):
    end = tokens.index(END) if END in tokens else length
    if all(token == END for token in tokens[end:]):
      completions.append(tokens)
      mask.append(np.arange(length) <= end)
  assert len(completions) == 1 + 2 + 4 + 8
  completions, mask = jnp.array([completions]), jnp.array([mask])
  rewards = jnp.asarray(np.random.default_rng(0).normal(size=mask.shape[:2]), jnp.float32)
  empty = jnp.zeros(mask.shape)
  prompts = jnp.array([[1]]), jnp.array([[True]])
  rollout = Rollout(*prompts, completions, mask, empty)

  def chances(params):
    log_probs, _ = policy.log_probs_and_entropy(params, rollout)
    return jnp.exp(jnp.sum(jnp.where(mask, log_probs, 0), axis=-1))

  np.testing.assert_allclose(chances(params).sum(), 1, rtol=1e-6)
  expected = jax.grad(lambda params: jnp.sum(chances(params) * rewards))(params)
  # The mean over samples times their number: the sum over completions by their chances.
  advantages = rewards * chances(params) * mask.shape[1]

  def loss_fn(params):
    log_probs, entropy = policy.log_probs_and_entropy(params, rollout)
    return -_loss(SETTINGS, log_probs, entropy, rollout, advantages)[0]

  actual = jax.grad(loss_fn)(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, expected)

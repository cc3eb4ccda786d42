"""Diagnostics: by their definitions, exactly in expectation, and without a trace in the run."""

import dataclasses
import functools
import itertools
import re
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import bandit, default
from pkpo_jax import pkpo_loo_minus_one, rloo, sharding
from pkpo_jax.diagnostics import (
  cosine,
  effective_share,
  make_diagnose,
  mean_and_variance,
  num_parts_of,
)
from pkpo_jax.errors import FieldError
from pkpo_jax.metrics import read_metrics
from pkpo_jax.policies import POLICIES
from pkpo_jax.policies.bandit import SoftmaxBandit
from pkpo_jax.run import check_mesh, jit_diagnose, make_run
from pkpo_jax.settings import LossSettings, MeshSettings
from pkpo_jax.tasks import TASKS
from pkpo_jax.train import train
from pkpo_jax.types import Rollout
from tests import oracles
from tests.interruptions import metrics_text
from tests.sequence_policy import BagPolicy, CountTask, config_of, make_policy, make_rollout

SETTINGS = LossSettings(**default.get_config().loss)


def _policy(num_contexts, num_arms):
  return SoftmaxBandit(SimpleNamespace(num_contexts=num_contexts, num_arms=num_arms))


def _rollout(contexts, arms, sampling_log_probs=None):
  """Returns a rollout of completions that are one token long."""
  contexts, arms = (
    jnp.asarray(contexts, jnp.int32)[:, None],
    jnp.asarray(arms, jnp.int32)[..., None],
  )
  there = jnp.ones(arms.shape, bool)
  if sampling_log_probs is None:
    sampling_log_probs = jnp.zeros(arms.shape)
  return Rollout(contexts, jnp.ones(contexts.shape, bool), arms, there, sampling_log_probs)


def _batch(seed=0):
  """Returns (params, rollout, rewards, where, advantages) of 6 prompts of 3 contexts, 5 samples."""
  rng = np.random.default_rng(seed)
  rewards = rng.normal(size=(6, 5)).astype(np.float32)
  rewards[3] = 0.1
  where = np.ones((6, 5), bool)
  where[0, 2] = where[4, 0] = where[4, 4] = False
  advantages = np.where(where, rng.normal(size=(6, 5)), 0).astype(np.float32)
  params = {'logits': jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)}
  rollout = _rollout([0, 1, 0, 2, 1, 0], rng.integers(4, size=(6, 5)))
  return params, rollout, jnp.array(rewards), jnp.array(where), jnp.array(advantages)


def _gradients(params, rollout, advantages):
  """Returns each prompt's mean of A_i grad log p(x_i), `[P, D]` float64: the definition."""
  log_probs = lambda logits: jax.nn.log_softmax(logits, axis=-1)
  scores = np.asarray(jax.jacrev(log_probs)(params['logits']), np.float64)
  of_samples = scores[rollout.prompt_tokens, rollout.completions[..., 0]]
  flat = of_samples.reshape(*advantages.shape, -1)
  return np.mean(np.asarray(advantages, np.float64)[..., None] * flat, axis=1)


def _by_oracle(oracle, rewards, where, **options):
  """Returns the oracle's advantages, 0 where a sample was not judged."""
  found = np.zeros(rewards.shape)
  for row, values, judged in zip(found, np.asarray(rewards), np.asarray(where), strict=True):
    row[judged] = [float(x) for x in oracle(values[judged].astype(float).tolist(), **options)]
  return found


@functools.cache
def _diagnose(num_parts=3):
  return jax.jit(make_diagnose(_policy(3, 4), SETTINGS, num_parts, is_off_policy=True))


@pytest.mark.parametrize('k', [1, 2, 3])
def test_of_a_bandit_by_their_definitions(k):
  """With samples that were not judged, and a prompt of equal rewards."""
  params, rollout, rewards, where, advantages = _batch()
  metrics = _diagnose()(params, {}, rollout, rewards, where, advantages, jnp.int32(k))
  of_1 = _by_oracle(oracles.rloo, rewards, where)
  of_k = _by_oracle(oracles.pkpo_loo_minus_one, rewards, where, k=k)
  a, b = (_gradients(params, rollout, each).mean(axis=0) for each in (of_1, of_k))
  expected = {'gradient_cosine': a @ b / np.sqrt((a @ a) * (b @ b))}
  assert (
    abs(expected['gradient_cosine'] - (k == 1)) < 1e-9 or 0.1 < expected['gradient_cosine'] < 0.99
  )
  # Part j has the prompts j and j + 3.
  parts = _gradients(params, rollout, advantages).reshape(2, 3, -1).mean(axis=0)
  expected['gradient_variance'] = np.trace(np.cov(parts.T)) / 3
  pairs = [parts[i] @ parts[j] for i, j in itertools.combinations(range(3), 2)]
  expected['gradient_signal'] = np.mean(pairs)
  expected['gradient_snr'] = expected['gradient_signal'] / expected['gradient_variance']
  expected['zero_advantage_share@1'] = expected['zero_advantage_share@k'] = 1 / 6
  sizes = np.abs(np.asarray(advantages, np.float64))
  expected['advantage_ess'] = sizes.sum() ** 2 / (sizes**2).sum() / 30
  ratios = np.asarray(jax.nn.softmax(params['logits']), np.float64)
  ratios = ratios[rollout.prompt_tokens, rollout.completions[..., 0]]
  expected['ratio_ess'] = ratios.sum() ** 2 / (ratios**2).sum() / 30
  assert metrics.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_new_k_does_not_retrace_and_may_be_one_for_each_prompt():
  count = []
  diagnose = make_diagnose(_policy(3, 4), SETTINGS, 2)
  counted = jax.jit(lambda *arguments: (count.append(1), diagnose(*arguments))[1])
  params, *batch = _batch()
  cosines = [counted(params, {}, *batch, jnp.int32(k))['gradient_cosine'] for k in (1, 2, 3)]
  assert len(count) == 1 and len(np.unique(cosines)) == 3
  each = [counted(params, {}, *batch, jnp.full(6, k))['gradient_cosine'] for k in (1, 2, 3)]
  assert len(count) == 2
  np.testing.assert_allclose(each, cosines, rtol=1e-6)
  mixed = jnp.array([1, 2, 3, 1, 2, 3])
  found = counted(params, {}, *batch, mixed)['gradient_cosine']
  rollout, rewards, where, _ = batch
  of_1, of_k = rloo(rewards, where=where), pkpo_loo_minus_one(rewards, k=mixed, where=where)
  a, b = (_gradients(params, rollout, each).mean(axis=0) for each in (of_1, of_k))
  np.testing.assert_allclose(found, a @ b / np.sqrt((a @ a) * (b @ b)), rtol=1e-5)


class LinearPolicy(SoftmaxBandit):
  """log p(arm 1 | x) = log sigmoid(w . x): two prompts that share their parameters."""

  features = jnp.array([[1.0, 0.5], [-1.0, 0.5]])

  def log_probs_and_entropy(self, params, rollout):
    logit = (self.features @ params['w'])[rollout.prompt_tokens[:, 0]][:, None, None]
    sign = jnp.where(rollout.completions == 1, 1, -1)
    log_probs = jax.nn.log_sigmoid(sign * logit)
    return log_probs, -log_probs


def test_an_easy_and_a_hard_prompt_set_pass_at_k_against_pass_at_1():
  """12 of 16 samples are right, and 1 of 16, where both have w . x = 0, p = 1/2.

  A score is then +-x / 2. RLOO has A = (16 - c) / 15 for right samples and -c / 15 for wrong ones:
  the mean of A_i s_i is x c (16 - c) / (15 * 16). Of pass@8 only right samples have an advantage,
  16 C(16 - c, 7) / C(16, 8), here 0 for c = 12 and 8 for c = 1, whose gradient is x 8 / 32.
  """
  right = jnp.arange(16) < jnp.array([[12], [1]])
  rollout, rewards = _rollout([0, 1], right), right.astype(jnp.float32)
  easy, hard = np.array([1, 0.5]), np.array([-1, 0.5])
  of_1, of_8 = (12 * 4 * easy + 1 * 15 * hard), hard
  expected = of_1 @ of_8 / np.linalg.norm(of_1) / np.linalg.norm(of_8)
  assert expected < -0.3
  policy = LinearPolicy(SimpleNamespace(num_contexts=2, num_arms=2))
  diagnose = jax.jit(make_diagnose(policy, SETTINGS, 2))
  arguments = {'w': jnp.zeros(2)}, {}, rollout, rewards, None, rewards
  metrics = diagnose(*arguments, jnp.int32(8))
  np.testing.assert_allclose(metrics['gradient_cosine'], expected, rtol=1e-5)
  shares = [metrics[f'zero_advantage_share@{k}'] for k in ('1', 'k')]
  np.testing.assert_array_equal(shares, [0, 0.5])
  np.testing.assert_allclose(diagnose(*arguments, jnp.int32(1))['gradient_cosine'], 1, rtol=1e-6)


def test_noise_and_signal_are_unbiased():
  """Exactly, over all batches of two prompts of two contexts, each with two samples of two arms.

  The signal's expectation is the squared gradient of pass@2 itself, 1 - (1 - p)^2.
  """
  logits = jnp.array([[0.3, -0.5], [-1.0, 0.4]])
  probs = np.asarray(jax.nn.softmax(logits), np.float64)
  outcomes = list(itertools.product(range(2), range(2), range(2)))
  contexts, arms, chances = [], [], []
  for pair in itertools.product(outcomes, outcomes):
    contexts.append([context for context, _, _ in pair])
    arms.append([each[1:] for each in pair])
    chances.append(np.prod([probs[c, x] * probs[c, y] / 2 for c, x, y in pair]))
  chances = np.array(chances)
  np.testing.assert_allclose(chances.sum(), 1, rtol=1e-6)
  rewards = jnp.asarray(arms, jnp.float32)
  advantages = pkpo_loo_minus_one(rewards, k=2)
  rollouts = jax.vmap(_rollout)(jnp.array(contexts), jnp.array(arms))
  diagnose = make_diagnose(_policy(2, 2), SETTINGS, 2)
  of_batch = lambda *batch: diagnose(
    {'logits': logits}, {}, *batch[:2], None, batch[2], jnp.int32(2)
  )
  metrics = jax.jit(jax.vmap(of_batch))(rollouts, rewards, advantages)
  batches = [
    _gradients({'logits': logits}, _rollout(c, a), each).mean(axis=0)
    for c, a, each in zip(contexts, arms, advantages, strict=True)
  ]
  mean = chances @ np.array(batches)
  pass_at_2 = lambda logits: jnp.mean(1 - (1 - jax.nn.softmax(logits)[:, 1]) ** 2)
  np.testing.assert_allclose(mean, jax.grad(pass_at_2)(logits).ravel(), rtol=1e-5)
  variance = chances @ np.sum((np.array(batches) - mean) ** 2, axis=-1)
  np.testing.assert_allclose(chances @ metrics['gradient_variance'], variance, rtol=1e-5)
  np.testing.assert_allclose(chances @ metrics['gradient_signal'], mean @ mean, rtol=1e-5)
  assert np.std(metrics['gradient_variance']) > variance / 2, 'no batch says it by itself'


@pytest.mark.parametrize('num_parts', [2, 3, 4])
def test_the_variance_of_any_number_of_parts_is_unbiased(num_parts):
  """Over all parts that take one of three values."""
  values, chances = np.array([[0.0, 1.0], [2.0, -1.0], [5.0, 0.5]]), np.array([0.5, 0.3, 0.2])
  places = np.array(list(itertools.product(range(3), repeat=num_parts)))
  parts, weights = jnp.asarray(values[places]), chances[places].prod(axis=1)
  estimate = jax.vmap(lambda parts: mean_and_variance(lambda x: {'x': x}, parts))
  means, variances = estimate(parts)
  np.testing.assert_allclose(means['x'], parts.mean(axis=1), rtol=1e-6, atol=1e-6)
  mean = chances @ values
  exact = chances @ np.sum((values - mean) ** 2, axis=1) / num_parts
  np.testing.assert_allclose(weights @ variances, exact, rtol=1e-6)
  signal = np.sum(np.asarray(means['x'], np.float64) ** 2, axis=1) - variances
  np.testing.assert_allclose(weights @ signal, mean @ mean, rtol=1e-6)


def test_the_variance_survives_a_large_mean():
  """In float32 a sum of squares of 10^4, less another, has no digit left for a variance of 1."""
  parts = 1e4 + jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
  np.testing.assert_allclose(mean_and_variance(lambda x: x, parts)[1], 1 / 3, rtol=1e-3)


def test_limits_of_effective_share_and_cosine():
  ones = jnp.ones((4, 5)).at[1].set(-1)
  for scale in (1e-30, 1, 1e30):
    np.testing.assert_allclose(effective_share(scale * ones), 1, rtol=1e-6)
    one = jnp.zeros((4, 5)).at[2, 3].set(-scale)
    np.testing.assert_allclose(effective_share(one), 1 / 20, rtol=1e-6)
    tree = {'a': scale**0.5 * ones, 'b': jnp.zeros(2)}
    np.testing.assert_allclose(cosine(tree, tree), 1, rtol=1e-5)
  assert effective_share(0 * ones) == 0
  assert np.isnan(cosine(ones, 0 * ones))


EVERYTHING = {'name': 'ppo', 'kl_coef': 0.3, 'entropy_coef': 0.2, 'num_minibatches': 2}


@functools.cache
def _of_sequences(frozen=False, num_parts=4, **options):
  """Returns the metrics for ragged completions of a policy that has moved a little."""
  policy = make_policy(freeze_cell=frozen)
  params = policy.init(jax.random.key(0))
  older = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(7), x.shape), params)
  rollout, advantages = make_rollout(policy, older)
  rollout = rollout.replace(ref_log_probs=0.9 * rollout.sampling_log_probs)
  rewards = jnp.round(jax.random.uniform(jax.random.key(5), advantages.shape))
  settings = dataclasses.replace(SETTINGS, **options)
  held = {name: params.pop(name) for name in policy.frozen}
  diagnose = jax.jit(make_diagnose(policy, settings, num_parts, is_off_policy=True))
  return diagnose(params, held, rollout, rewards, None, advantages, jnp.int32(2))


@pytest.mark.parametrize(
  'options, pieces',
  [
    ({}, {'num_microbatches': 2, 'num_sample_blocks': 2, 'num_lengths': 3}),
    ({}, {'num_microbatches': 8, 'skip_without_signal': True}),
    ({'normalization': 'token', **EVERYTHING}, {'num_microbatches': 4}),
  ],
)
def test_pieces_change_nothing(options, pieces):
  whole, actual = _of_sequences(**options), _of_sequences(**options, **pieces)
  for name, value in whole.items():
    np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_kl_and_entropy_are_in_the_noise_and_not_in_the_cosine():
  plain = _of_sequences(name='ppo')
  terms = _of_sequences(name='ppo', kl_coef=0.3, entropy_coef=0.2)
  np.testing.assert_allclose(terms['gradient_cosine'], plain['gradient_cosine'], rtol=1e-5)
  assert abs(terms['gradient_variance'] / plain['gradient_variance'] - 1) > 1e-3


def test_frozen_parameters_have_no_gradient():
  plain, frozen = _of_sequences(), _of_sequences(frozen=True)
  assert 0 < frozen['gradient_variance'] < plain['gradient_variance']
  np.testing.assert_allclose(frozen['ratio_ess'], plain['ratio_ess'], rtol=1e-6)


@pytest.mark.parametrize(
  'num_prompts, num_shards, counts, expected',
  # As many parts of 8 at most, each with whole pieces that are no larger than the update's.
  [
    (64, 1, (1, 1), 8),
    (64, 8, (1, 1), 8),
    (12, 1, (1, 1), 6),
    (12, 2, (1, 1), 6),
    (12, 2, (1, 3), 6),
    (16, 1, (2, 4), 8),
    (8, 1, (1, 8), 8),
    (6, 1, (1, 3), 6),
    (11, 1, (1, 1), 1),
    (4, 4, (1, 1), 1),
  ],
)
def test_number_of_parts(num_prompts, num_shards, counts, expected):
  num_minibatches, num_microbatches = counts
  settings = dataclasses.replace(
    SETTINGS, name='ppo', num_minibatches=num_minibatches, num_microbatches=num_microbatches
  )
  assert num_parts_of(num_prompts, num_shards, settings) == expected


@pytest.fixture
def sequences(monkeypatch):
  """Makes the task 'count' and the policy 'bag' known to configs."""
  monkeypatch.setitem(TASKS, 'count', CountTask)
  monkeypatch.setitem(POLICIES, 'bag', BagPolicy)


def _mesh(*shape):
  shape = dict(zip(sharding.AXES, shape, strict=True))
  return sharding.make_mesh(MeshSettings(**shape, gather_for_sampling=False))


def test_on_several_devices_they_are_those_of_one(sequences):
  config = config_of(
    rollout__num_prompts=64, log__diagnostics_every=1, loss__num_microbatches=2, loss__num_lengths=2
  )
  run = make_run(config)
  params = run.policy.init(jax.random.key(0))
  rollout, advantages = make_rollout(run.policy, params, num_prompts=64)
  rewards = jnp.round(jax.random.uniform(jax.random.key(5), advantages.shape))
  found = [
    jit_diagnose(run, _mesh(*each))(params, {}, rollout, rewards, None, advantages, jnp.int32(2))
    for each in ((1, 1, 1), (2, 2, 2))
  ]
  for name, value in found[0].items():
    np.testing.assert_allclose(found[1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def _is_diagnostics(line):
  return '"diagnostics/' in line


@pytest.mark.parametrize(
  'overrides',
  [{'policy__freeze_cell': True}, {'loss__name': 'ppo', 'rollout__steps_ahead': 1}],
)
def test_a_run_is_the_same_with_and_without(overrides, sequences, tmp_path):
  """Bit for bit; and resumed, with the same diagnostics."""
  plain = train(config_of(**overrides), tmp_path / 'plain')
  overrides |= {'log__diagnostics_every': 2, 'checkpoint__every': 1, 'checkpoint__max_to_keep': 4}
  state = train(config_of(**overrides), tmp_path / 'run')
  jax.tree.map(np.testing.assert_array_equal, state, plain)
  lines = metrics_text(tmp_path / 'run').splitlines()
  others = [line for line in lines if not _is_diagnostics(line)]
  assert others == metrics_text(tmp_path / 'plain').splitlines()
  steps = [
    line['step'] for line in read_metrics(tmp_path / 'run') if 'diagnostics/advantage_ess' in line
  ]
  assert steps == [0, 2]
  has_ratios = [bool(re.search('ratio_ess', line)) for line in lines if _is_diagnostics(line)]
  assert has_ratios == [bool(overrides.get('rollout__steps_ahead'))] * 2
  timed = [line['step'] for line in read_metrics(tmp_path / 'run') if 'time/diagnostics_s' in line]
  assert timed == steps
  for path in (tmp_path / 'run/checkpoints').iterdir():
    if int(path.name) > 1:
      shutil.rmtree(path)
  train(config_of(**overrides), tmp_path / 'run')
  assert metrics_text(tmp_path / 'run').splitlines() == lines


def test_a_step_without_any_signal_has_no_cosine(tmp_path):
  """No sample of ten thousand arms is right."""
  config = bandit.get_config('hidden_answer')
  config.update_from_flattened_dict(
    {
      'task.num_arms': 10_000,
      'task.num_contexts': 2,
      'num_train_steps': 1,
      'rollout.num_prompts': 4,
      'rollout.num_samples': 8,
      'eval.num_prompts': 2,
      'eval.ks': (1,),
      'log.tensorboard': False,
      'log.every': 1,
      'log.diagnostics_every': 1,
    }
  )
  train(config, tmp_path)
  (line,) = [x for x in read_metrics(tmp_path) if 'diagnostics/advantage_ess' in x]
  assert line == {
    'step': 0,
    'diagnostics/advantage_ess': 0,
    'diagnostics/gradient_signal': 0,
    'diagnostics/gradient_variance': 0,
    'diagnostics/zero_advantage_share@1': 1,
    'diagnostics/zero_advantage_share@k': 1,
  }


@pytest.mark.parametrize(
  'overrides, problem',
  [
    ({'log.diagnostics_every': -1}, r'^config.log.diagnostics_every: expected 0, or .*got -1'),
    ({'log.diagnostics_every': 5}, r'^config.log.diagnostics_every: .*log.every = 10, got 5'),
    (
      {'rollout.num_samples': 1, 'advantage.k': 1, 'advantage.name': 'reinforce'},
      r'^rollout.num_samples: expected at least 2 with log.diagnostics_every > 0, got 1',
    ),
    (
      {'advantage.k': 17, 'advantage.name': 'rloo'},
      r'^advantage.k: expected at most rollout.num_samples = 16 .*got 17',
    ),
    (
      {'rollout.source': 'demonstrations'},
      r"^log.diagnostics_every: expected 0 with rollout.source 'demonstrations'.*got 10",
    ),
  ],
)
def test_what_cannot_be_diagnosed_names_the_field(overrides, problem):
  config = default.get_config()
  config.update_from_flattened_dict({'log.diagnostics_every': 10} | overrides)
  with pytest.raises(FieldError, match=problem):
    make_run(config)


def test_prompts_that_make_no_parts_name_the_field():
  config = default.get_config()
  config.update_from_flattened_dict({'log.diagnostics_every': 10, 'rollout.num_prompts': 8})
  run = make_run(config)
  check_mesh(run.settings, _mesh(4, 1, 1))
  with pytest.raises(FieldError, match=r'^rollout.num_prompts: .* 2 to 8 equal parts .*got 8'):
    check_mesh(run.settings, _mesh(8, 1, 1))

"""The advantages in other trainers: the same numbers, by the conventions of tunix, verl and TRL.

None of the three is installed here, nor torch: stand-ins call as they do.
"""

import inspect
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pkpo_jax import ADVANTAGES, schedules
from pkpo_jax.advantages import FROM_ROLLOUT
from pkpo_jax.errors import FieldError, FieldTypeError, MissingPackageError
from pkpo_jax.integrations import FlatAdvantages, trl, tunix, verl
from pkpo_jax.integrations.flat import as_numpy

ROOT = Path(__file__).parent.parent
NUM_PROMPTS, NUM_SAMPLES, K = 3, 4, 2
REWARDS = np.random.default_rng(0).integers(0, 2, (NUM_PROMPTS, NUM_SAMPLES)).astype(np.float32)
REWARDS[0] = [1, 0, 0, 1]
OF_SAMPLES = {
  'ratios': np.random.default_rng(1).uniform(0.5, 1.5, REWARDS.shape).astype(np.float32),
  'baseline_weights': np.random.default_rng(2).uniform(1, 2, REWARDS.shape).astype(np.float32),
  'answers': np.arange(NUM_PROMPTS * NUM_SAMPLES).reshape(REWARDS.shape).astype(np.int32) % 3,
  'entropy': np.repeat([[0.1], [0.5], [0.2]], NUM_SAMPLES, 1).astype(np.float32),
}


class Tensor:
  """What of a tensor of torch is used: it has a graph to be taken out of, and lies on a device."""

  def __init__(self, array, is_detached=False):
    self.array, self._is_detached, self.dtype = np.asarray(array), is_detached, 'torch.float32'

  def detach(self):
    return Tensor(self.array, True)

  def cpu(self):
    return self

  def __dlpack__(self, **options):
    assert self._is_detached
    return self.array.__dlpack__(**options)

  def __dlpack_device__(self):
    return self.array.__dlpack_device__()

  def __len__(self):
    return len(self.array)

  def __getitem__(self, index):
    return Tensor(self.array[index])

  def new_tensor(self, array):
    return Tensor(array.astype(self.array.dtype))


def expected(name, rewards=REWARDS, k=K, **options):
  return np.asarray(ADVANTAGES[name](jnp.asarray(rewards), k=k, **options))


@pytest.mark.parametrize('name', ADVANTAGES)
def test_every_advantage_of_shuffled_samples(name):
  taken = inspect.signature(ADVANTAGES[name]).parameters.keys() & FROM_ROLLOUT
  grouped = {field: OF_SAMPLES[field] for field in taken - {'key'}}
  if 'entropy' in grouped:
    grouped['entropy'] = grouped['entropy'][:, 0]
  if 'key' in taken:
    grouped['key'] = jax.random.fold_in(jax.random.key(5), 0)
  whole = expected(name, **grouped)
  order = np.random.default_rng(3).permutation(REWARDS.size)
  if 'key' in taken:  # What is drawn for a sample depends on its place.
    order = np.arange(REWARDS.size)
  ids = np.repeat(['a', 'b', 'c'], NUM_SAMPLES)
  flat = {field: OF_SAMPLES[field].ravel()[order] for field in taken - {'key'}}
  advantages = FlatAdvantages(name, k=K, seed=5)
  actual = advantages(REWARDS.ravel()[order], ids[order], **flat)
  assert actual.dtype == np.float32
  np.testing.assert_allclose(actual, whole.ravel()[order], rtol=1e-5, atol=1e-6)


def test_samples_that_nobody_judged():
  rewards = np.array([1, np.nan, 0, 0, 1, 1, 0, np.nan])
  actual = FlatAdvantages('rloo')(rewards, [0, 0, 0, 0, 1, 1, 1, 1])
  np.testing.assert_allclose(actual[:4], [1, 0, -0.5, -0.5])
  np.testing.assert_allclose(actual[4:], [0.5, 0.5, -1, 0])


def test_schedules_count_calls():
  advantages = FlatAdvantages('pkpo', k=schedules.step(4, final_k=1, at=2), calls_per_step=3)
  ks = []
  for _ in range(9):
    ks.append(advantages.k)
    advantages(REWARDS[0], np.zeros(NUM_SAMPLES))
  assert ks == [4] * 6 + [1] * 3


def test_draws_differ_between_calls():
  advantages = FlatAdvantages('passk_bootstrap', k=K)
  first, second = (advantages(REWARDS.ravel(), np.repeat(range(3), 4)) for _ in range(2))
  assert not np.array_equal(first, second)
  again = FlatAdvantages('passk_bootstrap', k=K)(REWARDS.ravel(), np.repeat(range(3), 4))
  np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
  'call, expected',
  [
    (lambda: FlatAdvantages('ppo'), 'name: expected one of'),
    (lambda: FlatAdvantages('rs_grpo', bta=2.0), 'bta: unknown field .did you mean beta'),
    (lambda: FlatAdvantages('rloo', where=1), 'where: unknown field'),
    (lambda: FlatAdvantages('pkpo', k=schedules.by_pass_rate(4)), 'k: expected a schedule of the'),
    (lambda: FlatAdvantages('pkpo', calls_per_step=0), 'calls_per_step: expected at least 1'),
    (lambda: FlatAdvantages('rloo')(REWARDS, range(12)), 'rewards: expected shape'),
    (lambda: FlatAdvantages('rloo')([], []), 'rewards: expected shape'),
    (lambda: FlatAdvantages('rloo')(REWARDS[0], [0, 1]), 'group_ids: expected 4 entries, got 2'),
    (
      lambda: FlatAdvantages('pkpo', k=5)(REWARDS[0], [0] * 4),
      'k: expected 1 <= k <= n = 4, got 5',
    ),
    (lambda: FlatAdvantages('maj_at_k', k=2)(REWARDS[0], [0] * 4), "answers: expected .'answers'."),
    (
      lambda: FlatAdvantages('rloo')(REWARDS[0], [0] * 4, ratios=REWARDS[0]),
      'ratios: expected nothing with rloo',
    ),
    (
      lambda: FlatAdvantages('max_at_k_off_policy')(REWARDS[0], [0] * 4, ratios=REWARDS),
      r'ratios: expected shape \(4,\)',
    ),
    (
      lambda: tunix.make_estimator(FlatAdvantages('rloo'))(REWARDS.ravel(), num_generations=5),
      r'num_generations = 5',
    ),
    (
      lambda: verl.make_estimator(FlatAdvantages('rloo'))(REWARDS, REWARDS),
      'index: expected the id of each prompt',
    ),
    (
      lambda: trl.flat_advantages(FlatAdvantages('rloo'), np.ones((7, 1)), np.ones(1), 4),
      'rewards: expected a multiple of num_generations = 4',
    ),
  ],
)
def test_what_is_refused(call, expected):
  with pytest.raises(FieldError, match=expected):
    call()


def test_arrays_of_others():
  values = np.arange(3, dtype=np.float32)
  for each in (values, values.tolist(), jnp.asarray(values), Tensor(values)):
    np.testing.assert_array_equal(as_numpy(each), values)


def test_tunix():
  estimator = tunix.make_estimator(FlatAdvantages('pkpo_loo_minus_one', k=K))
  actual = estimator(rewards=REWARDS.ravel(), num_generations=NUM_SAMPLES)
  np.testing.assert_allclose(actual, expected('pkpo_loo_minus_one').ravel(), rtol=1e-5)


def test_tunix_is_told(monkeypatch):
  known = {}
  registry = types.SimpleNamespace(
    register_advantage_estimator=lambda name: lambda fn: known.setdefault(name, fn)
  )
  monkeypatch.setitem(sys.modules, 'tunix', types.ModuleType('tunix'))
  monkeypatch.setitem(sys.modules, 'tunix.rl', types.SimpleNamespace(function_registry=registry))
  name = tunix.register('rs_grpo', beta=2.0)
  actual = known[name](rewards=REWARDS.ravel(), num_generations=NUM_SAMPLES)
  np.testing.assert_allclose(actual, expected('rs_grpo', beta=2.0).ravel(), rtol=1e-5)


LENGTHS = np.array([1, 3, 2, 3] * NUM_PROMPTS)
MASK = (np.arange(3) < LENGTHS[:, None]).astype(np.int64)


@pytest.mark.parametrize('kind', [np.asarray, Tensor])
def test_verl(kind):
  """The reward of a sample stands at its last token; ids are objects, in any order."""
  at_the_end = np.zeros(MASK.shape, np.float32)
  at_the_end[np.arange(len(LENGTHS)), LENGTHS - 1] = REWARDS.T.ravel()
  ids = np.tile(np.array(['x', 'y', 'z'], object), NUM_SAMPLES)
  estimator = verl.make_estimator(FlatAdvantages('pkpo_loo_minus_one', k=K))
  advantages, returns = estimator(
    token_level_rewards=kind(at_the_end), response_mask=kind(MASK), index=ids, config=None
  )
  assert type(advantages) is type(kind(at_the_end)) and returns is advantages
  whole = expected('pkpo_loo_minus_one').T.ravel()
  actual = advantages.array if kind is Tensor else advantages
  np.testing.assert_allclose(actual, whole[:, None] * MASK, rtol=1e-5)
  assert actual.dtype == np.float32


def test_verl_is_told(monkeypatch):
  known = {'grpo': None}

  def register_adv_est(name):
    def register(fn):
      if name in known:
        raise ValueError(f'{name} has already been registered')
      known[name] = fn

    return register

  algos = types.SimpleNamespace(core_algos=types.SimpleNamespace(register_adv_est=register_adv_est))
  monkeypatch.setitem(sys.modules, 'verl', types.ModuleType('verl'))
  monkeypatch.setitem(sys.modules, 'verl.trainer', types.ModuleType('verl.trainer'))
  monkeypatch.setitem(sys.modules, 'verl.trainer.ppo', algos)
  verl.register('pkpo', k=K)
  assert callable(known['pkpo'])
  with pytest.raises(FieldError, match="name: expected one that verl does not have, got 'grpo'"):
    verl.register('grpo')


@pytest.mark.parametrize('module', [tunix, verl])
def test_a_library_that_is_not_there(monkeypatch, module):
  name = module.__name__.rpartition('.')[2]
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(MissingPackageError, match=f'{name} cannot be imported'):
    module.register('pkpo', k=K)


class GrpoTrainer:
  """Two processes' worth of rewards; calls as TRL's trainer does."""

  def __init__(self, process_index, is_training=True):
    self.model = types.SimpleNamespace(training=is_training)
    self.accelerator = types.SimpleNamespace(process_index=process_index)
    self.reward_weights, self.num_generations = Tensor(np.array([1.0, 0.5])), NUM_SAMPLES

  def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
    return Tensor(inputs)

  def _generate_and_score_completions(self, inputs):
    self._calculate_rewards(inputs, None, None, None)
    return {'advantages': Tensor(np.full(len(inputs) // 2, 7, np.float32)), 'other': 1}


def test_trl():
  rewards = np.random.default_rng(4).integers(0, 2, (4 * NUM_SAMPLES, 2)).astype(np.float32)
  rewards[1, 0] = np.nan  # One function has not judged it,
  rewards[2] = np.nan  # none has judged this one.
  summed = np.nan_to_num(rewards) @ [1.0, 0.5]
  where = np.arange(len(summed)) != 2
  shape = (4, NUM_SAMPLES)
  whole = expected('rloo', summed.reshape(shape), where=jnp.asarray(where.reshape(shape))).ravel()
  trainer_class = trl.with_advantages(GrpoTrainer, FlatAdvantages('rloo', k=K))
  assert issubclass(trainer_class, GrpoTrainer)
  for process_index in range(2):
    output = trainer_class(process_index)._generate_and_score_completions(rewards)
    here = slice(8 * process_index, 8 * (process_index + 1))
    np.testing.assert_allclose(output['advantages'].array, whole[here], rtol=1e-5, atol=1e-6)
    assert output['other'] == 1
  output = trainer_class(0, is_training=False)._generate_and_score_completions(rewards)
  assert (output['advantages'].array == 7).all()


def test_trl_of_another_kind():
  with pytest.raises(FieldTypeError, match='trainer: expected a GRPOTrainer, but .* has no _calc'):
    trl.with_advantages(object, FlatAdvantages('rloo'))


def test_they_need_jax_alone():
  """In a fresh interpreter, in which what only the trainer needs cannot be imported."""
  program = """
import sys
for name in ('flax', 'optax', 'ml_collections', 'absl', 'orbax', 'torch', 'tunix', 'verl', 'trl'):
  sys.modules[name] = None
from pkpo_jax.integrations import FlatAdvantages, trl, tunix, verl
print(FlatAdvantages('pkpo', k=1)([1.0, 0.0], ['a', 'a']))
"""
  run = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert run.stdout.split() == ['[1.', '0.]']

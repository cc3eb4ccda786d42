"""Gemma-2 through the same train.py as the bandit: it learns, resumes and runs on many devices."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from gemma import gm

from configs import gemma2_tiny
from pkpo_jax.keys import run_keys
from pkpo_jax.metrics import read_metrics
from pkpo_jax.models import gemma
from pkpo_jax.run import make_run
from pkpo_jax.train import train
from tests.gemma_cases import SMALL, make_model, name_preset, random_params


@pytest.fixture(autouse=True, scope='module')
def small_preset():
  """The characters' tokenizer has 128 tokens."""
  with pytest.MonkeyPatch.context() as patch:
    name_preset(patch, dataclasses.replace(SMALL, num_embed=128))
    yield


def _config(**overrides):
  config = gemma2_tiny.get_config()
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'num_train_steps': 4,
        'policy.preset': 'small',
        'rollout.num_prompts': 8,
        'rollout.num_samples': 4,
        'advantage.k': 2,
        'eval.every': 10,
        'eval.ks': (1, 2),
        'eval.num_prompts': 8,
        'eval.num_samples': 4,
        'log.every': 1,
        'log.tensorboard': False,
        'loss.entropy_coef': 0.1,  # So that there is a gradient without reward, too.
        **overrides,
      }
    )
  return config


def _metrics(workdir):
  """Returns the lines of metrics but for how long things took."""
  lines = [line.items() for line in read_metrics(workdir)]
  return [{name: x for name, x in line if not name.startswith('time/')} for line in lines]


def _train_metrics(workdir):
  return [line for line in _metrics(workdir) if 'train/loss' in line]


def test_it_learns_to_copy(tmp_path):
  """From random weights, by nothing but rewards.

  Two letters of three, by the smallest preset. The share of right characters was below 0.02 at
  first, and over the seeds 0 to 9 after 80 steps it was 0.51 on average, 0.26 at least.
  """
  config = gemma2_tiny.get_config()
  config.update_from_flattened_dict(
    {
      'num_train_steps': 80,
      'task.num_letters': 2,
      'task.alphabet_size': 3,
      'policy.preset': 'gemma2_micro',
      'policy.max_new_tokens': 3,
      'rollout.num_prompts': 8,
      'optimizer.learning_rate': 5e-3,
      'eval.every': 80,
      'eval.ks': (1, 4),
      'eval.num_prompts': 32,
      'eval.num_samples': 4,
      'checkpoint.every': 80,
      'log.tensorboard': False,
    }
  )
  train(config, tmp_path)
  before, after = [line for line in read_metrics(tmp_path) if 'eval/max@1' in line]
  assert before['eval/max@1'] < 0.02
  assert after['eval/max@1'] > 0.2


# By plain gradient descent, as Adam turns the rounding of a gradient of 0 into whole steps. Chunks
# and microbatches loop over split parameters.
ON_DEVICES = {
  'num_train_steps': 3,
  'rollout.num_prompts': 16,
  'optimizer.name': 'sgd',
  'optimizer.learning_rate': 0.1,
  'policy.log_prob_chunk': 2,
  'loss.num_microbatches': 2,
  'loss.num_sample_blocks': 2,
  'loss.num_lengths': 2,
  'policy.remat': True,
}


@pytest.fixture(scope='module')
def on_one_device(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('one')
  return train(_config(**ON_DEVICES), workdir), _metrics(workdir)


@pytest.mark.parametrize('mesh', [(8, 1, 1), (2, 2, 2)])
def test_devices_agree_step_by_step(mesh, on_one_device, tmp_path):
  """Samples are discrete: equal ones at every step, so everything else to rounding."""
  one_state, one = on_one_device
  axes = dict(zip(('mesh.data', 'mesh.fsdp', 'mesh.tensor'), mesh, strict=True))
  state = train(_config(**ON_DEVICES, **axes), tmp_path)
  many = _metrics(tmp_path)
  assert len(one) == len(many) == 5
  assert any(line.get('train/zero_advantage_share', 1) < 1 for line in one)
  for line, other in zip(one, many, strict=True):
    assert line.keys() == other.keys()
    for name, value in line.items():
      np.testing.assert_allclose(other[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, one_state)
  # Matrices are split over fsdp and tensor, norms are whole everywhere.
  num_parts = {True: mesh[1] * mesh[2], False: 1}
  expected = sum(leaf.nbytes // num_parts[leaf.ndim > 1] for leaf in jax.tree.leaves(state.params))
  for device in jax.devices():
    shards = [s for leaf in jax.tree.leaves(state.params) for s in leaf.addressable_shards]
    assert sum(s.data.nbytes for s in shards if s.device == device) == expected


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
  config = _config(**{'checkpoint.every': 2, 'loss.kl_coef': 0.1, 'optimizer.decay': 'constant'})
  state = train(config, tmp_path / 'whole')
  for steps in (2, 4):
    config.num_train_steps = steps
    (tmp_path / 'parts' / 'config.json').unlink(missing_ok=True)  # It names the number of steps.
    resumed = train(config, tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, resumed, state)
  whole, parts = (_train_metrics(tmp_path / name) for name in ('whole', 'parts'))
  assert [json.dumps(line) for line in parts] == [json.dumps(line) for line in whole]
  assert whole[0]['train/kl'] == pytest.approx(0, abs=1e-6)
  assert all(line['train/kl'] > 1e-6 for line in whole[1:])


def test_under_lora_only_adapters_are_trained_and_saved(tmp_path):
  config = _config(**{'policy.lora_rank': 2, 'checkpoint.every': 2})
  state = train(config, tmp_path)
  assert set(state.params) == {'adapters'}
  initial = make_run(config).policy.init(jax.random.key(0))['adapters']
  changed = [
    np.any(np.asarray(leaf) != 0) and path[-1].key == 'b'
    for path, leaf in jax.tree.leaves_with_path(state.params['adapters'])
  ]
  assert sum(changed) == len(changed) / 2, 'all b were zero at first'
  assert jax.tree.structure(initial) == jax.tree.structure(state.params['adapters'])
  with ocp.CheckpointManager(tmp_path / 'checkpoints') as manager:
    items = ('params', 'optimizer')
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore() for item in items})
    saved = dict(manager.restore(4, args=args).items())
  names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(saved)]
  assert any('adapters' in name for name in names)
  assert not any('weights' in name for name in names)


def test_a_frozen_embedding_is_neither_trained_nor_saved(tmp_path):
  """Of another family, resumed: the table is that of the start, the head of its own learns."""
  config = _config(**{'policy.preset': 'llama_micro', 'policy.freeze_embedding': True})
  config.num_train_steps, config.checkpoint.every = 2, 1
  train(config, tmp_path / 'run')
  config.num_train_steps = 3
  (tmp_path / 'run' / 'config.json').unlink()
  state = train(config, tmp_path / 'run')
  assert set(state.params) == {'weights'}
  assert set(state.params['weights']) == {'final_norm', 'head', 'layer_0', 'layer_1'}
  policy = make_run(config).policy
  initial = policy.init(run_keys(jax.random.key(config.seed)).init)
  table = lambda tree: tree['head']['output_embedding']
  assert np.any(table(state.params['weights']) != table(initial['weights']))


def test_bfloat16_with_float32_masters(tmp_path):
  state = train(_config(**{'policy.dtype': 'bfloat16', 'policy.remat': True}), tmp_path)
  matrices = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1]
  assert {leaf.dtype for leaf in matrices} == {jnp.dtype(jnp.bfloat16)}
  masters = jax.tree.leaves(state.opt_state.master)
  assert {leaf.dtype for leaf in masters} == {jnp.dtype(jnp.float32)}
  for master, param in zip(masters, matrices, strict=True):
    np.testing.assert_array_equal(master.astype(jnp.bfloat16), param)
  # The sampler decodes token by token, the trainer sees all at once: other roundings.
  assert all(1e-6 < line['train/log_ratio_max'] < 0.2 for line in _train_metrics(tmp_path))


def test_a_run_starts_from_released_weights(tmp_path):
  """Written by the gemma library; a step size of next to nothing leaves them as they are."""
  weights = random_params(make_model(gemma.PRESETS['small']))['weights']
  gm.ckpts.save_params(weights, tmp_path / 'released', wait_until_finished=True)
  config = _config(
    **{
      'policy.weights': str(tmp_path / 'released'),
      'optimizer.learning_rate': 1e-12,
      'num_train_steps': 1,
      'mesh.fsdp': 2,
    }
  )
  state = train(config, tmp_path / 'run')
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), state.params['weights'], weights
  )


@pytest.mark.parametrize('field, value', [('top_k', 5), ('top_p', 0.9), ('temperature', 0.0)])
def test_truncated_sampling_is_for_evaluation_only(field, value):
  with pytest.raises(ValueError, match='policy: expected one that samples from the very distrib'):
    make_run(_config(**{f'policy.{field}': value}))
  run = make_run(_config(**{f'eval.policy.{field}': value}))
  assert run.policy.samples_exactly and not run.eval_policy.samples_exactly


def test_evaluation_changes_only_how_is_sampled():
  config = _config()
  with config.unlocked():
    config.eval.policy.weights = 'elsewhere'
  with pytest.raises(ValueError, match="eval.policy: expected some of .*'top_p'.*elsewhere"):
    make_run(config)

"""Every architecture computes the logits of transformers, and its weights go there and back."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gemma import gm
from safetensors.numpy import load_file, save_file

from benchmarks.parity import FIXTURES, differences, load
from pkpo_jax.models import architecture_of
from pkpo_jax.models.decoder import RopeScaling
from pkpo_jax.models.lora import Lora
from pkpo_jax.models.recipes import LINEAR
from pkpo_jax.models.transformer import Transformer

VARIANTS = ['gemma2', 'gemma3_text', 'llama', 'llama_tied', 'qwen2', 'qwen3']
GLOBAL = gm.nn.AttentionType.GLOBAL


@pytest.fixture(scope='module')
def loaded():
  """Returns (model, parameters, golden tokens and logits) of each variant."""
  return {
    name: (*load(FIXTURES / name), load_file(FIXTURES / name / 'golden.safetensors'))
    for name in VARIANTS
  }


@pytest.mark.parametrize('variant', VARIANTS)
def test_logits_are_those_of_transformers(variant, loaded):
  """As one prompt with padding, as a prompt with completions, and token by token."""
  model, params, golden = loaded[variant]
  assert golden['tokens'].shape[1] > 2 * max(window or 0 for window in model.windows)
  assert not golden['mask'].all()
  assert np.abs(golden['logits']).max() > 3
  found = differences(model, params, golden)
  assert found.keys() == {'whole', 'group', 'cache'}
  assert max(found.values()) < 1e-4


WRONG = {
  'window': ('gemma2', dict(sliding_window_size=9)),
  'attention_cap': ('gemma2', dict(attn_logits_soft_cap=None)),
  'final_cap': ('gemma2', dict(final_logit_softcap=None)),
  'global_first': ('gemma2', dict(attention_types=(GLOBAL, GLOBAL))),
  'global_scale': ('gemma3_text', dict(global_scale_factor=1.0)),
  'local_base': ('gemma3_text', dict(local_base_frequency=1e6)),
  'no_scaling': ('llama', dict(rope_scaling=None)),
  'scaling_by_7': (
    'llama',
    dict(rope_scaling=RopeScaling(factor=7.0, low=1.0, high=4.0, original_length=16)),
  ),
  'rope_base': ('llama_tied', dict(rope_theta=20_000.0)),
  'qwen2_window': ('qwen2', dict(windows=(None, 9))),
  'norm_eps': ('qwen3', dict(norm_eps=0.1)),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_parity_sees_a_wrong_model(wrong, loaded):
  variant, fields = WRONG[wrong]
  model, params, golden = loaded[variant]
  family = type(model.architecture)
  other = Transformer(family(dataclasses.replace(model.architecture.config, **fields)))
  tokens, mask = jnp.asarray(golden['tokens']), jnp.asarray(golden['mask'])
  positions = other.prompt_positions(mask)[:, None]
  hidden, _ = other(params, tokens[:, None], positions)
  logits = other.logits(params, hidden)[:, 0]
  assert np.abs(logits - golden['logits'])[golden['mask']].max() > 0.01


def _as_stored(model, weights):
  """Returns parameters as the tensors that Hugging Face has."""
  tensors = {}
  for path, leaf in jax.tree.leaves_with_path(weights):
    recipe = model.architecture.recipe(jax.tree_util.keystr(path, simple=True, separator='/'))
    tensors |= dict(zip(recipe.names, recipe.split(leaf), strict=True))
  return tensors


@pytest.mark.parametrize('variant', VARIANTS)
def test_recipes_give_back_what_was_stored(variant, loaded):
  """Every tensor of the file, bit for bit; and once more into the same parameters."""
  model, params, _ = loaded[variant]
  stored = load_file(FIXTURES / variant / 'model.safetensors')
  for path, leaf in jax.tree.leaves_with_path(params['weights']):
    recipe = model.architecture.recipe(jax.tree_util.keystr(path, simple=True, separator='/'))
    parts = recipe.split(np.asarray(leaf))
    assert [part.shape for part in parts] == [recipe.shape] * len(recipe.names)
    np.testing.assert_array_equal(recipe.join(parts), leaf)
  found = _as_stored(model, params['weights'])
  assert found.keys() == stored.keys()
  for name, tensor in stored.items():
    np.testing.assert_array_equal(found[name], tensor.astype(np.float32))


@pytest.mark.parametrize(
  ('of_text', 'of_images'),
  [
    ('language_model.', ('vision_tower.', 'multi_modal_projector.')),
    ('model.language_model.', ('model.vision_tower.', 'model.multi_modal_projector.')),
  ],
)
def test_a_gemma3_of_images_gives_its_text_model(of_text, of_images, loaded, tmp_path):
  """By the names of old and of new files."""
  _, params, _ = loaded['gemma3_text']
  source = FIXTURES / 'gemma3_text'
  tensors = {}
  for name, tensor in load_file(source / 'model.safetensors').items():
    inner = name if of_text == 'language_model.' else name.removeprefix('model.')
    tensors[of_text + inner] = tensor
  for prefix in of_images:
    tensors[f'{prefix}weight'] = np.ones((3, 2), np.float32)
  save_file(tensors, tmp_path / 'model.safetensors')
  text = json.loads((source / 'config.json').read_text())
  config = {'model_type': 'gemma3', 'text_config': text, 'vision_config': {'hidden_size': 2}}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  model, found = load(tmp_path)
  assert model.architecture.fields == loaded['gemma3_text'][0].architecture.fields
  jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize('preset', ['gemma3_micro', 'llama_micro'])
def test_adapters_added_into_the_weights_are_the_same_function(preset):
  """With alpha, on some of the matrices, and beside a frozen embedding."""
  lora = Lora(rank=2, alpha=6.0, targets=('q', 'v', 'o', 'gate', 'down'))
  model = Transformer(architecture_of(preset, None), lora=lora, freeze_embedding=True)
  params = model.init(jax.random.key(0))
  assert params.keys() == {'weights', 'embedding', 'adapters'}
  assert model.frozen == {'weights', 'embedding'}
  for of_layer in params['adapters'].values():
    assert of_layer.keys() == set(lora.targets)
  noise = lambda x: 0.1 * jax.random.normal(jax.random.key(x.size), x.shape)
  tokens = jnp.arange(1, 9)[None, None]
  run = jax.jit(lambda params: model(params, tokens, tokens - 1)[0])
  before = run(params)
  params['adapters'] = jax.tree.map(noise, params['adapters'])
  merged = model.merge(params)
  assert merged.keys() == {'weights'}
  np.testing.assert_allclose(run(merged), run(params), atol=1e-4)
  assert np.abs(run(params) - before).max() > 0.1
  # What was stored has changed by alpha / rank = 3 times A B, where there is an adapter.
  old, new = (_as_stored(model, model.weights(x)) for x in (params, merged))
  num_changed = 0
  for name, tensor in old.items():
    *_, layer, _, target, _ = ('', '', *name.split('.'))
    factors = params['adapters'].get(f'layer_{layer}', {}).get(target.removesuffix('_proj'))
    num_changed += factors is not None
    update = 0 if factors is None else 3 * (factors['a'] @ factors['b']).T
    np.testing.assert_allclose(new[name], tensor + update, atol=1e-6)
  assert num_changed == 2 * 5


def test_adapters_can_be_on_every_matrix_of_every_family(loaded):
  for model, params, _ in loaded.values():
    lora = Lora(1, 1.0, tuple(LINEAR))
    adapters = lora.init(jax.random.key(0), len(model.windows), model.architecture.linear_sizes)
    stored = _as_stored(model, params['weights'])
    updates = lora.updates(adapters)
    assert len(updates) == 7 * len(model.windows)
    assert all(update().shape == stored[name].shape for name, update in updates.items())

"""The model over groups is the gemma library's, whichever way prompts and caches are cut."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gemma import gm

from pkpo_jax import models
from pkpo_jax.models import gemma
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies.language_model import chunked_log_probs_and_entropy, completion_hidden
from tests.gemma_cases import ARCHITECTURES, SMALL, library_logits, make_model, random_params

LIBRARY = {
  'gemma2_2b': gm.nn.Gemma2_2B,
  'gemma2_9b': gm.nn.Gemma2_9B,
  'gemma2_27b': gm.nn.Gemma2_27B,
  'gemma3_270m': gm.nn.Gemma3_270M,
  'gemma3_1b': gm.nn.Gemma3_1B,
  'gemma3_27b': functools.partial(gm.nn.Gemma3_27B, text_only=True),
}


def _shapes(tree):
  return jax.tree.map(lambda x: x.shape, tree)


def _tokens(*shape, seed=0):
  return jax.random.randint(jax.random.key(seed), shape, 1, SMALL.num_embed)


@functools.partial(jax.jit, static_argnums=0)
def _completion_logits(model, params, prompts, completions, prompt_mask=None):
  mask = prompts != 0 if prompt_mask is None else prompt_mask
  hidden = completion_hidden(model, params, prompts, mask, completions)
  return model.logits(params, hidden)


@pytest.mark.parametrize('name', LIBRARY)
def test_released_sizes_have_the_librarys_parameters(name):
  ours = jax.eval_shape(make_model(gemma.PRESETS[name]).init, jax.random.key(0))
  library = LIBRARY[name]()
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  theirs = jax.eval_shape(library.init, jax.random.key(0), tokens)['params']
  assert _shapes(ours['weights']) == _shapes(theirs)


@pytest.mark.parametrize(('name', 'size'), [('gemma2_micro', 131_648), ('gemma2_tiny', 1_001_600)])
def test_a_small_preset_has_what_the_real_ones_have(name, size):
  """Embeddings, and in a layer queries, keys and values, output, gates, hidden units and norms."""
  tiny, real = gemma.PRESETS[name], gemma.PRESETS['gemma2_2b']
  params = jax.eval_shape(make_model(tiny).init, jax.random.key(0))
  width, heads = tiny.embed_dim, 2 * (tiny.num_heads + tiny.num_kv_heads) * tiny.head_dim
  layer = width * (heads + 3 * tiny.hidden_dim + 4)
  counted = width * (tiny.num_embed + 1) + tiny.num_layers * layer
  assert sum(x.size for x in jax.tree.leaves(params)) == counted == size
  for field in ('attn_logits_soft_cap', 'final_logit_softcap', 'query_pre_attn_norm'):
    assert getattr(tiny, field) == getattr(real, field)
  assert tiny.use_post_attn_norm and tiny.use_post_ffw_norm
  assert 1 < tiny.num_kv_heads < tiny.num_heads
  assert tiny.attention_types == real.attention_types[: tiny.num_layers]


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_logits_are_the_librarys(architecture):
  """With the prompt read once and its completions on it, past the window, at every split."""
  config = ARCHITECTURES[architecture]
  model = make_model(config)
  params = random_params(model)
  rows = _tokens(6, 17)
  expected = np.asarray(library_logits(config, params['weights'], rows))
  assert np.abs(expected).max() > 0.9 * config.final_logit_softcap
  for split in (1, 9, 16):
    # Three prompts, two completions each: rows of a group start alike.
    tokens = rows.at[1::2, :split].set(rows[::2, :split])
    expected = np.asarray(library_logits(config, params['weights'], tokens))
    groups = tokens.reshape(3, 2, 17)
    logits = _completion_logits(model, params, groups[:, 0, :split], groups[:, :, split:])
    np.testing.assert_allclose(logits, expected[:, split - 1 : -1].reshape(logits.shape), atol=1e-5)


def test_padding_on_the_left_changes_nothing():
  model = make_model(SMALL)
  params = random_params(model)
  prompts, completions = _tokens(2, 7), _tokens(2, 3, 9, seed=1)
  expected = _completion_logits(model, params, prompts, completions)
  for width, pad in ((1, 0), (20, 0), (20, 9)):
    widths = ((0, 0), (width, 0))
    padded = jnp.pad(prompts, widths, constant_values=pad)
    mask = jnp.pad(jnp.ones(prompts.shape, bool), widths)
    logits = _completion_logits(model, params, padded, completions, mask)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_decoding_with_a_cache_is_the_full_forward_pass():
  """Eleven tokens go twice round the cache of a local layer, which has five slots."""
  model = make_model(SMALL)
  params = random_params(model)
  prompts, completions = _tokens(2, 7).at[0, :4].set(0), _tokens(2, 3, 12, seed=1)
  expected = _completion_logits(model, params, prompts, completions)
  positions = model.prompt_positions(prompts != 0)
  _, key_values = model(params, prompts[:, None], positions[:, None])
  memory = model.prompt_memory(key_values)
  cache = model.empty_cache(2, 3, 11)
  assert [layer.positions.shape[-1] for layer in cache] == [5, 11]
  assert [layer.positions.shape[-1] for layer in memory] == [5, 7]
  step = jax.jit(model.__call__)
  for t in range(11):
    position = jnp.broadcast_to(positions[:, -1:, None] + 1 + t, (2, 3, 1))
    hidden, cache = step(params, completions[..., t : t + 1], position, memory, cache, jnp.int32(t))
    logits = model.logits(params, hidden[:, :, 0])
    np.testing.assert_allclose(logits, expected[:, :, t + 1], atol=1e-5)


def test_tokens_beyond_the_vocabulary_have_no_probability():
  """The released tables have 128 rows more than the tokenizer has tokens."""
  model = make_model(SMALL, vocab_size=20)
  params = random_params(model)
  logits = _completion_logits(model, params, _tokens(2, 7), _tokens(2, 3, 9))
  whole = _completion_logits(make_model(SMALL), params, _tokens(2, 7), _tokens(2, 3, 9))
  np.testing.assert_allclose(logits[..., :20], whole[..., :20], atol=1e-5)
  np.testing.assert_array_equal(jax.nn.softmax(logits)[..., 20:], 0)


def _loss(model, params, prompts, completions, chunk=4):
  log_probs, entropy = chunked_log_probs_and_entropy(
    completion_hidden(model, params, prompts, prompts != 0, completions),
    completions,
    lambda hidden: model.logits(params, hidden),
    chunk,
  )
  return jnp.mean(log_probs) + 0.1 * jnp.mean(entropy)


def test_rematerialisation_gives_the_same_gradient_in_less_memory():
  """Peak memory from the compiler, for more layers than the tests' model has."""
  config = dataclasses.replace(SMALL, attention_types=SMALL.attention_types * 3)
  plain, remat = make_model(config), make_model(config, remat=True)
  params = random_params(plain)
  prompts, completions = _tokens(2, 7), _tokens(2, 4, 40, seed=1)
  results, peaks = [], []
  for model in (plain, remat):
    fn = lambda params, model=model: _loss(model, params, prompts, completions)
    compiled = jax.jit(jax.value_and_grad(fn)).lower(params).compile()
    results.append(compiled(params))
    peaks.append(compiled.memory_analysis().temp_size_in_bytes)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)
  assert peaks[1] < 0.5 * peaks[0]


@pytest.mark.parametrize('chunk', [1, 4, 10, 100])
def test_chunked_log_probs_are_those_of_all_logits_at_once(chunk):
  model = make_model(SMALL)
  params = random_params(model)
  hidden, tokens = jax.random.normal(jax.random.key(0), (2, 3, 10, 32)), _tokens(2, 3, 10)
  weight = jax.random.normal(jax.random.key(1), (2, 2, 3, 10))

  def naive(params, hidden):
    log_probs = jax.nn.log_softmax(model.logits(params, hidden) / 0.7)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.take_along_axis(log_probs, tokens[..., None], -1)[..., 0], entropy

  def chunked(params, hidden):
    logits_fn = lambda hidden: model.logits(params, hidden) / 0.7
    return chunked_log_probs_and_entropy(hidden, tokens, logits_fn, chunk)

  np.testing.assert_allclose(chunked(params, hidden), naive(params, hidden), atol=1e-5)
  total = lambda fn: lambda *inputs: jnp.sum(weight * jnp.stack(fn(*inputs)))
  grads = [jax.jit(jax.grad(total(fn), argnums=(0, 1)))(params, hidden) for fn in (chunked, naive)]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *grads)


def test_chunked_log_probs_never_hold_all_logits():
  hidden = jax.ShapeDtypeStruct((2, 8, 64, 16), jnp.float32)
  tokens = jax.ShapeDtypeStruct((2, 8, 64), jnp.int32)
  table = jax.ShapeDtypeStruct((5000, 16), jnp.float32)

  def total(table, hidden, tokens):
    logits_fn = lambda hidden: jnp.einsum('...d,vd->...v', hidden, table)
    log_probs, entropy = chunked_log_probs_and_entropy(hidden, tokens, logits_fn, 4)
    return jnp.sum(log_probs + entropy)

  compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(table, hidden, tokens).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 2 * 8 * 64 * 5000 * 4


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_adapters_added_into_the_weights_are_the_same_function(architecture):
  model = make_model(ARCHITECTURES[architecture], lora_rank=3)
  params = random_params(model)
  prompts, completions = _tokens(2, 7), _tokens(2, 3, 9)
  apart = _completion_logits(model, params, prompts, completions)
  merged = model.merge(params)
  assert set(merged) == {'weights'}
  together = _completion_logits(model, merged, prompts, completions)
  np.testing.assert_allclose(together, apart, atol=1e-4)
  without = _completion_logits(model, {'weights': params['weights']}, prompts, completions)
  assert np.abs(without - apart).max() > 0.1


def test_fresh_adapters_change_nothing_and_every_matrix_has_one():
  model = make_model(SMALL, lora_rank=2)
  params = model.init(jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, model.merge(params)['weights'], params['weights'])
  # q, k, v, output, gate, up, down in each of two layers, two factors each.
  assert len(jax.tree.leaves(params['adapters'])) == 2 * 7 * 2
  plain = make_model(SMALL).init(jax.random.key(0))
  assert _shapes(params['weights']) == _shapes(plain['weights'])


def test_bfloat16():
  """Matrices and activations are half precision; norms' scales and logits are float32."""
  model, exact = make_model(SMALL, dtype=jnp.bfloat16), make_model(SMALL)
  params = random_params(model)
  for leaf in jax.tree.leaves(params):
    assert leaf.dtype == (jnp.bfloat16 if leaf.ndim > 1 else jnp.float32)
  widened = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  prompts, completions = _tokens(2, 7), _tokens(2, 3, 9)
  logits = _completion_logits(model, params, prompts, completions)
  assert logits.dtype == jnp.float32
  difference = logits - _completion_logits(exact, widened, prompts, completions)
  assert 1e-4 < np.sqrt(np.mean(difference**2)) < 0.1


@pytest.mark.parametrize('name', models.PRESETS)
def test_every_matrix_has_a_place_on_the_mesh(name):
  """All but norms match one rule, of their rank, and the axes divide evenly over 2 x 2."""
  model = Transformer(models.architecture_of(name, None))
  params = jax.eval_shape(model.init, jax.random.key(0))
  has_one_kv_head = model.architecture.num_kv_heads == 1
  for path, leaf in jax.tree.leaves_with_path(params):
    path = jax.tree_util.keystr(path, simple=True, separator='/')
    specs = [spec for rule, spec in model.partition_rules if re.search(f'{rule}$', path)]
    assert len(specs) == (0 if path.endswith('scale') else 1), path
    for spec in specs:
      assert len(spec) == leaf.ndim
      split = {'fsdp'} if has_one_kv_head and 'kv_einsum' in path else {'fsdp', 'tensor'}
      split &= {'tensor'} if path.endswith('bias') else split  # Of one axis, and small.
      assert split == set(spec) - {None}
      for size, axis in zip(leaf.shape, spec, strict=True):
        assert axis is None or size % 2 == 0

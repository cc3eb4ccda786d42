"""Gemma-2 and Gemma-3 through the gemma library's own modules.

The only importer of `gemma`, which takes a second or two: nothing else imports this module at its
top. Parameters are those of the library, so released weights load unchanged.
"""

import dataclasses
from typing import Any, override

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from gemma import gm
from gemma.gm import math as gm_math
from jax.sharding import PartitionSpec

from pkpo_jax.models import gemma_library, recipes
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.attention import capped
from pkpo_jax.models.config_file import ConfigFile, sliding_windows
from pkpo_jax.models.folders import drop_tied_head
from pkpo_jax.models.recipes import Recipe, Stored

gemma_library.import_models()
Config = gm.nn.config.TransformerConfig
_Scale = gm.nn.config.QueryPreAttentionNormalisation
_LOCAL, _GLOBAL = gm.nn.AttentionType.LOCAL_SLIDING, gm.nn.AttentionType.GLOBAL

# The gemma library pads the embedding of Gemma-2 to this many rows, none of which is a token;
# Hugging Face stores the tokens alone.
_PADDED_VOCAB_SIZE, _VOCAB_SIZE = 256_128, 256_000
# Hugging Face has 64 rows more for Gemma-3 with images, none of which is a token of a text.
_IMAGES_VOCAB_SIZE, _TEXT_VOCAB_SIZE = 262_208, 262_144

_GEMMA2_TINY = Config(
  num_embed=128,
  embed_dim=128,
  hidden_dim=512,
  num_heads=4,
  num_kv_heads=2,
  head_dim=32,
  attention_types=(_LOCAL, _GLOBAL) * 2,
  sliding_window_size=32,
  attn_logits_soft_cap=50.0,
  final_logit_softcap=30.0,
  use_post_attn_norm=True,
  use_post_ffw_norm=True,
)
_GEMMA2_MICRO = dataclasses.replace(
  _GEMMA2_TINY,
  embed_dim=64,
  hidden_dim=256,
  head_dim=16,
  attention_types=_GEMMA2_TINY.attention_types[:2],
)
_GEMMA3_MICRO = dataclasses.replace(
  _GEMMA2_MICRO,
  attn_logits_soft_cap=None,
  final_logit_softcap=None,
  use_qk_norm=True,
  transpose_gating_einsum=True,
  global_base_frequency=1_000_000,
  global_scale_factor=8.0,
)


def _text_only(model: type[gm.nn.Transformer]) -> Config:
  return dataclasses.replace(model.config, vision_encoder=None)


PRESETS = {
  'gemma2_micro': _GEMMA2_MICRO,
  'gemma2_tiny': _GEMMA2_TINY,
  'gemma2_2b': gm.nn.Gemma2_2B.config,
  'gemma2_9b': gm.nn.Gemma2_9B.config,
  'gemma2_27b': gm.nn.Gemma2_27B.config,
  'gemma3_micro': _GEMMA3_MICRO,
  'gemma3_270m': gm.nn.Gemma3_270M.config,
  'gemma3_1b': gm.nn.Gemma3_1B.config,
  'gemma3_4b': _text_only(gm.nn.Gemma3_4B),
  'gemma3_12b': _text_only(gm.nn.Gemma3_12B),
  'gemma3_27b': _text_only(gm.nn.Gemma3_27B),
}

_NORMS = {
  'pre_attention_norm': 'input_layernorm',
  'post_attention_norm': 'post_attention_layernorm',
  'pre_ffw_norm': 'pre_feedforward_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}
_HEAD_NORMS = {'_query_norm': 'self_attn.q_norm', '_key_norm': 'self_attn.k_norm'}


class _Module(gm.nn.Transformer):
  """The library's transformer with any config."""


class Gemma(Architecture):
  """A Gemma-2, or a Gemma-3 of text: those have norms of queries and keys."""

  def __init__(self, config: Config, name: str | None = None):
    """Takes the library's config, such as PRESETS['gemma2_2b'], and a name for messages."""
    self.config = config
    self.is_gemma3 = config.use_qk_norm
    self.model_types = ('gemma3_text', 'gemma3') if self.is_gemma3 else ('gemma2',)
    self.name = name or self.model_types[0]
    self.num_embeddings = config.num_embed
    self.width, self.hidden_width = config.embed_dim, config.hidden_dim
    self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
    self.head_dim = config.head_dim
    self.windows = tuple(
      config.sliding_window_size if kind == _LOCAL else None for kind in config.attention_types
    )
    self.soft_cap = config.attn_logits_soft_cap
    gating = ('tensor', 'fsdp') if config.transpose_gating_einsum else ('fsdp', 'tensor')
    self.partition_rules = (
      ('embedder/input_embedding', PartitionSpec('tensor', 'fsdp')),
      ('attn/q_einsum/w', PartitionSpec('tensor', 'fsdp', None)),
      # The one head of keys of the small Gemma-3 cannot be split.
      ('attn/q?kv_einsum/w', PartitionSpec(None, *_kv_axes(config.num_kv_heads), None)),
      ('attn/attn_vec_einsum/w', PartitionSpec('tensor', None, 'fsdp')),
      ('mlp/gating_einsum', PartitionSpec(None, *gating)),
      ('mlp/linear', PartitionSpec('tensor', 'fsdp')),
    )

  @classmethod
  def preset(cls, name: str) -> 'Gemma':
    """Returns the architecture that PRESETS names."""
    return cls(PRESETS[name], name)

  # The forward pass.

  @override
  def module(self, dtype):
    return _Module(config=self.config, dtype=dtype)

  @override
  def with_layers(self, num_layers):
    kinds = (self.config.attention_types * num_layers)[:num_layers]
    return type(self)(dataclasses.replace(self.config, attention_types=kinds), self.name)

  @override
  def embed(self, module, tokens):
    return module.embedder.encode(tokens)

  @override
  def project(self, block, x, positions, adapt):
    attn = block.attn
    x = _norm(block.pre_attention_norm, x).reshape(*positions.shape, -1)
    # Which of query, key and value comes after the rows: before them, as in the library, the
    # product would be transposed.
    if attn.use_qkv_einsum:
      query, key, value = jnp.moveaxis(attn.qkv_einsum('BTD,SNDH->BTSNH', x), 2, 0)
    else:
      query = attn.q_einsum('BTD,NDH->BTNH', x)
      key, value = jnp.moveaxis(attn.kv_einsum('BSD,CKDH->BSCKH', x), 2, 0)
    query, key, value = adapt('q', x, query), adapt('k', x, key), adapt('v', x, value)
    if attn.use_qk_norm:
      query, key = _norm(attn._query_norm, query), _norm(attn._key_norm, key)
    rotate = lambda y: gm_math.apply_rope(
      y,
      positions,
      base_frequency=attn.rope_base_frequency,
      scale_factor=attn.rope_scale_factor,
    )
    return rotate(query) * attn.query_pre_attn_scalar, rotate(key), value

  @override
  def update(self, block, x, attended, adapt):
    out = block.attn.attn_vec_einsum('BTNH,NHD->BTD', attended)
    out = adapt('o', attended.reshape(*attended.shape[:2], -1), out).reshape(x.shape)
    x += _norm(block.post_attention_norm, out)
    out = self._feed_forward(block.mlp, _norm(block.pre_ffw_norm, x), adapt)
    return x + _norm(block.post_ffw_norm, out)

  def _feed_forward(self, mlp, x, adapt):
    """Returns `[..., D]`: the library's layer, with room for adapters inside."""
    if mlp.is_initializing():
      return mlp(x)
    gating = 'NHF' if mlp.transpose_gating_einsum else 'NFH'
    weights = mlp.variables['params']
    gate_and_up = jnp.einsum(f'...F,{gating}->...NH', x, weights['gating_einsum'])
    gate = adapt('gate', x, gate_and_up[..., 0, :])
    up = adapt('up', x, gate_and_up[..., 1, :])
    hidden = nn.gelu(gate) * up
    return adapt('down', hidden, jnp.einsum('...H,HF->...F', hidden, weights['linear']))

  @override
  def normalize(self, module, x):
    return _norm(module.final_norm, x)

  @override
  def logits(self, weights, hidden):
    table = weights['embedder']['input_embedding']
    logits = jnp.einsum('...d,vd->...v', hidden, table, preferred_element_type=jnp.float32)
    return capped(logits, self.config.final_logit_softcap)

  # Files.

  @classmethod
  def from_file(cls, file):
    """Returns the architecture that a config.json describes; of images, the text's part."""
    kind = file.expect('model_type', ('gemma2', 'gemma3_text', 'gemma3'), None)
    text = file.group('text_config') if kind == 'gemma3' else file
    return cls(_read_gemma2(text) if kind == 'gemma2' else _read_gemma3(text))

  @property
  @override
  def fields(self):
    config = self.config
    rows = _VOCAB_SIZE if config.num_embed == _PADDED_VOCAB_SIZE else config.num_embed
    return {
      'num_hidden_layers': config.num_layers,
      'hidden_size': config.embed_dim,
      'intermediate_size': config.hidden_dim,
      'num_attention_heads': config.num_heads,
      'num_key_value_heads': config.num_kv_heads,
      'head_dim': config.head_dim,
      'vocab_size': rows,
      'layer_types and sliding_window': self.windows,
      'query_pre_attn_scalar': round(config.query_pre_attn_scalar() ** -2),
      'attn_logit_softcapping': config.attn_logits_soft_cap,
      'final_logit_softcapping': config.final_logit_softcap,
      'rope_theta of local and global layers': _rope(config)[0],
      'rope factor of local and global layers': _rope(config)[1],
    }

  @property
  @override
  def config_json(self):
    config, fields = self.config, self.fields
    (local_base, base), (_, scale) = _rope(config)
    kind = 'gemma3_text' if self.is_gemma3 else 'gemma2'
    own = {
      'architectures': ['Gemma3ForCausalLM' if self.is_gemma3 else 'Gemma2ForCausalLM'],
      'model_type': kind,
      'hidden_activation': 'gelu_pytorch_tanh',
      'rms_norm_eps': 1e-6,
      'rope_theta': base,
      'tie_word_embeddings': True,
      **sliding_windows(self.windows),
    }
    if self.is_gemma3:
      own['rope_local_base_freq'] = local_base
    if scale != 1:
      own['rope_scaling'] = {'rope_type': 'linear', 'factor': scale}
    return {name: value for name, value in fields.items() if ' ' not in name} | own

  @override
  def recipe(self, name):
    """Returns how Hugging Face stores a parameter of the library.

    In the library N query heads, K heads of keys and values, and H numbers a head are axes of their
    own; D is the width of the model, F that of the feed-forward layer. Both scale a norm by
    1 + weight.
    """
    config, (layer, parameter) = self.config, recipes.split_name(name)
    width, hidden, size = config.embed_dim, config.hidden_dim, config.head_dim
    in_layer = layer is not None and layer < config.num_layers
    if name == 'embedder/input_embedding':
      return _embedding_recipe(config.num_embed, width)
    if name == 'final_norm/scale':
      return recipes.as_is('model.norm.weight', (width,))
    weight = lambda target: recipes.weight_name(layer, target)
    match parameter.split('/') if in_layer else ():
      case ['attn', 'q_einsum' | 'kv_einsum' | 'qkv_einsum' as kind, 'w']:
        heads = config.num_heads if 'q' in kind else config.num_kv_heads
        targets = kind.removesuffix('_einsum')
        unfold = lambda x: x.reshape(heads, size, width).transpose(0, 2, 1)
        fold = lambda w: w.transpose(0, 2, 1).reshape(heads * size, width)
        names, shape = tuple(map(weight, targets)), (heads * size, width)
        if targets == 'q':
          return Recipe(names, shape, lambda x: unfold(x[0]), lambda w: [fold(w)])
        join = lambda x: recipes.stack([unfold(part) for part in x])
        return Recipe(names, shape, join, lambda w: [fold(part) for part in w])
      case ['attn', 'attn_vec_einsum', 'w']:
        heads = config.num_heads
        join = lambda x: x[0].reshape(width, heads, size).transpose(1, 2, 0)
        split = lambda w: [w.transpose(2, 0, 1).reshape(width, heads * size)]
        return Recipe((weight('o'),), (width, heads * size), join, split)
      case ['mlp', 'gating_einsum']:
        turn = (lambda x: x) if config.transpose_gating_einsum else (lambda x: x.T)
        join = lambda x: recipes.stack([turn(part) for part in x])
        names = weight('gate'), weight('up')
        return Recipe(names, (hidden, width), join, lambda w: [turn(part) for part in w])
      case ['mlp', 'linear']:
        return Recipe((weight('down'),), (width, hidden), lambda x: x[0].T, lambda w: [w.T])
      case [norm, 'scale'] if norm in _NORMS:
        return recipes.as_is(f'model.layers.{layer}.{_NORMS[norm]}.weight', (width,))
      case ['attn', norm, 'scale'] if norm in _HEAD_NORMS:
        return recipes.as_is(f'model.layers.{layer}.{_HEAD_NORMS[norm]}.weight', (size,))
    raise ValueError(f'{name}: expected a parameter of {self.name}, found another.')

  @override
  def adapt_stored(self, path, stored):
    tensors = {}
    for name, tensor in stored.items():
      if self.is_gemma3 and any(part in name for part in ('vision_tower.', 'multi_modal_proj')):
        continue  # Of images.
      for prefix in ('language_model.', 'model.language_model.'):
        if self.is_gemma3 and name.startswith(prefix):
          inner = name.removeprefix(prefix)
          name = inner if prefix == 'language_model.' else f'model.{inner}'
          break
      tensors[name] = tensor
    drop_tied_head(path, tensors)
    table = tensors.get('model.embed_tokens.weight')
    if table and self.num_embeddings == _TEXT_VOCAB_SIZE and table.shape[0] == _IMAGES_VOCAB_SIZE:
      read = lambda rows=slice(_TEXT_VOCAB_SIZE): table.read(rows)
      shape = (_TEXT_VOCAB_SIZE, *table.shape[1:])
      tensors['model.embed_tokens.weight'] = Stored(shape, table.dtype, read)
    return tensors

  @override
  def adapt_release(self, stored):
    # A Gemma-3 that is released with images has more than its text needs.
    of_images = ('vision_encoder/', 'SigLiPFromPatches_0/', 'embedder/mm_')
    is_text = lambda name: not (self.is_gemma3 and name.startswith(of_images))
    return {name: tensor for name, tensor in stored.items() if is_text(name)}


def _kv_axes(num_kv_heads):
  """Returns the mesh axes of K and D."""
  return (None, 'fsdp') if num_kv_heads == 1 else ('tensor', 'fsdp')


def _norm(norm, x):
  """Applies the library's norm in float32, which its scales are in, as transformers does."""
  return norm(x.astype(jnp.float32)).astype(x.dtype)


def _embedding_recipe(num_rows: int, width: int) -> Recipe:
  """Returns the recipe of the table, without the rows that only the library has."""
  name = 'model.embed_tokens.weight'
  if num_rows != _PADDED_VOCAB_SIZE:
    return recipes.as_is(name, (num_rows, width))

  def pad(arrays):
    padded = np.zeros((num_rows, width), arrays[0].dtype)
    padded[:_VOCAB_SIZE] = arrays[0]
    return padded

  return Recipe((name,), (_VOCAB_SIZE, width), pad, lambda w: [w[:_VOCAB_SIZE]])


def _rope(config: Config) -> tuple[tuple[float, float], tuple[float, float]]:
  """Returns the bases and the scale factors of local and of global layers."""
  bases = float(config.local_base_frequency), float(config.global_base_frequency)
  return bases, (float(config.local_scale_factor), float(config.global_scale_factor))


# config.json; where a field is missing it is what transformers takes.


def _read_gemma2(file: ConfigFile) -> Config:
  """Returns the library's config of a Gemma-2."""
  rope = file.rope(None, 'rope_theta', 10_000.0)
  rope.expect('rope_type', ('default',), None)
  base = rope.get('rope_theta', float)
  pattern = ['sliding_attention', 'full_attention']
  return _read(
    file,
    pattern,
    vocab_size=_VOCAB_SIZE,
    caps=(50.0, 30.0),
    local_base_frequency=base,
    global_base_frequency=base,
  )


def _read_gemma3(file: ConfigFile) -> Config:
  """Returns the library's config of a Gemma-3 of text."""
  local = file.rope('sliding_attention', 'rope_local_base_freq', 10_000.0)
  local.expect('rope_type', ('default',), None)
  whole = file.rope('full_attention', 'rope_theta', 1_000_000.0)
  is_scaled = whole.expect('rope_type', ('default', 'linear'), None) == 'linear'
  period = file.get('sliding_window_pattern', int, 6)
  pattern = ['sliding_attention'] * (period - 1) + ['full_attention']
  return _read(
    file,
    pattern,
    vocab_size=_IMAGES_VOCAB_SIZE,
    caps=(None, None),
    use_qk_norm=True,
    local_base_frequency=local.get('rope_theta', float),
    global_base_frequency=whole.get('rope_theta', float),
    global_scale_factor=whole.get('factor', float) if is_scaled else 1.0,
  )


def _read(
  file: ConfigFile,
  pattern: list[str],
  vocab_size: int,
  caps: tuple[float | None, float | None],
  **fields: Any,
) -> Config:
  """Returns the library's config; `pattern`, `vocab_size` and `caps` are defaults."""
  file.expect('hidden_activation', ('gelu_pytorch_tanh',), 'gelu_pytorch_tanh')
  file.expect('attention_bias', (False,), False)
  file.expect('tie_word_embeddings', (True,), True)
  file.expect('use_bidirectional_attention', (False,), False)
  file.expect('rms_norm_eps', (1e-6,), 1e-6)
  num_layers = file.get('num_hidden_layers', int)
  kinds = (pattern * num_layers)[:num_layers]
  windows = file.layer_windows(num_layers, kinds)
  width, num_heads = file.get('hidden_size', int), file.get('num_attention_heads', int, 8)
  head_dim = file.get('head_dim', int, 256)
  scale = file.get('query_pre_attn_scalar', float, 256.0)
  scales = {
    width // num_heads: _Scale.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS,
    head_dim: _Scale.BY_ONE_OVER_SQRT_HEAD_DIM,
  }
  if scale not in scales:
    raise file.error('query_pre_attn_scalar', ' or '.join(map(str, scales)), scale)
  rows = file.get('vocab_size', int, vocab_size)
  return Config(
    num_embed=_TEXT_VOCAB_SIZE if rows == _IMAGES_VOCAB_SIZE else rows,
    embed_dim=width,
    hidden_dim=file.get('intermediate_size', int),
    num_heads=num_heads,
    num_kv_heads=file.get('num_key_value_heads', int, 4),
    head_dim=head_dim,
    attention_types=tuple(_GLOBAL if window is None else _LOCAL for window in windows),
    sliding_window_size=next((window for window in windows if window), None),
    query_pre_attn_norm=scales[scale],
    attn_logits_soft_cap=_cap(file, 'attn_logit_softcapping', caps[0]),
    final_logit_softcap=_cap(file, 'final_logit_softcapping', caps[1]),
    use_post_attn_norm=True,
    use_post_ffw_norm=True,
    **fields,
  )


def _cap(file: ConfigFile, field: str, default: float | None) -> float | None:
  """Returns a soft cap: here null is no cap, and only a missing field is the default."""
  return file.get(field, float, None if field in file.fields else default)

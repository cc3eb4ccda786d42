"""The decoder that Llama 3, Qwen 2.5 and Qwen 3 share, and what was distilled into them.

Pre-norm with RMSNorm, rotary positions (with Llama 3's scaling), grouped queries, SwiGLU; biases of
queries, keys and values in Qwen 2.5, norms of queries and keys in Qwen 3. The sizes of released
models are those of their config.json.
"""

import dataclasses
import math
from typing import override

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec

from pkpo_jax.models import recipes
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.config_file import ConfigFile, sliding_windows
from pkpo_jax.models.folders import drop_tied_head
from pkpo_jax.models.recipes import Recipe

_INIT = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """Llama 3's: waves longer than the original context turn `factor` times more slowly.

  Attributes:
    factor: for waves longer than original_length / low.
    low: see factor; between the two the speed is interpolated.
    high: waves shorter than original_length / high stay.
    original_length: tokens of the context before it was extended.
  """

  factor: float
  low: float
  high: float
  original_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The architecture of a model.

  Attributes:
    model_type: 'llama', 'qwen2' or 'qwen3'.
    num_embeddings: rows of the embedding table.
    width: D.
    hidden_width: F.
    num_heads: of queries.
    num_kv_heads: of keys and values.
    head_dim: H.
    windows: of each layer, how many positions a token sees up to its own; None for all.
    rope_theta: base of the rotary waves' lengths.
    rope_scaling: None is none.
    norm_eps: added to the mean of squares in norms.
    is_tied: whether logits are read with the embedding table.
    biases: of which of 'q', 'k', 'v', 'o' there are some.
    has_head_norms: whether queries and keys are normalized.
  """

  model_type: str
  num_embeddings: int
  width: int
  hidden_width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  windows: tuple[int | None, ...]
  rope_theta: float
  rope_scaling: RopeScaling | None
  norm_eps: float
  is_tied: bool
  biases: str
  has_head_norms: bool


PRESETS = {
  'llama_micro': Config(
    model_type='llama',
    num_embeddings=128,
    width=64,
    hidden_width=128,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    windows=(None, None),
    rope_theta=500_000.0,
    rope_scaling=None,
    norm_eps=1e-5,
    is_tied=False,
    biases='',
    has_head_norms=False,
  ),
  # What the published config.json of the instruction-tuned models says.
  'llama3_1_8b': Config(
    model_type='llama',
    num_embeddings=128_256,
    width=4096,
    hidden_width=14_336,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    windows=(None,) * 32,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(factor=8.0, low=1.0, high=4.0, original_length=8192),
    norm_eps=1e-5,
    is_tied=False,
    biases='',
    has_head_norms=False,
  ),
  'qwen2_5_7b': Config(
    model_type='qwen2',
    num_embeddings=152_064,
    width=3584,
    hidden_width=18_944,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    windows=(None,) * 28,
    rope_theta=1_000_000.0,
    rope_scaling=None,
    norm_eps=1e-6,
    is_tied=False,
    biases='qkv',
    has_head_norms=False,
  ),
}


def rope_frequencies(config: Config) -> np.ndarray:
  """Returns the angles a position turns by, `[H / 2]` float32, radians."""
  exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
  frequencies = (1 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
  scaling = config.rope_scaling
  if scaling is None:
    return frequencies
  turns = scaling.original_length * frequencies / (2 * math.pi)  # In the original context.
  share = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
  return (frequencies * (share + (1 - share) / scaling.factor)).astype(np.float32)


def rotate(x: jax.Array, positions: jax.Array, frequencies: np.ndarray) -> jax.Array:
  """Returns `[R, S, N, H]` heads, number i and number i + H / 2 turned as one vector."""
  angles = positions[:, :, None, None] * frequencies
  sin, cos = jnp.sin(angles), jnp.cos(angles)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class _Norm(nn.Module):
  """Divides by the root of the mean of squares, in float32."""

  eps: float

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.initializers.ones_init(), (x.shape[-1],))
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
    return (y * scale).astype(x.dtype)


class _Table(nn.Module):
  """A vector for each token."""

  shape: tuple[int, int]
  name_of_table: str

  def setup(self):
    self.table = self.param(self.name_of_table, _INIT, self.shape)


class _Attention(nn.Module):
  config: Config

  def setup(self):
    config = self.config

    def project(name, heads):
      use_bias = name in config.biases
      return nn.DenseGeneral((heads, config.head_dim), use_bias=use_bias, kernel_init=_INIT)

    self.q = project('q', config.num_heads)
    self.k, self.v = project('k', config.num_kv_heads), project('v', config.num_kv_heads)
    self.o = nn.DenseGeneral(
      config.width, axis=(-2, -1), use_bias='o' in config.biases, kernel_init=_INIT
    )
    if config.has_head_norms:
      self.q_norm, self.k_norm = _Norm(config.norm_eps), _Norm(config.norm_eps)


class _FeedForward(nn.Module):
  config: Config

  def setup(self):
    hidden = lambda: nn.Dense(self.config.hidden_width, use_bias=False, kernel_init=_INIT)
    self.gate, self.up = hidden(), hidden()
    self.down = nn.Dense(self.config.width, use_bias=False, kernel_init=_INIT)


class _Block(nn.Module):
  config: Config

  def setup(self):
    self.attn, self.mlp = _Attention(self.config), _FeedForward(self.config)
    self.attention_norm = _Norm(self.config.norm_eps)
    self.feed_forward_norm = _Norm(self.config.norm_eps)


class _Module(nn.Module):
  config: Config

  def setup(self):
    shape = self.config.num_embeddings, self.config.width
    self.embedder = _Table(shape, 'input_embedding')
    if not self.config.is_tied:
      self.head = _Table(shape, 'output_embedding')
    self.blocks = [_Block(self.config, name=f'layer_{i}') for i in range(len(self.config.windows))]
    self.final_norm = _Norm(self.config.norm_eps)


_NORMS = {
  'attention_norm/scale': 'input_layernorm',
  'feed_forward_norm/scale': 'post_attention_layernorm',
}
_HEAD_NORMS = {f'attn/{letter}_norm/scale': f'self_attn.{letter}_norm' for letter in 'qk'}


class Decoder(Architecture):
  """A Llama 3, a Qwen 2.5 or a Qwen 3."""

  partition_rules = (
    ('(input|output)_embedding', PartitionSpec('tensor', 'fsdp')),
    ('attn/[qkv]/kernel', PartitionSpec('fsdp', 'tensor', None)),
    ('attn/[qkv]/bias', PartitionSpec('tensor', None)),
    ('attn/o/kernel', PartitionSpec('tensor', None, 'fsdp')),
    ('mlp/(gate|up)/kernel', PartitionSpec('fsdp', 'tensor')),
    ('mlp/down/kernel', PartitionSpec('tensor', 'fsdp')),
  )

  def __init__(self, config: Config, name: str | None = None):
    """Takes the config, such as PRESETS['llama_micro'], and a name for messages."""
    self.config = config
    self.name = name or config.model_type
    self.model_types = (config.model_type,)
    self.num_embeddings = config.num_embeddings
    self.width, self.hidden_width = config.width, config.hidden_width
    self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
    self.head_dim, self.windows = config.head_dim, config.windows
    self._frequencies = rope_frequencies(config)

  @classmethod
  def preset(cls, name: str) -> 'Decoder':
    """Returns the architecture that PRESETS names."""
    return cls(PRESETS[name], name)

  # The forward pass.

  @override
  def module(self, dtype):
    del dtype  # `Transformer.init` casts.
    return _Module(self.config)

  @override
  def with_layers(self, num_layers):
    windows = (self.config.windows * num_layers)[:num_layers]
    return type(self)(dataclasses.replace(self.config, windows=windows), self.name)

  @override
  def embed(self, module, tokens):
    if module.is_initializing() and not self.config.is_tied:
      _ = module.head.table  # Made with the rest; `logits` reads it.
    return module.embedder.table[tokens]

  @override
  def project(self, block, x, positions, adapt):
    attn = block.attn
    x = block.attention_norm(x).reshape(*positions.shape, -1)
    query, key, value = adapt('q', x, attn.q(x)), adapt('k', x, attn.k(x)), adapt('v', x, attn.v(x))
    if self.config.has_head_norms:
      query, key = attn.q_norm(query), attn.k_norm(key)
    query = rotate(query, positions, self._frequencies) * self.head_dim**-0.5
    return query, rotate(key, positions, self._frequencies), value

  @override
  def update(self, block, x, attended, adapt):
    out = adapt('o', attended.reshape(*attended.shape[:2], -1), block.attn.o(attended))
    x += out.reshape(x.shape)
    y, mlp = block.feed_forward_norm(x), block.mlp
    hidden = nn.silu(adapt('gate', y, mlp.gate(y))) * adapt('up', y, mlp.up(y))
    return x + adapt('down', hidden, mlp.down(hidden))

  @override
  def normalize(self, module, x):
    return module.final_norm(x)

  @override
  def logits(self, weights, hidden):
    if self.config.is_tied:
      table = weights['embedder']['input_embedding']
    else:
      table = weights['head']['output_embedding']
    return jnp.einsum('...d,vd->...v', hidden, table, preferred_element_type=jnp.float32)

  # Files.

  @classmethod
  def from_file(cls, file):
    """Returns the architecture that a config.json describes."""
    return cls(_read(file))

  @property
  @override
  def fields(self):
    config = self.config
    return {
      'num_hidden_layers': len(config.windows),
      'hidden_size': config.width,
      'intermediate_size': config.hidden_width,
      'num_attention_heads': config.num_heads,
      'num_key_value_heads': config.num_kv_heads,
      'head_dim': config.head_dim,
      'vocab_size': config.num_embeddings,
      'layer_types and sliding_window': config.windows,
      'rope_theta': config.rope_theta,
      'rope_scaling': config.rope_scaling,
      'rms_norm_eps': config.norm_eps,
      'tie_word_embeddings': config.is_tied,
      'attention_bias': config.biases,
    }

  @property
  @override
  def config_json(self):
    config = self.config
    kind = config.model_type
    fields = {
      'architectures': [f'{kind.capitalize()}ForCausalLM'],
      'model_type': kind,
      'vocab_size': config.num_embeddings,
      'hidden_size': config.width,
      'intermediate_size': config.hidden_width,
      'num_hidden_layers': len(config.windows),
      'num_attention_heads': config.num_heads,
      'num_key_value_heads': config.num_kv_heads,
      'head_dim': config.head_dim,
      'hidden_act': 'silu',
      'rms_norm_eps': config.norm_eps,
      'rope_theta': config.rope_theta,
      'tie_word_embeddings': config.is_tied,
      'attention_bias': bool(config.biases),
    }
    if config.rope_scaling is not None:
      fields['rope_scaling'] = {
        'rope_type': 'llama3',
        'factor': config.rope_scaling.factor,
        'low_freq_factor': config.rope_scaling.low,
        'high_freq_factor': config.rope_scaling.high,
        'original_max_position_embeddings': config.rope_scaling.original_length,
      }
    if any(config.windows):
      fields |= {'use_sliding_window': True, **sliding_windows(config.windows)}
    return fields

  @override
  def recipe(self, name):
    """Returns how Hugging Face stores a parameter; heads are axes of their own here."""
    config, (layer, parameter) = self.config, recipes.split_name(name)
    width, hidden, size = config.width, config.hidden_width, config.head_dim
    in_layer = layer is not None and layer < len(config.windows)
    prefix = f'model.layers.{layer}'
    table = config.num_embeddings, width
    if name == 'embedder/input_embedding':
      return recipes.as_is('model.embed_tokens.weight', table)
    if name == 'head/output_embedding' and not config.is_tied:
      return recipes.as_is('lm_head.weight', table)
    if name == 'final_norm/scale':
      return recipes.as_is('model.norm.weight', (width,))
    match parameter.split('/') if in_layer else ():
      case ['attn', 'q' | 'k' | 'v' as target, kind]:
        heads = config.num_heads if target == 'q' else config.num_kv_heads
        if kind == 'kernel':
          join = lambda x: x[0].T.reshape(width, heads, size)
          split = lambda w: [w.reshape(width, heads * size).T]
          names = (recipes.weight_name(layer, target),)
          return Recipe(names, (heads * size, width), join, split)
        if kind == 'bias' and target in config.biases:
          names = (f'{prefix}.self_attn.{target}_proj.bias',)
          join = lambda x: x[0].reshape(heads, size)
          return Recipe(names, (heads * size,), join, lambda w: [w.reshape(-1)])
      case ['attn', 'o', 'kernel']:
        heads = config.num_heads
        join = lambda x: x[0].T.reshape(heads, size, width)
        split = lambda w: [w.reshape(heads * size, width).T]
        return Recipe((recipes.weight_name(layer, 'o'),), (width, heads * size), join, split)
      case ['attn', 'o', 'bias'] if 'o' in config.biases:
        return recipes.as_is(f'{prefix}.self_attn.o_proj.bias', (width,))
      case ['mlp', 'gate' | 'up' | 'down' as target, 'kernel']:
        shape = (width, hidden) if target == 'down' else (hidden, width)
        names = (recipes.weight_name(layer, target),)
        return Recipe(names, shape, lambda x: x[0].T, lambda w: [w.T])
    if in_layer and parameter in _NORMS:
      return recipes.as_is(f'{prefix}.{_NORMS[parameter]}.weight', (width,))
    if in_layer and parameter in _HEAD_NORMS and config.has_head_norms:
      return recipes.as_is(f'{prefix}.{_HEAD_NORMS[parameter]}.weight', (size,))
    raise ValueError(f'{name}: expected a parameter of {self.name}, found another.')

  @override
  def adapt_stored(self, path, stored):
    tensors = dict(stored)
    for name in stored:
      if name.endswith('.rotary_emb.inv_freq'):
        del tensors[name]  # In old files; it follows from the config.
    if self.config.is_tied:
      drop_tied_head(path, tensors)
    return tensors


# config.json; where a field is missing it is what transformers takes.


def _read(file: ConfigFile) -> Config:
  """Returns the config; an unsupported value is a DataError."""
  kind = file.expect('model_type', ('llama', 'qwen2', 'qwen3'), None)
  file.expect('hidden_act', ('silu',), 'silu')
  file.expect('mlp_bias', (False,), False)
  num_layers = file.get('num_hidden_layers', int)
  width, num_heads = file.get('hidden_size', int), file.get('num_attention_heads', int)
  num_kv_heads = file.get('num_key_value_heads', int, num_heads)
  if num_heads % num_kv_heads:
    raise file.error('num_key_value_heads', f'a divisor of {num_heads} heads', num_kv_heads)
  head_dim = file.get('head_dim', int, 128 if kind == 'qwen3' else width // num_heads)
  if head_dim % 2:
    raise file.error('head_dim', 'an even number', head_dim)
  has_bias = file.get('attention_bias', bool, kind == 'qwen2')
  if kind == 'qwen2' and not has_bias:
    raise file.error('attention_bias', 'True, as in every qwen2', has_bias)
  biases = {'qwen2': 'qkv', 'llama': 'qkvo', 'qwen3': 'qkvo'}[kind] if has_bias else ''
  return Config(
    model_type=kind,
    num_embeddings=file.get('vocab_size', int),
    width=width,
    hidden_width=file.get('intermediate_size', int),
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=head_dim,
    windows=_read_windows(file, kind, num_layers),
    **_read_rope(file),
    norm_eps=file.get('rms_norm_eps', float, 1e-6),
    is_tied=file.get('tie_word_embeddings', bool, False),
    biases=biases,
    has_head_norms=kind == 'qwen3',
  )


def _read_windows(file: ConfigFile, kind: str, num_layers: int) -> tuple[int | None, ...]:
  """Returns each layer's window; Qwen's layers from max_window_layers on have one, if any has."""
  if kind == 'llama':
    return (None,) * num_layers
  first, is_used = num_layers, file.get('use_sliding_window', bool, False)
  if is_used:
    first = file.fields.get('max_window_layers', 28)
    if not isinstance(first, int) or first < 0:
      raise file.error('max_window_layers', 'an int of at least 0', first)
  kinds = ['full_attention' if i < first else 'sliding_attention' for i in range(num_layers)]
  windows = tuple(file.layer_windows(num_layers, kinds))
  if any(windows) and not is_used:
    raise file.error('use_sliding_window', 'True where layer_types has sliding ones', is_used)
  return windows


def _read_rope(file: ConfigFile) -> dict[str, float | RopeScaling | None]:
  """Returns the fields of Config about rotary positions."""
  rope = file.rope(None, 'rope_theta', 10_000.0)
  kind = rope.expect('rope_type', ('default', 'llama3'), None)
  rope.expect('partial_rotary_factor', (1.0,), 1.0)
  scaling = None
  if kind == 'llama3':
    scaling = RopeScaling(
      factor=rope.get('factor', float),
      low=rope.get('low_freq_factor', float),
      high=rope.get('high_freq_factor', float),
      original_length=rope.get('original_max_position_embeddings', int),
    )
    if not scaling.high > scaling.low:
      raise rope.error('high_freq_factor', f'above low_freq_factor = {scaling.low}', scaling.high)
  return {'rope_theta': rope.get('rope_theta', float), 'rope_scaling': scaling}

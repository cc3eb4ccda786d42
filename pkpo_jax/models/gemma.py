"""Gemma-2 through the gemma library's own modules, for groups of completions that share a prompt.

The only importer of `gemma`, which takes seconds and brings TensorFlow: nothing else imports this
module at its top.

Parameters are those of the library, so released weights load unchanged; what is written here is
what it lacks. Keys and values come in two parts: those of the prompt, stored once for its N
completions, and those of each completion. Sampling and training run the same code.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from gemma import gm, peft
from gemma.gm import math as gm_math
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Bool, Float, Int

_LOCAL, _GLOBAL = gm.nn.AttentionType.LOCAL_SLIDING, gm.nn.AttentionType.GLOBAL
# The position of padding and of empty cache slots: after every query, so that none attends there.
NOWHERE = 2**30
_MASKED = -(2.0**100)  # A logit that no softmax in float32 sees.
# Exponentials up to this one, their sums and one over these are finite float32 numbers.
_LARGEST_EXPONENT = 70

_TINY = gm.nn.config.TransformerConfig(
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
_MICRO = dataclasses.replace(
  _TINY, embed_dim=64, hidden_dim=256, head_dim=16, attention_types=_TINY.attention_types[:2]
)
PRESETS = {
  'gemma2_micro': _MICRO,
  'gemma2_tiny': _TINY,
  'gemma2_2b': gm.nn.Gemma2_2B.config,
  'gemma2_9b': gm.nn.Gemma2_9B.config,
  'gemma2_27b': gm.nn.Gemma2_27B.config,
}


@flax.struct.dataclass
class KeyValues:
  """Keys and values of one layer.

  Attributes:
    keys: `[P, K, T, H]` of the prompts, or `[P, N, K, S, H]` of the completions.
    values: like keys.
    positions: `[P, T]` or `[P, N, S]` int32; NOWHERE for padding and empty slots.
  """

  keys: jax.Array
  values: jax.Array
  positions: jax.Array


class Gemma2:
  """A Gemma-2 as functions of its parameters.

  Parameters are `{'weights': tree of the gemma library}` and, with LoRA, `'adapters'`.
  """

  def __init__(
    self,
    config: gm.nn.config.TransformerConfig,
    dtype: jax.typing.DTypeLike = jnp.float32,
    remat: bool = False,
    lora_rank: int | None = None,
    vocab_size: int | None = None,
  ):
    """Sets up the model; makes no arrays.

    Args:
      config: the architecture, such as PRESETS['gemma2_2b'].
      dtype: of parameters and activations; norms, with their scales, softmax and logits are float32
        in any case.
      remat: recompute each block in the backward pass instead of storing what is inside it.
      lora_rank: rank of the adapters; None trains all weights.
      vocab_size: tokens from this id on, which pad the embedding table, have probability 0; None
        is the size of the table.
    """
    self.config = config
    self.dtype = dtype
    self.vocab_size = vocab_size or config.num_embed
    # The sliding window of each layer, in tokens; None where attention is global.
    self.windows = tuple(
      config.sliding_window_size if kind == _LOCAL else None for kind in config.attention_types
    )
    self._weights_module = _GroupTransformer(config=config, dtype=dtype, remat=remat)
    self._module = self._weights_module
    if lora_rank is not None:
      self._module = gm.nn.LoRA(rank=lora_rank, model=self._weights_module, dtype=dtype)

  @property
  def partition_rules(self) -> tuple[tuple[str, PartitionSpec], ...]:
    """Regular expressions on the ends of weights' paths, and how their axes lie on the mesh.

    Heads and hidden units are split over 'tensor', what they read and write over 'fsdp'. Norms and
    adapters match nothing and stay whole on every device.
    """
    features_first = not self.config.transpose_gating_einsum
    gating = ('fsdp', 'tensor') if features_first else ('tensor', 'fsdp')
    return (
      ('embedder/input_embedding', PartitionSpec('tensor', 'fsdp')),
      ('attn/q_einsum/w', PartitionSpec('tensor', 'fsdp', None)),
      ('attn/q?kv_einsum/w', PartitionSpec(None, 'tensor', 'fsdp', None)),
      ('attn/attn_vec_einsum/w', PartitionSpec('tensor', None, 'fsdp')),
      ('mlp/gating_einsum', PartitionSpec(None, *gating)),
      ('mlp/linear', PartitionSpec('tensor', 'fsdp')),
    )

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Returns random parameters; adapters start at zero effect."""
    tokens = jnp.zeros((1, 1, 1), jnp.int32)
    params = self._module.init(key, tokens, tokens)['params']
    params = {
      path: leaf if path[-1] == 'scale' else leaf.astype(self.dtype)
      for path, leaf in traverse_util.flatten_dict(params).items()
    }
    adapters = {path: params.pop(path) for path in list(params) if 'lora' in path}
    split = {'weights': params, 'adapters': adapters} if adapters else {'weights': params}
    return {name: traverse_util.unflatten_dict(tree) for name, tree in split.items()}

  def merge(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{'weights': ...}` with the adapters added in: the same function, without LoRA.

    In bfloat16 the sums are rounded, and adapters that are small beside their weights are lost: to
    sample from what is trained, leave them apart.
    """
    if 'adapters' not in params:
      return dict(params)
    transpose_gating = self.config.transpose_gating_einsum
    merged = _add_adapters(params['weights'], params['adapters'], transpose_gating)
    return {'weights': merged}

  def __call__(
    self,
    params: Mapping[str, Any],
    tokens: Int[jax.Array, 'P N S'],
    positions: Int[jax.Array, 'P N S'],
    memory: tuple[KeyValues, ...] | None = None,
    cache: tuple[KeyValues, ...] | None = None,
    index: Int[jax.Array, ''] | None = None,
  ) -> tuple[Float[jax.Array, 'P N S D'], tuple[KeyValues, ...]]:
    """Returns the hidden states of tokens that see their prompt, and themselves in order.

    Args:
      params: parameters.
      tokens: `[P, N, S]`; a prompt alone has N = 1.
      positions: `[P, N, S]`, NOWHERE for padding.
      memory: the prompts' keys and values, from `prompt_memory`; None without a prompt.
      cache: keys and values of completion tokens before these, from `empty_cache`; then S = 1.
      index: `[]` with a cache: how many tokens of the completions came before, where to write.

    Returns:
      `[P, N, S, D]` after the last norm, and each layer's keys and values: those of the tokens
      given, or the cache with theirs written in.
    """
    if 'adapters' in params:
      module, weights = self._module, peft.merge_params(params['weights'], params['adapters'])
    else:
      module, weights = self._weights_module, params['weights']
    return module.apply({'params': weights}, tokens, positions, memory, cache, index)

  def prompt_positions(self, prompt_mask: Bool[jax.Array, 'P T']) -> Int[jax.Array, 'P T']:
    """Returns positions from 0 on; NOWHERE for the padding on the left."""
    return jnp.where(prompt_mask, jnp.cumsum(prompt_mask, axis=-1) - 1, NOWHERE)

  def logits(
    self, params: Mapping[str, Any], hidden: Float[jax.Array, '*b D']
  ) -> Float[jax.Array, '*b V']:
    """Returns the logits of the next token, `[..., V]` float32, nats."""
    table = params['weights']['embedder']['input_embedding']
    logits = jnp.einsum('...d,vd->...v', hidden, table, preferred_element_type=jnp.float32)
    logits = _soft_cap(logits, self.config.final_logit_softcap)
    if self.vocab_size == logits.shape[-1]:
      return logits
    return jnp.where(jnp.arange(logits.shape[-1]) < self.vocab_size, logits, _MASKED)

  def prompt_memory(self, key_values: tuple[KeyValues, ...]) -> tuple[KeyValues, ...]:
    """Returns what completions can see of their prompts, given these with N = 1.

    Prompts are padded on the left, so a local layer keeps the last slots and drops the rest.
    """
    return tuple(
      KeyValues(
        keys=kv.keys[:, 0, :, -window if window else None :],
        values=kv.values[:, 0, :, -window if window else None :],
        positions=kv.positions[:, 0, -window if window else None :],
      )
      for kv, window in zip(key_values, self.windows, strict=True)
    )

  def empty_cache(self, num_prompts: int, num_samples: int, length: int) -> tuple[KeyValues, ...]:
    """Returns room for `length` tokens a completion; in local layers for one window, reused."""
    cache = []
    for window in self.windows:
      slots = min(length, window or length)
      shape = (num_prompts, num_samples, self.config.num_kv_heads, slots, self.config.head_dim)
      positions = jnp.full((num_prompts, num_samples, slots), NOWHERE, jnp.int32)
      cache.append(KeyValues(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype), positions))
    return tuple(cache)


class _GroupTransformer(gm.nn.Transformer):
  """The library's transformer, with a forward pass over groups."""

  remat: bool = False

  def __call__(self, tokens, positions, memory=None, cache=None, index=None):
    apply_block = nn.remat(_apply_block) if self.remat else _apply_block
    x = self.embedder.encode(tokens)
    key_values = []
    for i, block in enumerate(self.blocks):
      layer_memory, layer_cache = memory and memory[i], cache and cache[i]
      x, kv = apply_block(block, x, positions, layer_memory, layer_cache, index)
      key_values.append(kv)
    return _norm(self.final_norm, x), tuple(key_values)


def _apply_block(block, x, positions, memory, cache, index):
  """Returns `[P, N, S, D]` and the layer's KeyValues."""
  attended, key_values = _attention(
    block.attn, _norm(block.pre_attention_norm, x), positions, memory, cache, index
  )
  x += _norm(block.post_attention_norm, attended)
  x += _norm(block.post_ffw_norm, block.mlp(_norm(block.pre_ffw_norm, x)))
  return x, key_values


def _attention(attn, x, positions, memory, cache, index):
  """Returns `[P, N, S, D]` and the layer's KeyValues; `attn` is the library's bound module."""
  num_prompts, num_samples, length, _ = x.shape
  rows = x.reshape(num_prompts * num_samples, length, -1)
  # Which of query, key and value comes after the rows: before them, as in the library, the product
  # would be transposed.
  if attn.use_qkv_einsum:
    query, key, value = jnp.moveaxis(attn.qkv_einsum('BTD,SNDH->BTSNH', rows), 2, 0)
  else:
    query = attn.q_einsum('BTD,NDH->BTNH', rows)
    key, value = jnp.moveaxis(attn.kv_einsum('BSD,CKDH->BSCKH', rows), 2, 0)
  row_positions = positions.reshape(rows.shape[:2])
  rotate = lambda y: gm_math.apply_rope(
    y,
    row_positions,
    base_frequency=attn.rope_base_frequency,
    scale_factor=attn.rope_scale_factor,
  )
  query = rotate(query) * attn.query_pre_attn_scalar
  # [P, N, K, S, H], the layout in which the products over heads need no copy of the cache.
  by_head = lambda y: jnp.moveaxis(y.reshape(*x.shape[:3], attn.num_kv_heads, -1), 2, 3)
  own = KeyValues(by_head(rotate(key)), by_head(value), positions)
  if cache is not None:
    own = _write(cache, own, index)
  parts = (own,) if memory is None else (memory, own)
  # The G query heads that share a head of keys stand together, with S: [P, N, K, G S, H].
  query = query.reshape(*x.shape[:3], attn.num_kv_heads, -1, attn.head_dim)
  query = jnp.moveaxis(query, 2, 4)
  num_shared = query.shape[3]
  query = query.reshape(*query.shape[:3], -1, attn.head_dim)
  positions = jnp.tile(positions, (1, 1, num_shared))
  window = attn.sliding_window_size if attn.attn_type == _LOCAL else None
  needs_maximum = cache is None or not 0 < (attn.attn_logits_soft_cap or 0) < _LARGEST_EXPONENT
  attended = _attend(query, positions, parts, window, attn.attn_logits_soft_cap, needs_maximum)
  attended = attended.reshape(*query.shape[:3], num_shared, length, -1)
  attended = jnp.moveaxis(attended, 4, 2).reshape(*rows.shape[:2], attn.num_heads, -1)
  return attn.attn_vec_einsum('BTNH,NHD->BTD', attended).reshape(x.shape), own


def _attend(query, positions, parts, window, soft_cap, needs_maximum):
  """Returns `[P, N, K, M, H]`: one softmax over the keys of all parts.

  Args:
    query: `[P, N, K, M, H]`, scaled; M queries look at each of K heads of keys.
    positions: `[P, N, M]` of the queries.
    parts: KeyValues of the prompts, of the completions, or both.
    window: a query sees this many positions up to its own; None for all.
    soft_cap: of the logits.
    needs_maximum: whether to take the largest logit off before the exponential. Without, a soft cap
      keeps the exponentials in range, but not their gradient.
  """
  num_prompts, num_samples, num_heads, num_queries, _ = query.shape

  def to_part(x, part):
    """Queries of all completions of a prompt look at its keys together: [P, K, N M, ...]."""
    if not _is_shared(part):
      return x
    return jnp.moveaxis(x, 1, 2).reshape(num_prompts, x.shape[2], -1, *x.shape[4:])

  def from_part(x, part):
    if not _is_shared(part):
      return x
    shape = (num_prompts, num_heads, num_samples, num_queries)
    return jnp.moveaxis(x.reshape(*shape, *x.shape[3:]), 2, 1)

  def score(part):
    scores = jnp.einsum(
      '...mh,...th->...mt', to_part(query, part), part.keys, preferred_element_type=jnp.float32
    )
    distance = to_part(positions[:, :, None], part)[..., None] - part.positions[..., None, None, :]
    is_seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    return jnp.where(is_seen, _soft_cap(scores, soft_cap), _MASKED)

  logits = [score(part) for part in parts]
  if needs_maximum:
    largest = [from_part(jnp.max(x, axis=-1), part) for x, part in zip(logits, parts, strict=True)]
    largest = lax.stop_gradient(functools.reduce(jnp.maximum, largest))
    logits = [x - to_part(largest, part)[..., None] for x, part in zip(logits, parts, strict=True)]
  attended, total = 0, 0
  for x, part in zip(logits, parts, strict=True):
    weights = jnp.exp(x)
    total += from_part(jnp.sum(weights, axis=-1), part)
    values = jnp.einsum(
      '...mt,...th->...mh',
      weights.astype(query.dtype),
      part.values,
      preferred_element_type=jnp.float32,
    )
    attended += from_part(values, part)
  return (attended / total[..., None]).astype(query.dtype)


def _is_shared(part):
  """Whether these are a prompt's keys and values, without the axis N."""
  return part.positions.ndim == 2


def _write(cache, own, index):
  """Returns the cache with one token's keys and values in the slot that is its turn."""
  slot = index % cache.positions.shape[-1]
  put = lambda old, new, axis: lax.dynamic_update_slice_in_dim(old, new, slot, axis)
  return KeyValues(
    keys=put(cache.keys, own.keys, 3),
    values=put(cache.values, own.values, 3),
    positions=put(cache.positions, own.positions, 2),
  )


def _norm(norm, x):
  """Applies the library's norm in float32, which its scales are in, as transformers does."""
  return norm(x.astype(jnp.float32)).astype(x.dtype)


def _soft_cap(x, cap):
  return x if cap is None else cap * jnp.tanh(x / cap)


# How an adapter's factors a, b make up the update of a weight, by the weight's name.
_ADAPTER_EINSUMS = {
  'q_einsum': 'Dr,rNH->NDH',
  'kv_einsum': 'Dr,rCKH->CKDH',
  'qkv_einsum': 'Dr,rSNH->SNDH',
  'attn_vec_einsum': 'NHr,rD->NHD',
  'linear': 'Hr,rF->HF',
}


def _add_adapters(weights, adapters, transpose_gating):
  """Returns the weights, each plus its adapter's product."""
  einsums = _ADAPTER_EINSUMS | {
    'gating_einsum': 'Fr,rNH->NHF' if transpose_gating else 'Fr,rNH->NFH'
  }
  merged = traverse_util.flatten_dict(weights)
  factors = traverse_util.flatten_dict(adapters)
  for path in factors:
    *parent, wrapper, _, factor = path  # attn/q_einsum/_LoRAEinsum_0/lora/a, ... or
    if factor == 'b':  #                  mlp/_LoRAEinsum_linear/lora/a, ...
      continue
    name = wrapper.removeprefix('_LoRAEinsum_')
    weight = (*parent, name) if name in einsums else (*parent, 'w')
    einsum = einsums.get(name) or einsums[parent[-1]]
    update = jnp.einsum(einsum, factors[path], factors[*path[:-1], 'b'])
    merged[weight] = (merged[weight] + update).astype(merged[weight].dtype)
  return traverse_util.unflatten_dict(merged)

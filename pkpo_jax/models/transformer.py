"""A language model of any family, for groups of completions that share a prompt.

What families share: the layers one after another, attention over the prompt's keys and values and
the completion's own, the cache, adapters. What they do not is in their `Architecture`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jaxtyping import Bool, Float, Int

from pkpo_jax import sharding
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.attention import MASKED, NOWHERE, KeyValues, attend_in_groups
from pkpo_jax.models.lora import Lora

_EMBEDDING = 'embedder'  # The name of the embedding's parameters in every family.


class Transformer:
  """A model as functions of its parameters.

  Parameters are `{'weights': tree of the family}`, with LoRA also 'adapters', and with a frozen
  embedding also 'embedding', which is then not in 'weights'.
  """

  def __init__(
    self,
    architecture: Architecture,
    dtype: jax.typing.DTypeLike = jnp.float32,
    remat: bool = False,
    lora: Lora | None = None,
    freeze_embedding: bool = False,
    vocab_size: int | None = None,
    attention_block: int | None = None,
  ):
    """Sets up the model; makes no arrays.

    Args:
      architecture: such as `models.architecture_of('gemma2_2b', None)`.
      dtype: of parameters and activations; norms, with their scales, softmax, logits and adapters
        are float32 in any case.
      remat: recompute each block in the backward pass instead of storing what is inside it.
      lora: what adapters are like; None has none.
      freeze_embedding: keep the embedding table apart from the weights, as they are trained.
      vocab_size: tokens from this id on, which pad the embedding table, have probability 0; None
        is the size of the table.
      attention_block: tokens of a completion that attend at a time; see `attend_in_groups`.
    """
    self.architecture = architecture
    self.dtype = dtype
    self.vocab_size = vocab_size or architecture.num_embeddings
    self.windows = architecture.windows
    self.partition_rules = architecture.partition_rules
    self.lora = lora
    # What is neither trained nor saved, of the names at the top of the parameters.
    self.frozen = frozenset({'weights'} if lora else ()) | (
      {'embedding'} if freeze_embedding else frozenset()
    )
    self._freeze_embedding = freeze_embedding
    self._remat = remat
    self._attention_block = attention_block
    self._module = architecture.module(dtype)

  def with_architecture(self, architecture: Architecture) -> 'Transformer':
    """Returns another model with the same settings, whose tokens are all rows of its table."""
    return Transformer(
      *(architecture, self.dtype, self._remat, self.lora, self._freeze_embedding),
      attention_block=self._attention_block,
    )

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Returns random parameters; adapters start at zero effect."""
    tokens = jnp.zeros((1, 1, 1), jnp.int32)
    weights = self._module.init(key, tokens, tokens, method=self._forward)['params']
    weights = {
      path: leaf if path[-1] == 'scale' else leaf.astype(self.dtype)
      for path, leaf in traverse_util.flatten_dict(weights).items()
    }
    params = self.with_frozen_apart(traverse_util.unflatten_dict(weights))
    if self.lora is not None:
      sizes = self.architecture.linear_sizes
      key = jax.random.fold_in(key, 1)  # Weights are the same without adapters.
      params['adapters'] = self.lora.init(key, len(self.windows), sizes)
    return params

  def with_frozen_apart(self, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{'weights': ...}`, and 'embedding' where it is frozen, of all weights."""
    if not self._freeze_embedding:
      return {'weights': dict(weights)}
    rest = {name: tree for name, tree in weights.items() if name != _EMBEDDING}
    return {'weights': rest, 'embedding': {_EMBEDDING: weights[_EMBEDDING]}}

  def weights(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all weights as one tree, without adapters."""
    return {**params['weights'], **params.get('embedding', {})}

  def merge(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{'weights': ...}` with the adapters added in: the same function, without LoRA.

    In bfloat16 the sums are rounded, and adapters that are small beside their weights are lost: to
    sample from what is trained, leave them apart.
    """
    weights = self.weights(params)
    if 'adapters' not in params:
      return {'weights': weights}
    updates = self.lora.updates(params['adapters'])
    merged = traverse_util.flatten_dict(weights, sep='/')
    for name, weight in merged.items():
      recipe = self.architecture.recipe(name)
      if not updates.keys().isdisjoint(recipe.names):
        parts = [
          (part + updates[stored]()).astype(part.dtype) if stored in updates else part
          for stored, part in zip(recipe.names, recipe.split(weight), strict=True)
        ]
        merged[name] = recipe.join(parts)
    return {'weights': traverse_util.unflatten_dict(merged, sep='/')}

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
    return self._module.apply(
      {'params': self.weights(params)},
      *(tokens, positions, memory, cache, index, params.get('adapters')),
      method=self._forward,
    )

  def prompt_positions(self, prompt_mask: Bool[jax.Array, 'P T']) -> Int[jax.Array, 'P T']:
    """Returns positions from 0 on; NOWHERE for the padding on the left."""
    return jnp.where(prompt_mask, jnp.cumsum(prompt_mask, axis=-1) - 1, NOWHERE)

  def head(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that `logits` reads, as parameters."""
    return {'weights': self.architecture.head(self.weights(params))}

  def logits(
    self, params: Mapping[str, Any], hidden: Float[jax.Array, '*b D']
  ) -> Float[jax.Array, '*b V']:
    """Returns the logits of the next token, `[..., V]` float32, nats."""
    logits = self.architecture.logits(self.weights(params), hidden)
    if self.vocab_size == logits.shape[-1]:
      return logits
    return jnp.where(jnp.arange(logits.shape[-1]) < self.vocab_size, logits, MASKED)

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
    heads, size = self.architecture.num_kv_heads, self.architecture.head_dim
    cache = []
    for window in self.windows:
      slots = min(length, window or length)
      shape = (num_prompts, num_samples, heads, slots, size)
      positions = jnp.full((num_prompts, num_samples, slots), NOWHERE, jnp.int32)
      cache.append(KeyValues(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype), positions))
    return tuple(cache)

  def _forward(self, module, tokens, positions, memory=None, cache=None, index=None, adapters=None):
    """Is the method of the Linen module that `__call__` documents."""
    # One token of each completion is less to send than the weights.
    keep = sharding.keep_by_prompts if cache is None else lambda x: x
    x = keep(self.architecture.embed(module, tokens))
    key_values = []
    for i, (block, window) in enumerate(zip(module.blocks, self.windows, strict=True)):
      layer = memory and memory[i], cache and cache[i], (adapters or {}).get(f'layer_{i}', {})
      x, kv = self._apply_block(window, block, x, positions, index, *layer)
      x = keep(x)
      key_values.append(kv)
    return self.architecture.normalize(module, x), tuple(key_values)

  def _apply_block(self, window, block, x, positions, index, memory, cache, adapters):
    """Returns `[P, N, S, D]` and the layer's KeyValues, as `_block` does."""
    if cache is not None or block.is_initializing():
      return self._block(window, block, x, positions, index, memory, cache, adapters)
    block, weights = block.unbind()

    def apply(weights, adapters, x, positions, memory):
      weights, adapters, x = self._ordered(weights, adapters, x)
      bound = block.bind(weights)
      return self._block(window, bound, x, positions, None, memory, None, adapters)

    apply = jax.checkpoint(apply) if self._remat else apply
    return apply(weights, adapters, x, positions, memory)

  def _ordered(self, weights, adapters, x):
    """Returns a layer's inputs, for a backward pass that goes from layer to layer.

    The compiler may put off the gradients of weights and keep what they need of many layers. Here
    the gradient of `x` has to wait for them. And weights that are split over devices have to wait
    for `x`, so those of all layers are not gathered before the first.
    """
    if self.lora is None:
      weights, x = lax.optimization_barrier((weights, x))
    else:
      weights, _ = lax.optimization_barrier((weights, lax.stop_gradient(x)))
      adapters, x = lax.optimization_barrier((adapters, x))
    return weights, adapters, x

  def _block(self, window, block, x, positions, index, memory, cache, adapters):
    """Is a layer: the attention and the feed-forward part of a block that is bound."""
    architecture = self.architecture
    adapt = self.lora.adapt(adapters) if adapters else lambda target, x, y: y
    rows = positions.reshape(-1, positions.shape[-1])
    query, key, value = architecture.project(block, x, rows, adapt)
    attended, key_values = attend_in_groups(
      *(query, key, value, positions, memory, cache, index, window, architecture.soft_cap),
      self._attention_block,
    )
    return architecture.update(block, x, attended, adapt), key_values

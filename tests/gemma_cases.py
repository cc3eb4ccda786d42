"""Small Gemma-2 models for tests, and the gemma library's own forward pass as their oracle."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from gemma import gm

from pkpo_jax import models
from pkpo_jax.models import gemma
from pkpo_jax.models.lora import Lora
from pkpo_jax.models.recipes import LINEAR
from pkpo_jax.models.transformer import Transformer

# Windows and soft caps that short sequences of small models reach.
SMALL = dataclasses.replace(
  gemma.PRESETS['gemma2_tiny'],
  attention_types=gemma.PRESETS['gemma2_tiny'].attention_types[:2],
  num_embed=32,
  embed_dim=32,
  hidden_dim=48,
  head_dim=16,
  sliding_window_size=5,
  attn_logits_soft_cap=2.0,
  final_logit_softcap=3.0,
)
ARCHITECTURES = {
  'grouped_query': SMALL,
  'one_kv_head_each': dataclasses.replace(SMALL, num_kv_heads=4),
  'transposed_gating': dataclasses.replace(SMALL, transpose_gating_einsum=True),
}


def make_model(config, lora_rank: int | None = None, **options) -> Transformer:
  """Returns the model of a config of the library."""
  lora = None if lora_rank is None else Lora(lora_rank, float(lora_rank), tuple(LINEAR))
  return Transformer(gemma.Gemma(config), lora=lora, **options)


def name_preset(monkeypatch, config, name: str = 'small') -> None:
  """Makes a config of the library a preset of that name."""
  monkeypatch.setitem(models.PRESETS, name, 'gemma2')
  monkeypatch.setitem(gemma.PRESETS, name, config)


@functools.cache
def random_params(model: Transformer, seed: int = 0):
  """Returns parameters far from the nearly uniform initial policy."""
  params = model.init(jax.random.key(seed))
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
  noisy = [
    (x + 0.3 * jax.random.normal(key, x.shape)).astype(x.dtype)
    for x, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, noisy)


class _Library(gm.nn.Transformer):
  """The library's transformer with a config of ours."""


@functools.partial(jax.jit, static_argnums=0)
def library_logits(config, weights, tokens):
  """Returns the logits `[B, T, V]` that the gemma library computes, without a cache."""
  return _Library(config=config, dtype=jnp.float32).apply({'params': weights}, tokens).logits

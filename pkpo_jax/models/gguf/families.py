"""What the tensors and metadata of a GGUF file are in a Hugging Face folder, family by family."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from pkpo_jax.errors import DataError
from pkpo_jax.models.gguf.reading import GGUFFile

_SAME = lambda array: array


class Source(NamedTuple):
  """Where a tensor of Hugging Face comes from.

  Attributes:
    name: of the tensor in the GGUF file.
    shape: in both.
    change: makes Hugging Face's array of the GGUF's.
  """

  name: str
  shape: tuple[int, ...]
  change: Callable[[np.ndarray], np.ndarray] = _SAME


class _Sizes(NamedTuple):
  """The numbers that all families have, by the names of transformers."""

  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_hidden_layers: int
  num_attention_heads: int
  num_key_value_heads: int
  head_dim: int
  max_position_embeddings: int
  rms_norm_eps: float


def config_and_sources(file: GGUFFile) -> tuple[dict[str, Any], dict[str, Source]]:
  """Returns what config.json is to say, and each tensor's source by its Hugging Face name.

  Raises:
    DataError: if the architecture is not one of FAMILIES, a field is missing or has a value that is
      not supported, or a tensor is missing, unknown or of another shape; names it.
  """
  architecture = file.need('general.architecture', str)
  if architecture not in FAMILIES:
    raise DataError(
      f'{file.path}: general.architecture: expected one of {sorted(FAMILIES)}, found '
      f'{architecture!r}.'
    )
  sizes = _sizes(file, architecture)
  config, layer_sources, taken = FAMILIES[architecture](file, sizes)
  norm = _subtract_one if architecture.startswith('gemma') else _SAME
  table = sizes.vocab_size, sizes.hidden_size
  sources = {'model.embed_tokens.weight': Source('token_embd.weight', table)}
  for layer in range(sizes.num_hidden_layers):
    for name, (stored, shape, change) in layer_sources.items():
      full_name = f'model.layers.{layer}.{name}'
      sources[full_name] = Source(f'blk.{layer}.{stored}', shape, change)
  sources['model.norm.weight'] = Source('output_norm.weight', (sizes.hidden_size,), norm)
  is_tied = 'output.weight' not in file.tensors
  if not is_tied:
    sources['lm_head.weight'] = Source('output.weight', table)
  _check_tensors(file, sources.values(), taken)
  ids = {
    f'{role}_token_id': file.optional(f'tokenizer.ggml.{field}_token_id', int)
    for role, field in (('bos', 'bos'), ('eos', 'eos'), ('pad', 'padding'))
  }
  common = {
    **sizes._asdict(),
    **ids,
    'tie_word_embeddings': is_tied,
    'attention_bias': False,
    'attention_dropout': 0.0,
    'initializer_range': 0.02,
  }
  return {**common, **config}, sources


def _sizes(file: GGUFFile, family: str) -> _Sizes:
  embedding = file.tensors.get('token_embd.weight')
  if embedding is None or len(embedding.shape) != 2:
    raise DataError(f'{file.path}: token_embd.weight: expected a matrix, found {embedding}.')
  vocab_size = file.optional(f'{family}.vocab_size', int, embedding.shape[0])
  if vocab_size != embedding.shape[0]:
    raise DataError(
      f'{file.path}: {family}.vocab_size: expected {embedding.shape[0]}, the rows of '
      f'token_embd.weight, found {vocab_size}.'
    )
  width = file.need(f'{family}.embedding_length', int)
  heads = file.need(f'{family}.attention.head_count', int)
  if heads < 1:
    raise DataError(f'{file.path}: {family}.attention.head_count: expected 1 or more, got {heads}.')
  # What is written is single precision: 1e-6 comes as 9.99999997e-07.
  eps = float(f'{file.need(f"{family}.attention.layer_norm_rms_epsilon", float):.6g}')
  return _Sizes(
    vocab_size=vocab_size,
    hidden_size=width,
    intermediate_size=file.need(f'{family}.feed_forward_length', int),
    num_hidden_layers=file.need(f'{family}.block_count', int),
    num_attention_heads=heads,
    num_key_value_heads=file.optional(f'{family}.attention.head_count_kv', int, heads),
    head_dim=file.optional(f'{family}.attention.key_length', int, width // heads),
    max_position_embeddings=file.need(f'{family}.context_length', int),
    rms_norm_eps=eps,
  )


def _check_tensors(file: GGUFFile, sources: Iterable[Source], taken: set[str]):
  """Raises DataError about a tensor that is missing, of another shape, or not known."""
  known = set(taken)
  for name, shape, _ in sources:
    known.add(name)
    if name not in file.tensors:
      raise DataError(f'{file.path}: {name}: expected shape {shape}, found no such tensor.')
    if file.tensors[name].shape != shape:
      found = file.tensors[name].shape
      raise DataError(f'{file.path}: {name}: expected shape {shape}, found {found}.')
  for name in file.tensors:
    if name not in known:
      raise DataError(f'{file.path}: {name}: expected no such tensor of this architecture.')


# Layers.


def _common_layer(sizes: _Sizes) -> dict[str, Source]:
  """Returns the matrices that a layer of each family has, and its first norm."""
  width, hidden = sizes.hidden_size, sizes.intermediate_size
  queries = sizes.num_attention_heads * sizes.head_dim
  keys = sizes.num_key_value_heads * sizes.head_dim
  return {
    'input_layernorm.weight': Source('attn_norm.weight', (width,)),
    'self_attn.q_proj.weight': Source('attn_q.weight', (queries, width)),
    'self_attn.k_proj.weight': Source('attn_k.weight', (keys, width)),
    'self_attn.v_proj.weight': Source('attn_v.weight', (keys, width)),
    'self_attn.o_proj.weight': Source('attn_output.weight', (width, queries)),
    'mlp.gate_proj.weight': Source('ffn_gate.weight', (hidden, width)),
    'mlp.up_proj.weight': Source('ffn_up.weight', (hidden, width)),
    'mlp.down_proj.weight': Source('ffn_down.weight', (width, hidden)),
  }


def _qk_norms(sizes: _Sizes) -> dict[str, Source]:
  return {
    f'self_attn.{letter}_norm.weight': Source(f'attn_{letter}_norm.weight', (sizes.head_dim,))
    for letter in 'qk'
  }


def _subtract_one(array: np.ndarray) -> np.ndarray:
  """Returns a norm's weight as Gemma has it, who scales by 1 + weight; llama.cpp by weight."""
  return array - 1


def _half_split(heads: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns what orders the rows of a head for RoPE on (i, i + H/2); llama.cpp has (2i, 2i + 1)."""

  def change(array: np.ndarray) -> np.ndarray:
    split = array.reshape(heads, -1, 2, array.shape[-1])
    return split.swapaxes(1, 2).reshape(array.shape)

  return change


# Families.


def _llama(file: GGUFFile, sizes: _Sizes):
  rope_size = file.optional('llama.rope.dimension_count', int, sizes.head_dim)
  if rope_size != sizes.head_dim:
    raise DataError(
      f'{file.path}: llama.rope.dimension_count: expected {sizes.head_dim}, the numbers of a head, '
      f'found {rope_size}.'
    )
  layer = _common_layer(sizes)
  for letter, heads in (('q', sizes.num_attention_heads), ('k', sizes.num_key_value_heads)):
    name = f'self_attn.{letter}_proj.weight'
    layer[name] = layer[name]._replace(change=_half_split(heads))
  layer['post_attention_layernorm.weight'] = Source('ffn_norm.weight', (sizes.hidden_size,))
  base = _rope_base(file, 'llama', 10_000.0)
  config = {
    'model_type': 'llama',
    'architectures': ['LlamaForCausalLM'],
    'hidden_act': 'silu',
    'mlp_bias': False,
    'rope_theta': base,
    'rope_scaling': _rope_scaling(file, 'llama') or _llama3_scaling(file, sizes.head_dim, base),
  }
  return config, layer, {'rope_freqs.weight'}


def _qwen2(file: GGUFFile, sizes: _Sizes):
  layer = _common_layer(sizes)
  for letter in 'qkv':
    rows, _ = layer[f'self_attn.{letter}_proj.weight'].shape
    layer[f'self_attn.{letter}_proj.bias'] = Source(f'attn_{letter}.bias', (rows,))
  return _qwen(file, sizes, 'qwen2', layer)


def _qwen3(file: GGUFFile, sizes: _Sizes):
  return _qwen(file, sizes, 'qwen3', {**_common_layer(sizes), **_qk_norms(sizes)})


def _qwen(file: GGUFFile, sizes: _Sizes, family: str, layer: dict[str, Source]):
  layer['post_attention_layernorm.weight'] = Source('ffn_norm.weight', (sizes.hidden_size,))
  config = {
    'model_type': family,
    'architectures': [f'{family.capitalize()}ForCausalLM'],
    'hidden_act': 'silu',
    'use_sliding_window': False,
    'rope_theta': _rope_base(file, family, 10_000.0),
    'rope_scaling': _rope_scaling(file, family),
  }
  return config, layer, set()


def _gemma_layer(sizes: _Sizes) -> dict[str, Source]:
  layer = _common_layer(sizes)
  for name, stored in (
    ('input_layernorm', 'attn_norm'),
    ('post_attention_layernorm', 'post_attention_norm'),
    ('pre_feedforward_layernorm', 'ffn_norm'),
    ('post_feedforward_layernorm', 'post_ffw_norm'),
  ):
    layer[f'{name}.weight'] = Source(f'{stored}.weight', (sizes.hidden_size,), _subtract_one)
  return layer


def _gemma2(file: GGUFFile, sizes: _Sizes):
  config = {
    'model_type': 'gemma2',
    'architectures': ['Gemma2ForCausalLM'],
    'attn_logit_softcapping': _soft_cap(file, 'attn'),
    'final_logit_softcapping': _soft_cap(file, 'final'),
    'rope_theta': _rope_base(file, 'gemma2', 10_000.0),
    'rope_scaling': _rope_scaling(file, 'gemma2'),
    **_gemma(file, sizes, 'gemma2', pattern=2, blocks_of_27b=46),
  }
  return config, _gemma_layer(sizes), set()


def _gemma3(file: GGUFFile, sizes: _Sizes):
  norms = {name: x._replace(change=_subtract_one) for name, x in _qk_norms(sizes).items()}
  config = {
    'model_type': 'gemma3_text',
    'architectures': ['Gemma3ForCausalLM'],
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'rope_theta': _rope_base(file, 'gemma3', 1_000_000.0),
    # Older files do not tell it; all released Gemma-3 have this one.
    'rope_local_base_freq': file.optional('gemma3.rope.freq_base_swa', float, 10_000.0),
    'rope_scaling': _rope_scaling(file, 'gemma3'),
    **_gemma(file, sizes, 'gemma3', pattern=6, blocks_of_27b=62),
  }
  return config, {**_gemma_layer(sizes), **norms}, set()


def _gemma(
  file: GGUFFile, sizes: _Sizes, family: str, pattern: int, blocks_of_27b: int
) -> dict[str, Any]:
  """Returns the fields of both Gemmas: each `pattern`-th layer attends to everything."""
  pattern = file.optional(f'{family}.attention.sliding_window_pattern', int, pattern)
  # No field of the file tells the scale. As in llama.cpp, the number of layers gives away the 27B,
  # the only one that scales by the width of the model over its heads.
  is_27b = sizes.num_hidden_layers == blocks_of_27b
  return {
    'hidden_activation': 'gelu_pytorch_tanh',
    'query_pre_attn_scalar': (
      sizes.hidden_size // sizes.num_attention_heads if is_27b else sizes.head_dim
    ),
    'sliding_window': file.need(f'{family}.attention.sliding_window', int),
    'layer_types': [
      'sliding_attention' if (layer + 1) % pattern else 'full_attention'
      for layer in range(sizes.num_hidden_layers)
    ],
  }


def _soft_cap(file: GGUFFile, which: str) -> float:
  return file.need(f'gemma2.{which}_logit_softcapping', float)


# RoPE.


def _rope_base(file: GGUFFile, family: str, default: float) -> float:
  return file.optional(f'{family}.rope.freq_base', float, default)


def _rope_scaling(file: GGUFFile, family: str) -> dict[str, Any] | None:
  """Returns transformers' rope_scaling: None, or linear."""
  field = f'{family}.rope.scaling.type'
  kind = file.optional(field, str, 'none')
  if kind == 'none':
    return None
  if kind != 'linear':
    raise DataError(f"{file.path}: {field}: expected 'none' or 'linear', found {kind!r}.")
  factor = file.need(f'{family}.rope.scaling.factor', float)
  return {'rope_type': 'linear', 'factor': factor}


def _llama3_scaling(file: GGUFFile, head_dim: int, base: float) -> dict[str, Any] | None:
  """Returns Llama-3's rope_scaling if the file has what llama.cpp makes of it.

  That is a factor for each wave length. All released Llama 3.1 to 3.3 share the other three
  numbers; that they are those of this file is checked.
  """
  name = 'rope_freqs.weight'
  if name not in file.tensors:
    return None
  found = np.concatenate([chunk.reshape(-1) for chunk in file.chunks(name)])
  scaling = {
    'rope_type': 'llama3',
    'factor': round(float(found.max()), 3),
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 8192,
  }
  lengths = 2 * math.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
  turns = 8192 / lengths
  smooth = np.clip((turns - 1.0) / (4.0 - 1.0), 0.0, 1.0)
  expected = 1 / ((1 - smooth) / scaling['factor'] + smooth)
  if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4):
    raise DataError(
      f'{file.path}: {name}: expected the factors of {scaling} over {head_dim // 2} wave lengths, '
      f'found {found.size} others.'
    )
  return scaling


# By general.architecture. Each returns the config's fields, a layer's tensors by their Hugging Face
# names, and the names of tensors that the config has taken in.
FAMILIES = {
  'gemma2': _gemma2,
  'gemma3': _gemma3,
  'llama': _llama,
  'qwen2': _qwen2,
  'qwen3': _qwen3,
}

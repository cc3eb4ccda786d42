"""Small GGUF files as llama.cpp's converter writes them, and the tensors they were made of.

Their numbers are such that 8-bit blocks hold them exactly.
"""

import gguf
import numpy as np

SIZES = dict(width=32, hidden=64, layers=2, heads=2, kv_heads=1, head_dim=16, context=128)
CONTROL, USER_DEFINED, UNUSED, BYTE = 3, 4, 5, 6

_WORDS = ['the', 'he', 'th', '▁the', '▁t', '▁h', 'an', 'and', '▁an', '▁and', '▁▁▁', 'é', '▁é']
# Ids 0 to 5, then text that is one token wherever it is, with its spaces as llama.cpp has them.
SENTENCEPIECE = [('<pad>', CONTROL), ('<eos>', CONTROL), ('<bos>', CONTROL), ('<unk>', CONTROL)]
SENTENCEPIECE += [('<start_of_turn>', CONTROL), ('<end_of_turn>', CONTROL)]
SENTENCEPIECE += [('\n', USER_DEFINED), ('\n\n', USER_DEFINED), ('  ', USER_DEFINED)]
SENTENCEPIECE += [(f'<0x{i:02X}>', BYTE) for i in range(256)]
SENTENCEPIECE += [(word, 1) for word in _WORDS]
SENTENCEPIECE += [(c, 1) for c in '▁abcdefghijklmnopqrstuvwxyz.,0123456789']

MERGES = ['t h', 'th e', 'Ġ the', 'h e', 'a n', 'an d', 'Ġ an', 'Ġan d', 'Ġ Ġ', 'ĠĠ Ġ', 'Ã ©']
MERGES += ['1 2', '12 3', 'Ġ 1', "' s"]


def byte_characters():
  """Returns the 256 characters that byte-level BPE writes for bytes, as GPT-2 chose them."""
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = iter(range(256, 512))
  return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def byte_level():
  tokens = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
  kinds = [CONTROL] * len(tokens)
  tokens += byte_characters() + [merge.replace(' ', '') for merge in MERGES] + ['[PAD0]']
  return tokens, kinds + [1] * (len(tokens) - len(kinds) - 1) + [UNUSED]


def weights(family, rng, vocab_size, tied=True):
  """Returns the tensors of a model by the names of Hugging Face."""
  width, hidden, layers, heads, kv_heads, head_dim, _ = SIZES.values()

  def draw(*shape):
    # A block of 32 with 127 in it is stored with a scale of 1.
    array = rng.integers(-126, 127, shape).astype(np.float32)
    array.reshape(-1)[:: min(32, array.size)] = 127
    return array

  arrays = {'model.embed_tokens.weight': draw(vocab_size, width)}
  for i in range(layers):
    layer = {
      'self_attn.q_proj.weight': draw(heads * head_dim, width),
      'self_attn.k_proj.weight': draw(kv_heads * head_dim, width),
      'self_attn.v_proj.weight': draw(kv_heads * head_dim, width),
      'self_attn.o_proj.weight': draw(width, heads * head_dim),
      'mlp.gate_proj.weight': draw(hidden, width),
      'mlp.up_proj.weight': draw(hidden, width),
      'mlp.down_proj.weight': draw(width, hidden),
      'input_layernorm.weight': draw(width),
      'post_attention_layernorm.weight': draw(width),
    }
    if family.startswith('gemma'):
      layer['pre_feedforward_layernorm.weight'] = draw(width)
      layer['post_feedforward_layernorm.weight'] = draw(width)
    if family in ('gemma3', 'qwen3'):
      layer['self_attn.q_norm.weight'] = draw(head_dim)
      layer['self_attn.k_norm.weight'] = draw(head_dim)
    if family == 'qwen2':
      layer['self_attn.q_proj.bias'] = draw(heads * head_dim)
      layer['self_attn.k_proj.bias'] = draw(kv_heads * head_dim)
      layer['self_attn.v_proj.bias'] = draw(kv_heads * head_dim)
    arrays |= {f'model.layers.{i}.{name}': array for name, array in layer.items()}
  arrays['model.norm.weight'] = draw(width)
  return arrays if tied else {**arrays, 'lm_head.weight': draw(vocab_size, width)}


_NAMES = {'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output'}
_IN_LAYER = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  'input_layernorm': 'attn_norm',
}
_NORMS = {'post_attention_layernorm': 'ffn_norm'}
_GEMMA_NORMS = {
  'post_attention_layernorm': 'post_attention_norm',
  'pre_feedforward_layernorm': 'ffn_norm',
  'post_feedforward_layernorm': 'post_ffw_norm',
}


def _stored(family, name, array):
  """Returns a tensor under llama.cpp's name and in its layout."""
  module, _, kind = name.rpartition('.')
  is_gemma = family.startswith('gemma')
  if is_gemma and 'norm' in module:
    array = array + 1
  if family == 'llama' and module.endswith(('q_proj', 'k_proj')):
    heads = SIZES['heads'] if module.endswith('q_proj') else SIZES['kv_heads']
    halves = array.reshape(heads, 2, SIZES['head_dim'] // 2, -1)
    # Row i of the first half, then row i of the second.
    array = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(array.shape)
  if module in _NAMES:
    return f'{_NAMES[module]}.{kind}', array
  _, _, layer, inner = module.split('.', 3)
  names = _IN_LAYER | (_GEMMA_NORMS if is_gemma else _NORMS)
  return f'blk.{layer}.{names[inner]}.{kind}', array


def write(path, family, *, tied=True, fields=(), drop=(), extra=(), template=None, pre=None):
  """Writes a GGUF file; returns the tensors it was made of by their Hugging Face names.

  Args:
    fields: further metadata, which replaces what is there.
    drop: names of metadata or tensors to leave out.
    extra: further tensors.
  """
  width, hidden, layers, heads, kv_heads, head_dim, context = SIZES.values()
  metadata = {
    f'{family}.context_length': context,
    f'{family}.embedding_length': width,
    f'{family}.block_count': layers,
    f'{family}.feed_forward_length': hidden,
    f'{family}.attention.head_count': heads,
    f'{family}.attention.head_count_kv': kv_heads,
    f'{family}.attention.layer_norm_rms_epsilon': 1e-6,
    f'{family}.attention.key_length': head_dim,
    f'{family}.rope.freq_base': 500_000.0,
    'tokenizer.ggml.eos_token_id': 1,
    'tokenizer.ggml.bos_token_id': 2,
  }
  if family.startswith('gemma'):
    tokens, kinds = zip(*SENTENCEPIECE, strict=True)
    scores = [-float(i) for i in range(len(tokens))]
    metadata |= {
      f'{family}.attention.sliding_window': 8,
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.scores': scores,
      'tokenizer.ggml.padding_token_id': 0,
      'tokenizer.ggml.unknown_token_id': 3,
      'tokenizer.ggml.add_space_prefix': False,
    }
  else:
    tokens, kinds = byte_level()
    metadata |= {
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': pre or ('qwen2' if family.startswith('qwen') else 'smollm'),
      'tokenizer.ggml.merges': MERGES,
      'tokenizer.ggml.eos_token_id': 2,
      'tokenizer.ggml.bos_token_id': 1,
    }
  if family == 'gemma2':
    metadata |= {'gemma2.attn_logit_softcapping': 50.0, 'gemma2.final_logit_softcapping': 30.0}
  metadata |= {'tokenizer.ggml.tokens': list(tokens), 'tokenizer.ggml.token_type': list(kinds)}
  if template is not None:
    metadata['tokenizer.chat_template'] = template
  metadata |= dict(fields)
  arrays = weights(family, np.random.default_rng(0), len(tokens), tied)
  writer = gguf.GGUFWriter(path, metadata.pop('general.architecture', family))
  for name, value in metadata.items():
    if name not in drop:
      add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
      add |= {str: writer.add_string, list: writer.add_array}
      add[type(value)](name, value)
  stored = dict(_stored(family, *item) for item in arrays.items()) | dict(extra)
  for name, array in stored.items():
    if name not in drop:
      is_matrix = array.ndim == 2
      kind = gguf.GGMLQuantizationType.Q8_0 if is_matrix else gguf.GGMLQuantizationType.F32
      writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return arrays

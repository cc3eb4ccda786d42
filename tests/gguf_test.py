"""GGUF files become the Hugging Face folders they were made of; bad ones are named."""

import json
import re
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip('gguf', reason='gguf is not installed: it is in the extra `gguf`')

from pkpo_jax.errors import DataError, FieldError, MissingDataError
from pkpo_jax.models.gguf import convert
from tests import gguf_cases

FAMILIES = ['gemma2', 'gemma3', 'llama', 'qwen2', 'qwen3']


def read(folder, name='config.json'):
  return json.loads((folder / name).read_text())


@pytest.mark.parametrize('family', FAMILIES)
def test_the_tensors_are_those_it_was_made_of(family, tmp_path):
  tied = family != 'llama'
  expected = gguf_cases.write(tmp_path / 'model.gguf', family, tied=tied)
  folder = convert(tmp_path / 'model.gguf', tmp_path / 'out')
  found = load_file(folder / 'model.safetensors')
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], array, err_msg=name)
  config = read(folder)
  assert config['tie_word_embeddings'] == tied
  assert config['model_type'] == {'gemma3': 'gemma3_text'}.get(family, family)
  sizes = {
    'hidden_size': 32,
    'intermediate_size': 64,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'num_key_value_heads': 1,
    'head_dim': 16,
    'max_position_embeddings': 128,
    'rms_norm_eps': 1e-6,
    'rope_theta': 500_000.0,
    'rope_scaling': None,
    'vocab_size': len(expected['model.embed_tokens.weight']),
  }
  assert {name: config[name] for name in sizes} == sizes


def test_what_only_gemma_has(tmp_path):
  gguf_cases.write(tmp_path / 'gemma2.gguf', 'gemma2')
  gemma2 = read(convert(tmp_path / 'gemma2.gguf', tmp_path / 'gemma2'))
  scaling = {'gemma3.rope.scaling.type': 'linear', 'gemma3.rope.scaling.factor': 8.0}
  gguf_cases.write(tmp_path / 'gemma3.gguf', 'gemma3', fields=scaling)
  gemma3 = read(convert(tmp_path / 'gemma3.gguf', tmp_path / 'gemma3'))
  assert (gemma2['attn_logit_softcapping'], gemma2['final_logit_softcapping']) == (50.0, 30.0)
  assert gemma2['layer_types'] == ['sliding_attention', 'full_attention']
  assert gemma3['layer_types'] == ['sliding_attention'] * 2  # The sixth would see everything.
  assert gemma3['rope_scaling'] == {'rope_type': 'linear', 'factor': 8.0}
  assert (gemma3['rope_local_base_freq'], gemma3['attn_logit_softcapping']) == (10_000.0, None)
  for config in (gemma2, gemma3):
    assert (config['sliding_window'], config['query_pre_attn_scalar']) == (8, 16)
    assert [config[f'{role}_token_id'] for role in ('pad', 'eos', 'bos')] == [0, 1, 2]


def llama3_factors(factor):
  """As the released Llama 3.1 has them, by the definition: Meta's apply_scaling, wave by wave."""
  factors = []
  for i in range(0, 16, 2):
    length = 2 * np.pi * 500_000.0 ** (i / 16)
    if length < 8192 / 4:
      factors.append(1.0)
    elif length > 8192 / 1:
      factors.append(factor)
    else:
      smooth = (8192 / length - 1) / (4 - 1)
      factors.append(1 / ((1 - smooth) / factor + smooth))
  return np.array(factors, np.float32)


def test_llama3_scaling_is_recognized(tmp_path):
  factors = {'rope_freqs.weight': llama3_factors(32.0)}
  gguf_cases.write(tmp_path / 'model.gguf', 'llama', extra=factors)
  assert read(convert(tmp_path / 'model.gguf', tmp_path / 'out'))['rope_scaling'] == {
    'rope_type': 'llama3',
    'factor': 32.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 8192,
  }
  other = {'rope_freqs.weight': llama3_factors(32.0) ** 0.9}
  gguf_cases.write(tmp_path / 'other.gguf', 'llama', extra=other)
  with pytest.raises(DataError, match=r'other.gguf: rope_freqs.weight: expected the factors of'):
    convert(tmp_path / 'other.gguf', tmp_path / 'other')


def test_bfloat16_is_rounded_to_the_nearest(tmp_path):
  expected = gguf_cases.write(tmp_path / 'model.gguf', 'qwen3')
  folder = convert(tmp_path / 'model.gguf', tmp_path / 'out', dtype='bfloat16')
  for name, array in load_file(folder / 'model.safetensors').items():
    assert array.dtype == jnp.bfloat16
    np.testing.assert_array_equal(array, expected[name].astype(jnp.bfloat16))
  assert read(folder)['torch_dtype'] == 'bfloat16'


def test_a_finished_folder_stays(tmp_path):
  gguf_cases.write(tmp_path / 'model.gguf', 'qwen3')
  folder = convert(tmp_path / 'model.gguf', tmp_path / 'out')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['model.gguf', 'out']
  (folder / 'model.safetensors').write_bytes(b'as it was')
  convert(tmp_path / 'model.gguf', folder)
  assert (folder / 'model.safetensors').read_bytes() == b'as it was'
  with pytest.raises(DataError, match=r"dtype: expected 'bfloat16', found 'float32'"):
    convert(tmp_path / 'model.gguf', folder, dtype='bfloat16')
  gguf_cases.write(tmp_path / 'model.gguf', 'qwen3', tied=False)
  with pytest.raises(DataError, match=r'converted_from.json: sha256: expected'):
    convert(tmp_path / 'model.gguf', folder)
  (tmp_path / 'mine').mkdir()
  with pytest.raises(DataError, match=r'mine: expected no such folder or one with'):
    convert(tmp_path / 'model.gguf', tmp_path / 'mine')


CHANGES = [
  (dict(fields={'general.architecture': 'rwkv'}), 'general.architecture: expected one of'),
  (dict(drop=['llama.block_count']), 'llama.block_count: expected int, found no such field.'),
  (dict(fields={'llama.block_count': 'two'}), "llama.block_count: expected int, found 'two'."),
  (dict(fields={'llama.block_count': 3}), r'blk.2.attn_norm.weight: expected shape (32,), found'),
  (dict(fields={'llama.block_count': 1}), 'blk.1.attn_q.weight: expected no such tensor of this'),
  (dict(drop=['token_embd.weight']), 'token_embd.weight: expected a matrix, found None.'),
  (
    dict(fields={'llama.vocab_size': 300}),
    'llama.vocab_size: expected 275, the rows of token_embd',
  ),
  (dict(drop=['blk.1.ffn_up.weight']), 'blk.1.ffn_up.weight: expected shape (64, 32), found no'),
  (
    dict(fields={'llama.feed_forward_length': 32}),
    'blk.0.ffn_gate.weight: expected shape (32, 32), found (64, 32).',
  ),
  (
    dict(extra={'blk.0.x.weight': np.ones((4, 32), np.float32)}),
    'blk.0.x.weight: expected no such',
  ),
  (dict(fields={'llama.rope.scaling.type': 'yarn'}), "expected 'none' or 'linear', found 'yarn'."),
  (dict(fields={'llama.rope.dimension_count': 8}), 'rope.dimension_count: expected 16'),
  (dict(fields={'tokenizer.ggml.pre': 'other'}), "ggml.pre: expected one of ['deepseek-r1-qwen'"),
  (dict(fields={'tokenizer.ggml.model': 't5'}), "ggml.model: expected 'llama' (SentencePiece)"),
  (dict(fields={'tokenizer.ggml.eos_token_id': 999}), 'eos_token_id: expected an id below 275'),
  (dict(fields={'tokenizer.ggml.token_type': [1, 1]}), 'token_type: expected 275 entries'),
  (dict(drop=['tokenizer.ggml.merges']), 'tokenizer.ggml.merges: expected list, found no such'),
  (dict(drop=['tokenizer.ggml.eos_token_id']), 'eos_token_id: expected the id that ends a text'),
]


@pytest.mark.parametrize('change, message', CHANGES)
def test_what_does_not_fit_is_named(change, message, tmp_path):
  path = tmp_path / 'model.gguf'
  gguf_cases.write(path, 'llama', **change)
  with pytest.raises(DataError, match=re.escape(message)) as error:
    convert(path, tmp_path / 'out')
  assert str(error.value).startswith(f'{path}: ') and '\n' not in str(error.value)
  assert [item.name for item in tmp_path.iterdir()] == ['model.gguf']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  path = tmp_path_factory.mktemp('gguf') / 'whole.gguf'
  gguf_cases.write(path, 'qwen3')
  return path.read_bytes()


def test_a_file_that_ends_anywhere_is_named(whole, tmp_path):
  path = tmp_path / 'model.gguf'
  # Within each part of the header, at the ends of parts, and within the tensors.
  for size in [0, 3, 4, 7, 8, 23, 24, *range(25, len(whole), 997), len(whole) - 33]:
    path.write_bytes(whole[:size])
    with pytest.raises(DataError, match=re.escape(f'{path}: ')):
      convert(path, tmp_path / 'out')


def test_the_tensor_that_is_cut_is_named(whole, tmp_path):
  path = tmp_path / 'model.gguf'
  path.write_bytes(whole[:-100])
  message = r'model.gguf: output_norm.weight: expected 128 bytes from byte .*: it is truncated'
  with pytest.raises(DataError, match=message):
    convert(path, tmp_path / 'out')


def test_a_length_beyond_the_file_fills_no_memory(whole, tmp_path):
  path = tmp_path / 'model.gguf'
  name = b'tokenizer.ggml.merges'
  start = whole.index(name) + len(name) + 4 + 4  # Its type and that of its entries.
  path.write_bytes(whole[:start] + struct.pack('<Q', 2**50) + whole[start + 8 :])
  with pytest.raises(DataError, match=r'tokenizer.ggml.merges: expected 9,007,199,254,740,992 byt'):
    convert(path, tmp_path / 'out')


@pytest.mark.parametrize('number, name', [(15, 'Q8_K'), (999, '999')])
def test_an_unknown_quantization_is_named(number, name, whole, tmp_path):
  path = tmp_path / 'model.gguf'
  at = whole.index(b'blk.0.attn_q.weight') + len(b'blk.0.attn_q.weight') + 4 + 2 * 8
  path.write_bytes(whole[:at] + struct.pack('<I', number) + whole[at + 4 :])
  message = f'blk.0.attn_q.weight: expected a quantization that gguf .*, found .*{name}'
  with pytest.raises(DataError, match=message):
    convert(path, tmp_path / 'out')


def test_what_is_no_gguf_is_named(tmp_path):
  with pytest.raises(MissingDataError, match=r'none.gguf: expected a GGUF file, found none'):
    convert(tmp_path / 'none.gguf', tmp_path / 'out')
  (tmp_path / 'zip.gguf').write_bytes(b'PK\x03\x04' + bytes(100))
  with pytest.raises(DataError, match=r"zip.gguf: expected b'GGUF' at the start"):
    convert(tmp_path / 'zip.gguf', tmp_path / 'out')
  (tmp_path / 'v1.gguf').write_bytes(b'GGUF' + struct.pack('<IQQ', 1, 0, 0))
  with pytest.raises(DataError, match=r'v1.gguf: version: expected one of \(2, 3\), found 1'):
    convert(tmp_path / 'v1.gguf', tmp_path / 'out')
  with pytest.raises(FieldError, match=r"dtype: expected one of .*, got 'int8'"):
    convert(tmp_path / 'v1.gguf', tmp_path / 'out', dtype='int8')

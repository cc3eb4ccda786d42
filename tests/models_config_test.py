"""A config.json gives the architecture, or one line that names the field."""

import json
import re

import pytest

from benchmarks.parity import FIXTURES
from pkpo_jax import models
from pkpo_jax.errors import DataError, FieldError, MissingDataError
from pkpo_jax.models import architecture_of, loading
from pkpo_jax.models.decoder import RopeScaling

# Fields of the released models' files, as they are there.
LLAMA_3_2 = dict(
  model_type='llama',
  attention_bias=False,
  head_dim=64,
  hidden_act='silu',
  hidden_size=2048,
  intermediate_size=8192,
  mlp_bias=False,
  num_attention_heads=32,
  num_hidden_layers=16,
  num_key_value_heads=8,
  rms_norm_eps=1e-5,
  rope_scaling={
    'factor': 32.0,
    'high_freq_factor': 4.0,
    'low_freq_factor': 1.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'llama3',
  },
  rope_theta=500_000.0,
  tie_word_embeddings=True,
  vocab_size=128_256,
)
QWEN_2_5 = dict(
  model_type='qwen2',
  hidden_act='silu',
  hidden_size=3584,
  intermediate_size=18_944,
  max_window_layers=28,
  num_attention_heads=28,
  num_hidden_layers=28,
  num_key_value_heads=4,
  rms_norm_eps=1e-6,
  rope_theta=1_000_000.0,
  sliding_window=131_072,
  tie_word_embeddings=False,
  use_sliding_window=False,
  vocab_size=152_064,
)
GEMMA_3_4B = dict(
  model_type='gemma3',
  text_config=dict(
    hidden_size=2560,
    intermediate_size=10_240,
    model_type='gemma3_text',
    num_hidden_layers=34,
    rope_scaling={'factor': 8.0, 'rope_type': 'linear'},
    sliding_window=1024,
  ),
)
GEMMA_2_2B = dict(
  model_type='gemma2',
  attn_logit_softcapping=50.0,
  final_logit_softcapping=30.0,
  head_dim=256,
  hidden_activation='gelu_pytorch_tanh',
  hidden_size=2304,
  intermediate_size=9216,
  num_attention_heads=8,
  num_hidden_layers=26,
  num_key_value_heads=4,
  query_pre_attn_scalar=256,
  rms_norm_eps=1e-6,
  rope_theta=10_000.0,
  sliding_window=4096,
  vocab_size=256_000,
)


def _folder(path, fields):
  (path / 'config.json').write_text(json.dumps(fields))
  return str(path)


def _error(path, fields, message):
  with pytest.raises(DataError, match=re.escape(f'{path}/config.json: {message}')):
    architecture_of(None, _folder(path, fields))


def test_presets_are_those_of_their_families():
  for name, model_type in models.PRESETS.items():
    architecture = architecture_of(name, None)
    assert architecture.name == name
    assert model_type in architecture.model_types
  from pkpo_jax.models import decoder, gemma

  assert models.PRESETS.keys() == gemma.PRESETS.keys() | decoder.PRESETS.keys()


def test_released_files_are_read(tmp_path):
  llama = architecture_of(None, _folder(tmp_path, LLAMA_3_2)).config
  assert llama.rope_scaling == RopeScaling(factor=32.0, low=1.0, high=4.0, original_length=8192)
  assert (llama.head_dim, llama.is_tied, llama.biases) == (64, True, '')
  qwen = architecture_of(None, _folder(tmp_path, QWEN_2_5)).config
  assert (qwen.head_dim, qwen.biases, qwen.rope_theta) == (128, 'qkv', 1e6)
  assert qwen.windows == (None,) * 28
  used = QWEN_2_5 | dict(use_sliding_window=True, max_window_layers=26)
  windows = architecture_of(None, _folder(tmp_path, used)).config.windows
  assert windows == (None,) * 26 + (131_072,) * 2


@pytest.mark.parametrize(
  'preset, fields', [('gemma2_2b', GEMMA_2_2B), ('gemma3_4b', GEMMA_3_4B)], ids=['2', '3']
)
def test_the_files_of_gemma_are_the_librarys_presets(preset, fields, tmp_path):
  read = architecture_of(None, _folder(tmp_path, fields))
  named = architecture_of(preset, None)
  assert read.fields == named.fields
  named.check_file(models.read_config(tmp_path))


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(hidden_act='gelu'), "hidden_act: expected 'silu', found 'gelu'."),
    (dict(mlp_bias=True), 'mlp_bias: expected False, found True.'),
    (
      dict(rope_scaling={'rope_type': 'yarn', 'factor': 4.0}),
      "rope_scaling.rope_type: expected 'default' or 'llama3', found 'yarn'.",
    ),
    (
      dict(rope_parameters={'rope_type': 'linear', 'factor': 4.0, 'rope_theta': 1e4}),
      "rope_parameters.rope_type: expected 'default' or 'llama3', found 'linear'.",
    ),
    (
      dict(rope_scaling={'type': 'dynamic'}),
      "rope_scaling.rope_type: expected 'default' or 'llama3', found 'dynamic'.",
    ),
    (dict(rope_scaling={'rope_type': 'llama3'}), 'rope_scaling.factor: expected a value of type'),
    (dict(num_key_value_heads=5), 'num_key_value_heads: expected a divisor of 32 heads, found 5.'),
    (dict(head_dim=3), 'head_dim: expected an even number, found 3.'),
    (dict(hidden_size=None), 'hidden_size: expected a value of type int, found None.'),
    (dict(hidden_size='2048'), "hidden_size: expected a value of type int of at least 1, found '2"),
    (dict(rms_norm_eps=0.0), 'rms_norm_eps: expected a value of type float above 0, found 0.0.'),
    (dict(model_type='phi3'), "model_type: expected 'gemma2' or 'gemma3' or"),
  ],
)
def test_what_a_llama_cannot_have_is_named(change, message, tmp_path):
  _error(tmp_path, LLAMA_3_2 | change, message)


@pytest.mark.parametrize(
  'base, change, message',
  [
    (QWEN_2_5, dict(use_sliding_window=True, sliding_window=None, max_window_layers=1), 'sliding_'),
    (
      QWEN_2_5,
      dict(layer_types=['sliding_attention'] * 28),
      'use_sliding_window: expected True where layer_types has sliding ones, found False.',
    ),
    (QWEN_2_5, dict(layer_types=['full_attention']), 'layer_types: expected 28 of'),
    (QWEN_2_5, dict(attention_bias=False), 'attention_bias: expected True'),
    (GEMMA_2_2B, dict(hidden_activation='gelu'), "hidden_activation: expected 'gelu_pytorch_tanh'"),
    (GEMMA_2_2B, dict(query_pre_attn_scalar=100), 'query_pre_attn_scalar: expected 288 or 256'),
    (GEMMA_2_2B, dict(rms_norm_eps=1e-5), 'rms_norm_eps: expected 1e-06, found 1e-05.'),
    (
      GEMMA_3_4B,
      dict(text_config=GEMMA_3_4B['text_config'] | dict(use_bidirectional_attention=True)),
      'text_config.use_bidirectional_attention: expected False, found True.',
    ),
    (
      GEMMA_3_4B,
      dict(text_config=GEMMA_3_4B['text_config'] | dict(rope_scaling={'rope_type': 'yarn'})),
      "text_config.rope_scaling.rope_type: expected 'default' or 'linear', found 'yarn'.",
    ),
  ],
)
def test_what_the_others_cannot_have_is_named(base, change, message, tmp_path):
  _error(tmp_path, base | change, message)


def test_a_folder_of_another_family_or_size_is_named_before_weights_are_read():
  """Nothing of `like` is asked for: it is empty."""
  for preset, folder, message in [
    ('llama_micro', 'qwen3', "model_type: expected 'llama', found 'qwen3'."),
    ('gemma2_2b', 'llama', "model_type: expected 'gemma2', found 'llama'."),
    ('gemma3_micro', 'gemma2', "model_type: expected 'gemma3_text' or 'gemma3', found 'gemma2'."),
    ('llama_micro', 'llama', 'hidden_size: expected 64, that of llama_micro, found 32.'),
    ('gemma2_micro', 'gemma2', 'hidden_size: expected 64, that of gemma2_micro, found 32.'),
  ]:
    with pytest.raises(DataError, match=re.escape(f'{FIXTURES / folder}/config.json: {message}')):
      loading.load_params(FIXTURES / folder, {}, architecture_of(preset, None))


def test_without_a_preset_there_is_a_file(tmp_path):
  with pytest.raises(FieldError, match='preset: expected a name where there are no weights'):
    architecture_of(None, None)
  with pytest.raises(MissingDataError, match='config.json: expected the architecture of a model'):
    architecture_of(None, str(tmp_path))
  (tmp_path / 'config.json').write_text('[]')
  with pytest.raises(DataError, match='config.json: expected a JSON object, found a list.'):
    architecture_of(None, str(tmp_path))

"""Language models: their forward passes and their released weights.

A new family is a file with an `Architecture`, and an entry of FAMILIES for each of its model types.
"""

import importlib

from pkpo_jax.errors import expect, require_package
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.config_file import read_config

# Where a family is written, by `model_type` in the config.json of its folders. Imported when it is
# needed: the gemma library takes a second or two.
FAMILIES = {
  'gemma2': 'pkpo_jax.models.gemma:Gemma',
  'gemma3': 'pkpo_jax.models.gemma:Gemma',
  'gemma3_text': 'pkpo_jax.models.gemma:Gemma',
  'llama': 'pkpo_jax.models.decoder:Decoder',
  'qwen2': 'pkpo_jax.models.decoder:Decoder',
  'qwen3': 'pkpo_jax.models.decoder:Decoder',
}
# The families of the architectures that have a name; each is in the PRESETS of its family's file.
PRESETS = {
  'gemma2_micro': 'gemma2',
  'gemma2_tiny': 'gemma2',
  'gemma2_2b': 'gemma2',
  'gemma2_9b': 'gemma2',
  'gemma2_27b': 'gemma2',
  'gemma3_micro': 'gemma3_text',
  'gemma3_270m': 'gemma3_text',
  'gemma3_1b': 'gemma3_text',
  'gemma3_4b': 'gemma3_text',
  'gemma3_12b': 'gemma3_text',
  'gemma3_27b': 'gemma3_text',
  'llama_micro': 'llama',
  'llama3_1_8b': 'llama',
  'qwen2_5_7b': 'qwen2',
}


def architecture_of(preset: str | None, weights: str | None) -> Architecture:
  """Returns the architecture that a preset names, or else that of a folder's config.json.

  Args:
    preset: a key of PRESETS; None reads config.json.
    weights: folder of weights as Hugging Face stores them; not read where there is a preset.

  Raises:
    FieldError: if there is no such preset, or neither of the two.
    DataError: if config.json is not there, of no family, or has a value that is not supported.
    MissingPackageError: if the family needs a package that is not installed.
  """
  if preset is not None:
    expect(preset in PRESETS, 'preset', f'one of {sorted(PRESETS)} or None', preset)
    return _family(PRESETS[preset]).preset(preset)
  expect(weights is not None, 'preset', 'a name where there are no weights to read it from', None)
  file = read_config(weights)
  return _family(file.expect('model_type', tuple(FAMILIES), None)).from_file(file)


def _family(model_type: str) -> type[Architecture]:
  """Returns the class of a family; imports its file."""
  module, _, name = FAMILIES[model_type].partition(':')
  if module.endswith('.gemma'):
    require_package('gemma', extra='gemma')
  return getattr(importlib.import_module(module), name)

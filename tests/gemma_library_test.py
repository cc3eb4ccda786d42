"""The gemma library's models are imported without TensorFlow, which stays what it is for others."""

import subprocess
import sys

import pytest

from pkpo_jax.models import gemma_library

MODEL = """
import sys
import jax, jax.numpy as jnp
from pkpo_jax.models import gemma
from gemma import gm
heavy = {'tensorflow', 'keras', 'sklearn', 'kauldron.train', 'gemma.gm.ckpts'}
model = gm.nn.Transformer(config=gemma.PRESETS['gemma2_micro'])
model.init(jax.random.key(0), jnp.ones((1, 4), jnp.int32))
print(*sorted(heavy & set(sys.modules)))
"""
AFTERWARDS = """
import kauldron.typing.array_types, tensorflow
stand_in = kauldron.typing.array_types.tf
print(stand_in is not tensorflow, stand_in.float32 is tensorflow.float32)
print(gm.ckpts.load_params.__module__, gm.text.Sampler.__module__)
"""
BEFORE = """
import kauldron.typing.array_types, tensorflow
print(kauldron.typing.array_types.tf is tensorflow)
"""


def lines_of(program):
  run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  return run.stdout.splitlines()


def test_a_model_runs_without_tensorflow_and_others_find_it_as_it_is():
  heavy, *afterwards = lines_of(MODEL + AFTERWARDS)
  assert not heavy
  assert afterwards == ['True True', 'gemma.gm.ckpts._checkpoint gemma.gm.text._sampler']


def test_tensorflow_that_was_imported_before_is_used():
  assert lines_of('import tensorflow, pkpo_jax.models.gemma' + BEFORE) == ['True']


def test_what_a_stand_in_does_not_have_is_named():
  module = gemma_library._TensorFlow('tensorflow')
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'tensorflow', module)
    with pytest.raises(AttributeError, match='asked for float32'):
      _ = module.float32

"""Imports the models of the gemma library without TensorFlow, which they do not use.

TensorFlow is 1.4 GB and most of the time that the import takes. It is imported for two things: an
annotation of kauldron.typing names the class of its tensors, and gemma.gm.ckpts defines a loader
for kauldron's trainer.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any

from pkpo_jax.light_imports import stand_in


class _TensorFlow(types.ModuleType):
  """Has the one class that annotations name; whatever else is asked of it is TensorFlow's."""

  Tensor = type('Tensor', (), {})

  def __getattr__(self, name: str) -> Any:
    if sys.modules.get('tensorflow') is self:
      raise AttributeError(f'TensorFlow is not imported here, and has been asked for {name}')
    return getattr(importlib.import_module('tensorflow'), name)


def import_models() -> None:
  """Imports the gemma library's models; TensorFlow and the library's checkpoints stay importable.

  Does nothing about those of the two that have been imported before. The annotations of kauldron do
  not know TensorFlow's tensors afterwards.
  """
  with stand_in('tensorflow', _TensorFlow('tensorflow')):
    importlib.import_module('kauldron.typing')
  checkpoints = importlib.util.find_spec('gemma.gm.ckpts')
  # The package as it is before its __init__ runs: its modules can be imported one by one.
  with stand_in(checkpoints.name, importlib.util.module_from_spec(checkpoints)):
    importlib.import_module('gemma.gm.nn._gemma')

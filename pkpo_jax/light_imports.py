"""Imports of libraries without what they import in turn and do not use here."""

import contextlib
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def stand_in(name: str, module: types.ModuleType | None) -> Iterator[None]:
  """Lets imports find a module of this name meanwhile, unless the real one has been imported.

  Afterwards the name is free again, and leads to the real module.

  Args:
    name: with dots.
    module: what is found; None is as if there were none.
  """
  if name in sys.modules:
    yield
    return
  sys.modules[name] = module
  try:
    yield
  finally:
    del sys.modules[name]

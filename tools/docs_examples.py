"""How mkdocs shows the examples in docstrings: as code, where Markdown would see quotations."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r'(?m)^( *)>>> (?:.*\n?)(?:(?!\s*$).*\n?)*')


class Examples(griffe.Extension):
  """Puts a fence around each example."""

  def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
    """Changes the docstring of an object before it is read."""
    if obj.docstring is not None:
      fenced = lambda found: f'{found[1]}```python\n{found[0].rstrip()}\n{found[1]}```\n'
      obj.docstring.value = _EXAMPLE.sub(fenced, obj.docstring.value)

"""What mkdocs does to pages of docs/: links out of that folder become plain text.

The pages are read in the repository, too, where such links lead to code and results. A site of its
own has none of these.
"""

import re
from typing import Any

_OUTSIDE = re.compile(r'(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)')


def on_page_markdown(markdown: str, **_: Any) -> str:
  """Returns the text of a page without links that begin with ../."""
  return _OUTSIDE.sub(r'\1', markdown)

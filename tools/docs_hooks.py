"""What mkdocs does beside docs/: experiments are part of the site, other links become plain text.

Pages are read in the repository, too, and link as they do there. The site mirrors experiments/: its
pages and figures. What else a link leads to, such as code and rows, the site does not have. A link
to what is not in the repository either stays as it is, for mkdocs to complain about.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ('*.md', '*/README.md', '*/results/*.png')
_LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)')


def on_files(files: Files, config: Any) -> Files:
  """Adds the pages and figures of experiments/."""
  for pattern in EXPERIMENTS:
    for path in sorted((ROOT / 'experiments').glob(pattern)):
      uri = path.relative_to(ROOT).as_posix()
      files.append(File.generated(config, uri, abs_src_path=str(path)))
  return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
  """Returns the text of a page with its links as they are in the site."""
  uri = page.file.src_uri
  folder = posixpath.dirname(uri if uri.startswith('experiments/') else f'docs/{uri}')

  def in_site(link: re.Match[str]) -> str:
    mark, text, target = link.groups()
    path, hash_, anchor = target.partition('#')
    if not path or ':' in path:
      return link[0]
    path = posixpath.normpath(posixpath.join(folder, path))
    if (ROOT / path).is_dir():
      path += '/README.md'
    there = path.removeprefix('docs/')
    if files.get_file_from_path(there) is not None:
      return f'{mark}[{text}]({posixpath.relpath(there, posixpath.dirname(uri))}{hash_}{anchor})'
    return text if (ROOT / path).exists() else link[0]

  return _LINK.sub(in_site, markdown)

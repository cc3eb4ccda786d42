"""What makes a page readable as a site as well as in the repository."""

import re
from types import SimpleNamespace

import pytest

from tools import docs_hooks

ROOT = docs_hooks.ROOT
PAGES = sorted(
  path.relative_to(ROOT).as_posix()
  for pattern in ('docs/*.md', *(f'experiments/{each}' for each in docs_hooks.EXPERIMENTS[:2]))
  for path in ROOT.glob(pattern)
)
_ITEM = re.compile(r'(-|\*|\d+\.) ')


@pytest.mark.parametrize('page', PAGES)
def test_lists_begin_after_an_empty_line(page):
  """Else mkdocs takes them for the text before."""
  blocks, is_fenced = [[]], False
  for line in (ROOT / page).read_text().splitlines():
    is_fenced ^= line.startswith('```')
    if not line.strip():
      blocks.append([])
    elif not is_fenced:
      blocks[-1].append(line)
  for block in blocks:
    is_item = [bool(_ITEM.match(line)) for line in block]
    assert not any(is_item) or is_item[0], block


@pytest.mark.parametrize(
  ('page', 'link', 'expected'),
  [
    ('first.md', '[a](second.md#part)', '[a](second.md#part)'),
    ('first.md', '[a](../README.md#part)', 'a'),
    ('first.md', '[`a`](../pkpo_jax/train.py)', '`a`'),
    ('first.md', '[a](../experiments/results.md)', '[a](experiments/results.md)'),
    ('first.md', '![a](../experiments/x/results/x.png)', '![a](experiments/x/results/x.png)'),
    ('first.md', '[a](../experiments/maze_tiny)', '[a](experiments/maze_tiny/README.md)'),
    ('experiments/maze_tiny/README.md', '[a](../results.md)', '[a](../results.md)'),
    ('experiments/maze_tiny/README.md', '[a](../../docs/second.md)', '[a](../../second.md)'),
    ('experiments/maze_tiny/README.md', '[a](sweep.py)', 'a'),
    ('first.md', '[a](no_such_page.md)', '[a](no_such_page.md)'),
    ('first.md', '[a](#part) [b](https://x.org/y.md)', '[a](#part) [b](https://x.org/y.md)'),
  ],
)
def test_links_lead_to_what_the_site_has(page, link, expected):
  in_site = {'first.md', 'second.md', 'experiments/results.md', 'experiments/maze_tiny/README.md'}
  in_site.add('experiments/x/results/x.png')
  files = SimpleNamespace(get_file_from_path=lambda path: path if path in in_site else None)
  named = SimpleNamespace(file=SimpleNamespace(src_uri=page))
  text = f'before {link} after'
  assert docs_hooks.on_page_markdown(text, page=named, files=files) == f'before {expected} after'

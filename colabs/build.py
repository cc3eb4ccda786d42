"""Makes every notebook, with its outputs, from the percent-format .py beside it.

python -m colabs.build [name ...]           # executes and writes NAME.ipynb
python -m colabs.build --check [name ...]   # executes in small, compares sources, writes nothing
"""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import jupytext
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
CELL_TIMEOUT = 3600  # Seconds.
# The same on every machine: no version of Python, no machine's name for its kernel.
METADATA = {
  'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
  'language_info': {'file_extension': '.py', 'mimetype': 'text/x-python', 'name': 'python'},
}


class NotebookError(Exception):
  """What is wrong with a notebook, for its author."""


def find_sources() -> dict[str, pathlib.Path]:
  """Returns the source of every notebook by its name."""
  paths = (path for path in sorted(HERE.glob('*.py')) if path.stem not in ('__init__', 'build'))
  return {path.stem: path for path in paths}


def read_source(path: pathlib.Path) -> NotebookNode:
  """Returns the notebook of a percent-format file, without outputs."""
  notebook = jupytext.read(path, fmt='py:percent')
  notebook.metadata = nbformat.from_dict(METADATA)
  notebook.nbformat, notebook.nbformat_minor = 4, 5
  for index, cell in enumerate(notebook.cells):
    # Random ids, jupytext's default, would differ in every build.
    cell.id = f'cell-{index}'
    cell.metadata = NotebookNode()
  return notebook


def find_difference(notebook: NotebookNode, source: NotebookNode) -> str | None:
  """Returns what makes the notebook's cells differ from its source's, None if nothing does."""
  if len(notebook.cells) != len(source.cells):
    return f'it has {len(notebook.cells)} cells, its source {len(source.cells)}'
  for index, (cell, wanted) in enumerate(zip(notebook.cells, source.cells, strict=True)):
    if (cell.cell_type, cell.source) != (wanted.cell_type, wanted.source):
      return f'cell {index} differs from its source'
  return None


def execute(notebook: NotebookNode, *, small: bool) -> None:
  """Fills in the outputs, from a fresh process of this interpreter in the repository's root.

  With `small` the notebook finds NOTEBOOK_SMALL=1 in its environment: those that take minutes or
  need weights are content with less.

  Raises:
    NotebookError: if a cell fails, takes too long, or writes to stderr, as a warning does.
  """
  with tempfile.TemporaryDirectory() as folder:
    manager = AsyncKernelManager(
      kernel_name='python3',
      kernel_spec_manager=_ThisInterpreter(),
      connection_file=os.path.join(folder, 'kernel.json'),
      transport='ipc',  # Sockets in the folder: open to nobody else, unlike TCP ports.
      ip=os.path.join(folder, 'socket'),
    )
    client = NotebookClient(
      notebook,
      km=manager,
      timeout=CELL_TIMEOUT,
      resources={'metadata': {'path': str(ROOT)}},
      record_timing=False,
      coalesce_streams=True,  # Else the pieces depend on when a buffer was flushed.
    )
    # Nothing of the user's own IPython set-up, and the same devices on every machine.
    env = os.environ | {'IPYTHONDIR': folder, 'JAX_PLATFORMS': 'cpu'}
    env['NOTEBOOK_SMALL'] = '1' if small else ''
    try:
      client.execute(env=env, cleanup_kc=True)  # By default a given manager's kernel lives on.
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
      raise NotebookError(str(error)) from error
  notebook.metadata = nbformat.from_dict(METADATA)
  for index, cell in enumerate(notebook.cells):
    for output in cell.get('outputs', ()):
      if output.get('name') == 'stderr':
        raise NotebookError(f'cell {index} wrote to stderr:\n{output.text}')


def make(path: pathlib.Path, *, check: bool) -> None:
  """Executes one notebook and writes it or, with `check`, compares it with what is there.

  Raises:
    NotebookError: if it does not execute or, with `check`, is not made from its source.
  """
  made, source = read_source(path), read_source(path)
  target = path.with_suffix('.ipynb')
  if check:
    if not target.exists():
      raise NotebookError(f'{target.name} does not exist: run `make notebooks`')
    difference = find_difference(nbformat.read(target, as_version=4), source)
    if difference:
      raise NotebookError(f'{target.name} is out of date, {difference}: run `make notebooks`')
  execute(made, small=check)
  if not check:
    nbformat.validate(made)
    new = target.with_suffix('.new')
    new.write_text(nbformat.writes(made) + '\n')
    new.replace(target)


def main(arguments: Sequence[str] | None = None) -> None:
  sources = find_sources()
  parser = argparse.ArgumentParser(description='Makes the notebooks from their .py sources.')
  parser.add_argument('names', nargs='*', metavar='name', help=f'of {", ".join(sources)}; all')
  parser.add_argument('--check', action='store_true', help='execute, compare, write nothing')
  flags = parser.parse_args(arguments)
  unknown = sorted(set(flags.names) - set(sources))
  if unknown:
    parser.error(f'name: no notebook {unknown[0]!r}; choose from {", ".join(sources)}')
  chosen = flags.names or list(sources)
  _make_font_cache()
  failed = []
  for index, name in enumerate(chosen, start=1):
    start, result = time.perf_counter(), 'as its source' if flags.check else 'written'
    try:
      make(sources[name], check=flags.check)
    except NotebookError as error:
      failed.append(name)
      result = f'FAILED\n{error}'
    seconds = time.perf_counter() - start
    print(f'[{index}/{len(chosen)}] {name}: {seconds:.1f} s, {result}', flush=True)
  if failed:
    sys.exit(f'Failed: {", ".join(failed)}')


class _ThisInterpreter(KernelSpecManager):
  """Knows one kernel, the running interpreter, whatever is installed on the machine."""

  def get_kernel_spec(self, kernel_name):
    return KernelSpec(resource_dir='', **get_kernel_dict())


def _make_font_cache() -> None:
  """Lets matplotlib look for fonts here, where its note about that is no notebook's output."""
  with contextlib.suppress(ImportError):
    import matplotlib.font_manager  # noqa: F401


if __name__ == '__main__':
  main()

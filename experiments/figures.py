"""Rebuilds every figure from the committed rows: `python -m experiments.figures [name ...]`.

A figure is a folder with a `figure.py` whose `main(output_dir)` reads `results/*.csv` beside it
and writes PNG files.
"""

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def find_figures() -> list[str]:
  """Returns the names of the folders that hold a figure."""
  return sorted(path.parent.name for path in _HERE.glob('*/figure.py'))


def main(arguments: Sequence[str] | None = None) -> None:
  names = find_figures()
  parser = argparse.ArgumentParser(description='Rebuilds figures from the committed rows.')
  parser.add_argument('names', nargs='*', metavar='name', help=f'one of {", ".join(names)}; all')
  parser.add_argument('--output_dir', type=Path, help='where to write, not beside the rows')
  flags = parser.parse_args(arguments)
  unknown = sorted(set(flags.names) - set(names))
  if unknown:
    parser.error(f'name: no figure {unknown[0]!r}; choose from {", ".join(names)}')
  chosen = flags.names or names
  for index, name in enumerate(chosen, start=1):
    started = time.perf_counter()
    output_dir = flags.output_dir / name if flags.output_dir else _HERE / name / 'results'
    importlib.import_module(f'experiments.{name}.figure').main(output_dir)
    seconds = time.perf_counter() - started
    print(f'[{index}/{len(chosen)}] {name}: {seconds:.1f} s', flush=True)


if __name__ == '__main__':
  main()

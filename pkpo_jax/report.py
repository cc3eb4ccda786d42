"""Writes one HTML file about one or more runs, which needs nothing from outside to be read.

python -m pkpo_jax.report runs/maze_k1 runs/maze_k8 --output=report.html
"""

import argparse
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence

from pkpo_jax.errors import CONFIG_ERRORS
from pkpo_jax.evaluation.report import require_matplotlib
from pkpo_jax.reporting.page import page
from pkpo_jax.runs import default_metrics, differing_fields, is_workdir, read_run, rows_of


def write_report(workdirs: Sequence[pathlib.Path], output: pathlib.Path, command: str = '') -> None:
  """Writes the page of these runs: the first is the one that others are compared with.

  Args:
    workdirs: their folders.
    output: the HTML file.
    command: for the head of the page.

  Raises:
    MissingPackageError: if matplotlib is not installed.
  """
  require_matplotlib()
  records = [read_run(workdir) for workdir in workdirs]
  root = pathlib.Path(os.path.commonpath([workdir.absolute() for workdir in workdirs]))
  names = [
    str(workdir.absolute().relative_to(root)) if len(workdirs) > 1 else workdir.absolute().name
    for workdir in workdirs
  ]
  fields = differing_fields(records) if len(records) > 1 else []
  absolute = [record._replace(workdir=record.workdir.absolute()) for record in records]
  table = rows_of(absolute, fields[:8], default_metrics(records), root, time.time())
  output.write_text(page(records, names, table, command), encoding='utf-8')


def main(argv: Sequence[str] | None = None) -> None:
  """Writes the page and says where it is."""
  argv = sys.argv[1:] if argv is None else list(argv)
  parser = argparse.ArgumentParser(
    prog='python -m pkpo_jax.report', description=__doc__.splitlines()[0]
  )
  parser.add_argument('workdirs', nargs='+', type=pathlib.Path, help='of runs', metavar='WORKDIR')
  parser.add_argument(
    '--output', type=pathlib.Path, default=pathlib.Path('report.html'), help='(report.html)'
  )
  args = parser.parse_args(argv)
  for i, workdir in enumerate(args.workdirs):
    if not is_workdir(workdir):
      sys.exit(f'{workdir}: expected the folder of a run, with its config.json and origin.json.')
    if workdir.resolve() in [x.resolve() for x in args.workdirs[:i]]:
      sys.exit(f'{workdir}: expected each run once.')
  try:
    write_report(args.workdirs, args.output, shlex.join(['python', '-m', 'pkpo_jax.report', *argv]))
  except OSError as error:
    sys.exit(f'--output: cannot write {args.output}: {error.strerror}.')
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  print(f'{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB')


if __name__ == '__main__':
  main()

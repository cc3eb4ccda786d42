"""Shows what an evaluation, or a score of samples, has found: a table, JSON and a figure.

A report is a dict of plain values:
  command, seed, level: the command that made it, its seed, and the coverage of its intervals.
  num_problems, num_samples, num_pieces: the size of the evaluation; see `measure.make_evaluate`.
  runs: a dict for each of the one or two workdirs:
    workdir, step, config: what was evaluated.
    curves: a dict for each curve: 'pass@k' or 'max@k', both of them if rewards are shaped, 'pass^k'
      beside 'pass@k', and 'maj@k' if answers can be compared. It has the columns k, mean,
      standard_error, low and high (the interval), warnings (None, or that the interval rests on few
      problems) and, if it is known, exact; and num_problems, the number of problems that the curve
      is the mean of.
    statistics: 'entropy' and others, each with mean, standard_error and num_problems.
    problems: the columns id, one for each curve (with a row of all k for each problem) and one for
      each statistic.
  differences: the same curves, first run minus second, with the columns k, first, second (the means
    of the problems that are compared), mean, low, high and warnings; {} for a single run.

In the report of a score each run has, in place of workdir, step and config, a name and its own
num_problems, num_samples (the least and the most) and num_unjudged; and num_problems_in_both is how
many problems the differences are over.
"""

import itertools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pkpo_jax.errors import MissingPackageError

Report = Mapping[str, Any]

_COLORS = ('#0072b2', '#d55e00')  # Okabe & Ito's blue and vermilion.


def require_matplotlib() -> None:
  """Raises ImportError that says what to install, if the figure could not be drawn."""
  try:
    import matplotlib.figure  # noqa: F401
  except ImportError as error:
    raise MissingPackageError(
      "the figure needs matplotlib: pip install 'pkpo_jax[figures]', or '.[figures]' in a clone."
    ) from error


def table(report: Report) -> str:
  """Returns the report as text."""
  lines, names, interval = [], run_names(report), f'{100 * report["level"]:g} % interval'
  for run, name in zip(report['runs'], names, strict=True):
    lines += [
      f'{name}: {_size(report, run)}',
      *_curve_lines(run['curves'], interval),
      *_left_out_lines(run['curves'], {**report, **run}['num_problems']),
      *_warning_lines(run['curves']),
      '',
    ]
    if run['statistics']:
      lines += [*_statistic_lines(run['statistics'], report['num_problems']), '']
  both = report.get('num_problems_in_both')
  over = 'problems' if both is None else f'the {both} problems in both'
  for curve, difference in report['differences'].items():
    lines += [
      f'{curve}: {names[0]} minus {names[1]}, paired over {over}',
      *_difference_lines(difference, interval),
      *_warning_lines({curve: difference}),
      '',
    ]
  lines.append('Standard errors (s.e.) and intervals are over problems.')
  if report['differences']:
    lines.append('*: the interval leaves out 0.')
  return '\n'.join(lines)


def run_names(report: Report) -> list[str]:
  """Returns the names of runs that have one, or folders (paths, if folders are alike) and steps."""
  if all('name' in run for run in report['runs']):
    return [run['name'] for run in report['runs']]
  paths = [pathlib.Path(run['workdir']) for run in report['runs']]
  folders = [path.name for path in paths]
  if len(set(folders)) < len(paths):
    folders = [str(path) for path in paths]
  return [f'{x}, step {run["step"]}' for x, run in zip(folders, report['runs'], strict=True)]


def _size(report: Report, run: Mapping[str, Any]) -> str:
  """Returns how many problems and samples a run has."""
  if 'num_unjudged' not in run:
    return f'{report["num_problems"]} problems, {report["num_samples"]} samples of each'
  samples = ' to '.join(dict.fromkeys(map(str, run['num_samples'])))
  unjudged = f', {run["num_unjudged"]} of them not judged' if run['num_unjudged'] else ''
  return f'{run["num_problems"]} problems, {samples} samples of each{unjudged}'


def write_json(report: Report, path: pathlib.Path) -> None:
  """Writes the report, an innermost list on one line."""
  text = json.dumps(report, indent=2, allow_nan=False)
  on_one_line = lambda found: re.sub(r'\n\s*', ' ', found[0]).replace('[ ', '[').replace(' ]', ']')
  text = re.sub(r'\[\n[^][{}]*\n\s*\]', on_one_line, text)
  path.write_text(text + '\n')


def draw(report: Report, path: pathlib.Path) -> None:
  """Draws pass@k with its interval, the other curves, and beside them the differences."""
  # Without pyplot nothing global is touched, no display is looked for.
  from matplotlib.figure import Figure

  num_panels = 2 if report['differences'] else 1
  figure = Figure(figsize=(1.5 + 5 * num_panels, 4.8), dpi=150, layout='constrained')
  axes = figure.subplots(1, num_panels, squeeze=False)[0]
  objective, *others = report['runs'][0]['curves']
  looks = ('-.', 'D'), (':', '^'), ('--', 's')
  styles = {objective: ('-', 'o'), **dict(zip(others, looks, strict=False))}
  for run, name, color in zip(report['runs'], run_names(report), _COLORS, strict=False):
    for curve, columns in run['curves'].items():
      _draw_curve(axes[0], columns, f'{curve}, {name}', color, *styles[curve])
      if 'exact' in columns:
        label = None if run is report['runs'][0] else f'{curve} exactly'
        axes[0].plot(columns['k'], columns['exact'], ':', color='black', label=label)
  axes[0].set(ylabel=', '.join([objective, *others]))
  for curve, columns in report['differences'].items():
    _draw_curve(axes[1], columns, None, 'black', *styles[curve])
  if report['differences']:
    axes[1].axhline(0, color='grey', linewidth=1)
    axes[1].set(ylabel='difference', title='First minus second, paired over problems')
  for axis in axes:
    _style(axis, report['runs'][0]['curves'][objective]['k'])
  sizes = dict.fromkeys(_size(report, run) for run in report['runs'])
  figure.suptitle(f'{"; ".join(sizes)}; {100 * report["level"]:g} % intervals over problems')
  figure.legend(loc='outside lower center', ncols=num_panels, frameon=False)
  figure.savefig(path, metadata={'Software': None})


def _draw_curve(
  axis, columns: Mapping, label: str | None, color: str, line: str, marker: str
) -> None:
  style = {'linestyle': line, 'marker': marker, 'markersize': 4}
  axis.plot(columns['k'], columns['mean'], color=color, label=label, **style)
  if line == '-':
    axis.fill_between(
      columns['k'], columns['low'], columns['high'], color=color, alpha=0.2, linewidth=0
    )


def _style(axis, ks: Sequence[int]) -> None:
  axis.set_xscale('log', base=2)
  powers = [k for k in ks if k & (k - 1) == 0]  # Others may be too near for their labels.
  axis.set_xticks(powers, powers)
  axis.set_xlabel('k')
  axis.grid(alpha=0.25)
  axis.spines[['top', 'right']].set_visible(False)


def _curve_lines(curves: Mapping[str, Mapping[str, list]], interval: str) -> list[str]:
  """Returns a table of the curves, two of them side by side."""
  lines = []
  for names in itertools.batched(curves, 2):
    lines += _lines_side_by_side({name: curves[name] for name in names}, interval)
  return lines


def _lines_side_by_side(curves: Mapping[str, Mapping[str, list]], interval: str) -> list[str]:
  heads, columns = [f'{"k":>6}'], [[f'{k:6d}' for k in next(iter(curves.values()))['k']]]
  for curve, found in curves.items():
    heads.append(f'{curve:>10}{"s.e.":>9}  {interval:<18}')
    columns.append(
      [
        f'{mean:10.4f}{_error(error)}  {_interval(low, high)}'
        for mean, error, low, high in zip(
          found['mean'], found['standard_error'], found['low'], found['high'], strict=True
        )
      ]
    )
    if 'exact' in found:
      heads.append(f'{"exact":>9}')
      columns.append([f'{value:9.4f}' for value in found['exact']])
  return [''.join(row).rstrip() for row in (heads, *zip(*columns, strict=True))]


def _left_out_lines(curves: Mapping[str, Mapping], num_problems: int) -> list[str]:
  return [
    f'  {curve} is over {columns["num_problems"]} of {num_problems} problems'
    for curve, columns in curves.items()
    if columns['num_problems'] < num_problems
  ]


def _warning_lines(curves: Mapping[str, Mapping[str, list]]) -> list[str]:
  return [
    f'  ! {curve}, k = {k}: {warning}'
    for curve, columns in curves.items()
    for k, warning in zip(columns['k'], columns['warnings'], strict=True)
    if warning is not None
  ]


def _statistic_lines(statistics: Mapping[str, Mapping], num_problems: int) -> list[str]:
  lines = [f'  {"":20}{"mean":>10}{"s.e.":>9}']
  for name, found in statistics.items():
    error = found['standard_error']
    line = f'  {name:20}{found["mean"]:10.4f}{_error(error)}'.rstrip()
    rest = found['num_problems']
    lines.append(line + (f'  of {rest} problems' if rest < num_problems else ''))
  return lines


def _difference_lines(difference: Mapping[str, list], interval: str) -> list[str]:
  lines = [f'{"k":>6}{"first":>10}{"second":>10}{"difference":>12}  {interval}']
  for i, k in enumerate(difference['k']):
    low, high = difference['low'][i], difference['high'][i]
    lines.append(
      f'{k:6d}{difference["first"][i]:10.4f}{difference["second"][i]:10.4f}'
      f'{difference["mean"][i]:+12.4f}  '
      f'{_interval(low, high, "+")}{" *" if low > 0 or high < 0 else ""}'
    )
  return lines


def _error(error: float | None) -> str:
  """Returns a standard error; one problem has none."""
  return f'{error:9.4f}' if error is not None else 9 * ' '


def _interval(low: float, high: float, sign: str = '') -> str:
  return f'{f"[{low:{sign}.4f}, {high:{sign}.4f}]":<18}'

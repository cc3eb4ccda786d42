"""Charts as SVG, to stand in a page by themselves."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Okabe & Ito's colors, which people who see few colors can tell apart.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#666666')
_LINES = ('-', '--', ':')
_LEAST_SPAN = 0.01  # Of the axis, relative to its values.


class Line(NamedTuple):
  """A line of a chart.

  Attributes:
    label: in the legend; '' for none.
    x, y: its points.
    low, high: of its band; None for none.
    run: the place of its run, which has a color.
    style: the place of its metric, which has a style.
  """

  label: str
  x: Sequence[float]
  y: Sequence[float]
  low: Sequence[float] | None = None
  high: Sequence[float] | None = None
  run: int = 0
  style: int = 0


def line_chart(lines: Sequence[Line], xlabel: str, is_log: bool = False, zero: bool = False) -> str:
  """Returns lines with their bands; over a logarithmic axis of k with markers."""
  figure, axis = _figure(4.6, 2.9)
  for line in lines:
    color = COLORS[line.run % len(COLORS)]
    style = {'linestyle': _LINES[line.style % len(_LINES)], 'color': color, 'linewidth': 1.4}
    marker = {'marker': 'o', 'markersize': 3} if is_log or len(line.x) == 1 else {}
    axis.plot(line.x, line.y, label=line.label or None, **style, **marker)
    if line.low is not None:
      axis.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)
  if is_log:
    axis.set_xscale('log', base=2)
    ks = sorted({k for line in lines for k in line.x})
    axis.set_xticks(ks, [f'{k:g}' for k in ks])
    axis.minorticks_off()
  if zero:
    axis.axhline(0, color='#888888', linewidth=1)
  low, high = axis.get_ylim()
  if high - low < _LEAST_SPAN * abs(high):  # Rounding is not to look like a trend.
    axis.set_ylim(low - _LEAST_SPAN * abs(high), high + _LEAST_SPAN * abs(high))
  axis.ticklabel_format(axis='y', useOffset=False)
  axis.set_xlabel(xlabel)
  if any(line.label for line in lines):
    axis.legend(frameon=False, fontsize=7)
  return _svg(figure)


def stacked_bars(names: Sequence[str], parts: Mapping[str, Sequence[float]], xlabel: str) -> str:
  """Returns a horizontal bar for each name, made up of parts."""
  figure, axis = _figure(9.2, 0.7 + 0.35 * len(names))
  left = np.zeros(len(names))
  for color, (part, lengths) in zip(COLORS, parts.items(), strict=False):
    axis.barh(range(len(names)), lengths, left=left, label=part, color=color, height=0.6)
    left = left + np.asarray(lengths)
  axis.set_yticks(range(len(names)), names)
  axis.invert_yaxis()
  axis.set_xlabel(xlabel)
  axis.legend(frameon=False, fontsize=7, ncols=len(parts), loc='lower left', bbox_to_anchor=(0, 1))
  return _svg(figure)


def _figure(width: float, height: float):
  # Without pyplot nothing global is touched, no display is looked for.
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout='constrained')
  axis = figure.subplots()
  axis.grid(alpha=0.25)
  axis.spines[['top', 'right']].set_visible(False)
  axis.tick_params(labelsize=8)
  return figure, axis


def _svg(figure) -> str:
  """Returns the figure as an element of a page: text stays text, and names no file or date."""
  import matplotlib

  text = io.StringIO()
  settings = {'svg.fonttype': 'none', 'svg.hashsalt': 'pkpo_jax', 'font.family': 'sans-serif'}
  settings |= {'axes.labelsize': 8, 'text.parse_math': False}
  with matplotlib.rc_context(settings):
    nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
    figure.savefig(text, format='svg', metadata=nothing)
  return text.getvalue()[text.getvalue().index('<svg') :]

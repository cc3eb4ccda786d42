"""The look of all figures: one color per method and per k, readable sizes, no display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from experiments import results  # noqa: E402

DPI = 150
# Width of a figure of one and of two panels side by side, and height of a row, inches.
WIDTH_1, WIDTH_2, WIDTH_3, HEIGHT = 6.0, 10.5, 14.0, 4.4

# Okabe & Ito's colors, told apart under the common color-vision deficiencies, without their
# yellow, which is lost on white.
BLACK, GREY = '#000000', '#8c8c8c'
BLUE, SKY, GREEN = '#0072b2', '#56b4e9', '#009e73'
ORANGE, VERMILION, PURPLE = '#e69f00', '#d55e00', '#cc79a7'

# Line style tells the family, color and marker the member.
_PKPO, _PASSK_TRAINING, _RELATIVE, _PARTITIONED = '-', '--', ':', '-.'
METHODS = {
  'pkpo': (r'PKPO $s$', SKY, 's', _PKPO),
  'pkpo_loo': (r'PKPO $s^{\mathrm{loo}}$', GREEN, '^', _PKPO),
  'pkpo_loo_minus_one': (r'PKPO $s^{\mathrm{loo-1}}$', BLUE, 'o', _PKPO),
  'pkpo_weighted_loo': ('PKPO, weighted baseline', ORANGE, 's', _PKPO),
  'pkpo_centered': ('PKPO centered (not in the paper)', VERMILION, 'D', _PKPO),
  'passk_analytical': ('Pass@k analytical', ORANGE, 'o', _PASSK_TRAINING),
  'passk_bootstrap': ('Pass@k bootstrap', GREEN, 's', _PASSK_TRAINING),
  'passk_full_sampling': ('Pass@k full sampling', GREY, '^', _PASSK_TRAINING),
  'passk_exceeding': ('Pass@k exceeding', VERMILION, 'v', _PASSK_TRAINING),
  'passk_combination': ('Pass@k combination', PURPLE, 'D', _PASSK_TRAINING),
  'passk_adaptive': ('Pass@k adaptive', SKY, 'P', _PASSK_TRAINING),
  'tzsm': ('TZSM (k = n)', PURPLE, '*', _RELATIVE),
  'reinforce': ('REINFORCE', GREY, 's', _RELATIVE),
  'rloo': ('RLOO', BLACK, 'x', _RELATIVE),
  'grpo': ('GRPO', BLUE, '+', _RELATIVE),
  'mean_centered': ('mean-centered', SKY, 'v', _RELATIVE),
  'maxrl': ('MaxRL', GREEN, 'P', _RELATIVE),
  'tailrl': ('TailRL', VERMILION, '<', _RELATIVE),
  'rs_grpo': ('RS-GRPO', ORANGE, '>', _RELATIVE),
  'f_grpo': ('F-GRPO', GREY, '<', _RELATIVE),
  'order_statistic': ('order statistic', PURPLE, '>', _PKPO),
  'pass_hat_k': ('pass^k', BLACK, 'v', _PKPO),
  'maj_at_k': ('maj@k', GREEN, 'h', _PKPO),
  'maxrl_pkpo': ("'PKPO' of MaxRL's repository", PURPLE, 'X', _RELATIVE),
  'max_at_k_off_policy': ('max@k off-policy', BLACK, 'h', _RELATIVE),
  'partitioned': ('partitioned, naive', ORANGE, 'v', _PARTITIONED),
  'partitioned_loo': ('partitioned, with baseline', PURPLE, 'P', _PARTITIONED),
  'partitioned_loo_minus_one': ('partitioned, loo minus one', BLACK, 'x', _PARTITIONED),
}

plt.rcParams.update(
  {
    'axes.grid': True,
    'axes.labelsize': 12,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlesize': 12,
    'figure.constrained_layout.use': True,
    'font.size': 11,
    'grid.alpha': 0.25,
    'legend.fontsize': 10,
    'legend.framealpha': 0.9,
    'lines.linewidth': 1.8,
    'lines.markersize': 5,
    'savefig.dpi': DPI,
  }
)


def method(name: str) -> dict[str, Any]:
  """Returns the label, color, marker and line style of a method, for `Axes.plot`.

  A method without a look of its own gets a plain one, with its name as the label.
  """
  label, color, marker, line_style = METHODS.get(name, (name, BLACK, '.', _RELATIVE))
  return {'label': label, 'color': color, 'marker': marker, 'linestyle': line_style}


def k_color(k: int) -> Any:
  """Returns the color of k = 1, 2, 4, ..., 32: from dark to light as k doubles."""
  # k is ordered, so is its color; the brightest sixth is lost on white.
  return plt.get_cmap('viridis')(min((k.bit_length() - 1) / 4, 1.0) * 0.84)


def draw_curve(
  axis: Axes,
  rows: Sequence[Mapping[str, Any]],
  name: str,
  looks: Mapping[str, tuple[str, Any, str]],
) -> None:
  """Draws a column of `comparison.curve_rows` against the step, with a band of a standard error.

  Args:
    axis: to draw on.
    rows: as `results.read_rows` returns them.
    name: of the column.
    looks: label, color and line style of each method.
  """
  for method in dict.fromkeys(row['method'] for row in rows):
    label, color, line_style = looks[method]
    columns = ('step', name, f'{name}_se')
    steps, mean, error = (results.column(rows, each, method=method) for each in columns)
    axis.plot(steps, mean, color=color, linestyle=line_style, label=label)
    axis.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
  axis.set_xlabel('step')
  axis.set_ylim(bottom=0)


def save(figure: Figure, path: Path) -> None:
  """Writes the figure as PNG, the same bytes for the same rows, and closes it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, metadata={'Software': None})
  plt.close(figure)

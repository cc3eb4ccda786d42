"""Draws pass@k of every method on held-out mazes, from committed rows."""

from pathlib import Path

import numpy as np

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
KS = (1, 2, 4, 8, 16)
# Method -> label, color, line style; one color a method in all figures.
_K = {k: (f'PKPO, k = {k}', style.k_color(k), '-') for k in KS}
_WARM = {'warm': ('warm start', style.GREY, ':')}
PANELS = {
  'What is trained is what is best': _WARM | {f'k{k}': _K[k] for k in KS[:-1]},
  'Pass@k Training, k = 8': {
    'k8': _K[8],
    'full_sampling': ('full sampling', style.GREY, '--'),
    'bootstrap': ('bootstrap', style.GREEN, '--'),
    'analytical': ('analytical', style.ORANGE, '--'),
    'combination': ('combination', style.PURPLE, '--'),
    'adaptive': ('adaptive', style.SKY, '--'),
  },
  'Schedules of k, no bound of the gradient, MaxRL': {
    'k1': _K[1],
    'k8': _K[8],
    'k8_then_1': ('8, then 1 from step 100', style.VERMILION, '-'),
    'k1_8_1': ('1, 8 from step 25, 1 from 100', style.SKY, '-'),
    'k1_unclipped': ('k = 1, unbounded', style.BLACK, '--'),
    'k8_unclipped': ('k = 8, unbounded', style.GREEN, '-.'),
    'maxrl': ('MaxRL', style.PURPLE, ':'),
  },
}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'seeds.csv')
  figure, axes = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT + 0.4), sharey=True)
  for axis, (title, methods) in zip(axes, PANELS.items(), strict=True):
    for method, (label, color, line_style) in methods.items():
      values = np.stack([results.column(rows, f'pass@{k}', method=method) for k in KS])
      error = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
      axis.errorbar(
        KS, values.mean(axis=1), error, color=color, linestyle=line_style, marker='o',
        markersize=4, label=label,
      )  # fmt: skip
    axis.set_xscale('log', base=2)
    axis.set_xticks(KS, KS)
    axis.set(xlabel='k', title=title)
    axis.legend(fontsize=9)
  axes[0].set(ylabel=f'pass@k on held-out mazes, mean of {values.shape[1]} seeds')
  style.save(figure, output_dir / 'maze_methods.png')


if __name__ == '__main__':
  main()

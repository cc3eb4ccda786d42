"""Draws pass@k with and without samples a step ahead, from committed rows."""

from pathlib import Path

import numpy as np

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
KS = (1, 2, 4, 8, 16)
# Of the mean over seeds, the first axis.
standard_error = lambda values: values.std(axis=0, ddof=1) / np.sqrt(len(values))
COLORS = {'token ratios': style.BLUE, 'max@k off-policy': style.VERMILION}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'seeds.csv')
  figure, axes = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
  seeds = results.column(rows, 'seed', method='token ratios', steps_ahead=0)
  for method, color in COLORS.items():
    curves = {}
    for steps_ahead, line in ((0, '-'), (1, '--')):
      columns = [
        results.column(rows, f'pass@{k}', method=method, steps_ahead=steps_ahead) for k in KS
      ]
      curves[steps_ahead] = np.stack(columns, axis=-1)
      axes[0].errorbar(
        KS, curves[steps_ahead].mean(axis=0), standard_error(curves[steps_ahead]), color=color,
        linestyle=line, marker='o', label=f'{method}, {steps_ahead} ahead',
      )  # fmt: skip
    difference = curves[1] - curves[0]
    axes[1].errorbar(
      KS, difference.mean(axis=0), standard_error(difference), color=color, marker='o', label=method
    )
  axes[1].axhline(0, color=style.GREY, linewidth=1)
  axes[0].set(ylabel='pass@k', title=f'Held-out mazes, mean of {len(seeds)} seeds')
  axes[1].set(ylabel='difference of pass@k', title='One step ahead, less none')
  for axis in axes:
    axis.set_xscale('log', base=2)
    axis.set_xticks(KS, KS)
    axis.set(xlabel='k')
    axis.legend()
  style.save(figure, output_dir / 'steps_ahead.png')


if __name__ == '__main__':
  main()

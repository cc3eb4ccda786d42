"""Draws the weights of the sorted rewards from the committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
MARKERS = {1: 'o', 2: 's', 4: '^', 8: 'D'}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'weights.csv')
  figure, axes = style.plt.subplots(figsize=(style.WIDTH_1, style.HEIGHT))
  for k, marker in MARKERS.items():
    axes.plot(
      results.column(rows, 'index', k=k),
      results.column(rows, 'weight', k=k),
      color=style.k_color(k),
      marker=marker,
      label=f'k = {k}',
    )
  axes.set(
    xlabel='index in ascending order of reward (0: worst of n = 8)',
    ylabel=r'weight $v_t$ of the reward (each k sums to 1)',
    title='Weights of the sorted rewards in the max@k estimate',
    ylim=(-0.03, 1.04),
  )
  axes.legend(loc='upper left')
  style.save(figure, output_dir / 'weights.png')


if __name__ == '__main__':
  main()

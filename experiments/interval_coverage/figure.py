"""Draws coverage and width of the intervals against the number of problems, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
CHOSEN = 'one more at the far end (chosen)'
LOOKS = {
  CHOSEN: (style.BLACK, 'o', '-'),
  'one more at a random end': (style.BLUE, 's', '-'),
  'half a problem at each end': (style.SKY, '^', '-'),
  'percentile bootstrap': (style.VERMILION, 'v', '--'),
  'bootstrap-t': (style.ORANGE, 'D', '--'),
  't': (style.PURPLE, 'x', ':'),
  'Clopper-Pearson': (style.GREEN, 'P', ':'),
  'betting': (style.GREY, '*', '-.'),
}
POPULATIONS = ('Beta(1/2, 1/2)', 'MATH-like', 'ARC-like', '98 % solved')
K = 1
LEVEL = 0.95
# All that lies below is drawn on this line.
LEAST = 0.5


def main(output_dir: Path = RESULTS) -> None:
  draw('single', f'95 % intervals of pass@{K}, 16 samples of each problem', {}, output_dir)
  title = f'95 % intervals of the difference in pass@{K} of two policies, one of them better'
  draw('paired', title, {'effect': 'better'}, output_dir)


def draw(name: str, title: str, match: dict, output_dir: Path) -> None:
  """Draws one column for each population: coverage above, relative width below."""
  rows = results.read_rows(RESULTS / f'{name}_k{K}.csv')
  size = (style.WIDTH_3 + 1, 2 * style.HEIGHT)
  figure, axes = style.plt.subplots(2, len(POPULATIONS), figsize=size, sharex=True, sharey='row')
  for (above, below), population in zip(axes.T, POPULATIONS, strict=True):
    case = {'population': population, **match}
    for interval, (color, marker, line) in LOOKS.items():
      look = {'color': color, 'marker': marker, 'linestyle': line, 'label': interval}
      num_problems = results.column(rows, 'num_problems', interval=interval, **case)
      coverage = results.column(rows, 'coverage', interval=interval, **case)
      width = results.column(rows, 'width', interval=interval, **case)
      chosen = results.column(rows, 'width', interval=CHOSEN, **case)
      above.plot(num_problems, coverage.clip(min=LEAST), **look)
      below.plot(num_problems, width / chosen, **look)
    above.axhline(LEVEL, color=style.GREY, linewidth=1)
    above.set(title=population, ylim=(LEAST - 0.01, 1.01))
    below.set(xlabel='problems', xscale='log', yscale='log')
    ticks = (5, 10, 24, 50, 100, 200, 1000)
    below.set_xticks(ticks, ticks)
    below.set_xticks([], minor=True)
    ticks = (0.1, 0.25, 0.5, 1, 2)
    below.set_yticks(ticks, ticks)
    below.set_ylim(0.08, 4)
    below.set_yticks([], minor=True)
  axes[0, 0].set_ylabel(f'coverage (below {LEAST}: at the edge)')
  axes[1, 0].set_ylabel('mean width / that of the chosen interval')
  handles, labels = axes[0, 0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=4)
  figure.suptitle(title)
  style.save(figure, output_dir / f'{name}.png')


if __name__ == '__main__':
  main()

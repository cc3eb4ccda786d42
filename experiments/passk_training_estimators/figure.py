"""Draws the three estimates of Pass@k Training at equal rollouts, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
K = 4
COLUMNS = {
  'noise_at_start': 'noise of a gradient at the start / its norm',
  'steps_to_95_percent': f'steps to 95 % of the best pass@{K}',
  'pass_at_k': f'pass@{K} after 400 steps, exact',
}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'estimators.csv')
  rows = [row for row in rows if row['k_eval'] == K]
  usual = [row for row in rows if row['num_groups'] in (None, row['n'])]
  methods, sizes = (sorted({row[name] for row in usual}) for name in ('method', 'n'))
  figure, axes = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT))
  for axis, (name, label) in zip(axes, COLUMNS.items(), strict=True):
    for method in methods:
      found = [row[name] for row in usual if row['method'] == method]
      axis.plot(sizes, found, **style.method(method))
    axis.set_xscale('log', base=2)
    axis.set_xticks(sizes, sizes)
    axis.set(xlabel='n, samples of a prompt; 1,024 of a step', ylabel=label)
  axes[0].set_ylim(bottom=0)
  axes[1].set_ylim(bottom=0)
  axes[2].axhline(usual[0]['optimum'], color=style.BLACK, linewidth=1, label='optimum')
  axes[2].legend()
  style.save(figure, output_dir / 'estimators.png')


if __name__ == '__main__':
  main()

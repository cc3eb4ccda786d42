"""Draws the noise of each baseline from the committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
LOOKS = {
  'loo_minus_one': (style.BLUE, 'o', '-'),
  'centered': (style.VERMILION, 'D', '-'),
  'weighted alike': (style.ORANGE, 's', '--'),
  'weighted by squared norms': (style.BLACK, '*', '-'),
  'weighted by surprise': (style.GREEN, '^', '--'),
  'weighted by length': (style.PURPLE, 'v', ':'),
}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'noise.csv')
  steps = sorted({row['step'] for row in rows})
  figure, panels = style.plt.subplots(
    1, len(steps), figsize=(style.WIDTH_3, style.HEIGHT * 1.1), sharey=True
  )
  ks = sorted({row['k'] for row in rows})
  for axis, step in zip(panels, steps, strict=True):
    for baseline, (color, marker, line) in LOOKS.items():
      match = {'step': step, 'baseline': baseline}
      axis.errorbar(
        results.column(rows, 'k', **match),
        results.column(rows, 'relative_noise', **match),
        yerr=results.column(rows, 'relative_noise_se', **match),
        color=color,
        marker=marker,
        linestyle=line,
        label=baseline.replace('_', ' '),
        capsize=2,
      )
    rate = next(row['pass_rate'] for row in rows if row['step'] == step)
    axis.set_xscale('log', base=2)
    axis.set_xticks(ks, ks)
    axis.set(xlabel='k', title=f'step {step}, pass rate {rate:.2f}')
  panels[0].set_ylabel('noise of the gradient, loo minus one = 1')
  figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
  style.save(figure, output_dir / 'noise.png')


if __name__ == '__main__':
  main()

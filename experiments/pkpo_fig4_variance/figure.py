"""Draws the variance of the gradient estimates from the committed rows."""

from pathlib import Path

from matplotlib.ticker import NullFormatter

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
# From the highest variance in the paper's setting to the lowest.
METHODS = (
  'partitioned',
  'pkpo',
  'partitioned_loo',
  'pkpo_loo',
  'partitioned_loo_minus_one',
  'pkpo_centered',
  'pkpo_loo_minus_one',
)


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'variance.csv')
  figure, (left, middle, right) = style.plt.subplots(
    1, 3, figsize=(style.WIDTH_3, style.HEIGHT + 0.7)
  )
  draw(left, rows, 'num_samples', 'variance')
  left.set(
    xscale='log',
    yscale='log',
    xlabel='samples n',
    ylabel='variance ((reward / unit of x)²)',
    title=r"The paper's setting: Gaussian policy, $\theta$ = 1",
  )
  left.set_xticks([4, 8, 16, 32, 64], ['4', '8', '16', '32', '64'])
  left.xaxis.set_minor_formatter(NullFormatter())
  draw(middle, rows, 'theta', 'ratio')
  middle.set(
    xlabel=r'policy mean $\theta$ (units of x)', title=r'Gaussian policy, n = 16, against $\theta$'
  )
  draw(right, rows, 'pass_rate', 'ratio')
  right.set(xlabel='pass rate p', title='Binary reward, n = 16, against p')
  for axes in (middle, right):
    axes.set(yscale='log', ylim=(0.8, 5), ylabel=r'variance / variance of $s^{\mathrm{loo-1}}$')
    axes.set_yticks([0.8, 1, 1.5, 2, 3, 5], ['0.8', '1', '1.5', '2', '3', '5'])
    axes.yaxis.set_minor_formatter(NullFormatter())
  figure.suptitle(
    'Variance of estimates of the gradient of max@4: lower is better; bars are ± 2 s.e.'
  )
  figure.legend(*left.get_legend_handles_labels(), loc='outside lower center', ncols=4)
  style.save(figure, output_dir / 'variance.png')


def draw(axes, rows, panel, quantity):
  for name in METHODS:
    match = {'panel': panel, 'method': name}
    axes.errorbar(
      results.column(rows, 'x', **match),
      results.column(rows, quantity, **match),
      yerr=2 * results.column(rows, f'{quantity}_se', **match),
      elinewidth=1,
      capsize=2,
      **style.method(name),
    )


if __name__ == '__main__':
  main()

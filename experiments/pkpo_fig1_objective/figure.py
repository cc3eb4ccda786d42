"""Draws the objective and its derivative from the committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'


def main(output_dir: Path = RESULTS) -> None:
  curves = results.read_rows(RESULTS / 'curves.csv')
  estimates = results.read_rows(RESULTS / 'estimates.csv')
  optima = {row['k']: row for row in results.read_rows(RESULTS / 'optima.csv')}
  figure, (left, right) = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))

  def draw(axes, k, quantity, label):
    color = style.k_color(k)
    thetas = results.column(curves, 'theta', k=k)
    axes.plot(thetas, results.column(curves, quantity, k=k), color=color, label=label)
    match = {'k': k, 'quantity': quantity}
    axes.errorbar(
      results.column(estimates, 'theta', **match),
      results.column(estimates, 'estimate', **match),
      yerr=2 * results.column(estimates, 'se', **match),
      color=color,
      fmt='o',
      markersize=3.5,
      capsize=2,
      elinewidth=1,
    )

  left.plot(
    results.column(curves, 'theta', k=1),
    results.column(curves, 'reward', k=1),
    color=style.BLACK,
    linestyle='--',
    linewidth=1.2,
    label=r'reward $g(x)$ at $x = \theta$',
  )
  for k, best in optima.items():
    draw(left, k, 'max_at_k', f'k = {k}')
    if k > 1:
      draw(right, k, 'derivative', f'k = {k}')
    left.plot(
      best['theta'],
      best['max_at_k'],
      '*',
      color=style.k_color(k),
      markersize=11,
      markeredgecolor='white',
      zorder=3,
    )
  left.set(
    xlabel=r'policy mean $\theta$ (units of x)',
    ylabel='max@k (reward units)',
    xlim=(-0.2, 1.4),
    ylim=(-0.03, 1.04),
    title='max@k of x ~ Normal(θ, 0.1); stars: best θ',
  )
  right.axhline(0, color=style.GREY, linewidth=0.8)
  right.set(
    xlabel=r'policy mean $\theta$ (units of x)',
    ylabel=r'd max@k / d$\theta$ (reward / unit of x)',
    xlim=(-0.2, 1.4),
    ylim=(-7.6, 2),
    title='Its derivative',
  )
  left.legend(loc='upper left')
  right.legend(loc='lower left', title='lines: closed form\ndots: estimates, ± 2 s.e.')
  style.save(figure, output_dir / 'objective.png')


if __name__ == '__main__':
  main()

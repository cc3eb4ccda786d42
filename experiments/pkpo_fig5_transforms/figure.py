"""Draws the transformed against the raw reward from the committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
METHODS = ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one')
KS = (2, 4, 8, 16)


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'transforms.csv')
  figure, panels = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT))
  for axes, method in zip(panels, METHODS, strict=True):
    for k in KS:
      match = {'method': method, 'k': k}
      x = results.column(rows, 'reward', **match)
      color = style.k_color(k)
      axes.plot(x, results.column(rows, 'closed_form', **match), color=color, label=f'k = {k}')
      axes.errorbar(
        x,
        results.column(rows, 'mean', **match),
        yerr=2 * results.column(rows, 'se', **match),
        color=color,
        fmt='o',
        markersize=3.5,
        elinewidth=1,
        capsize=2,
      )
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.set(xlabel='raw reward', title=style.METHODS[method][0])
  panels[0].set_ylabel(r'mean transformed reward, $w_i = A_i / n$')
  panels[1].legend(loc='upper left', title='lines: closed form\ndots: binned means, ± 2 s.e.')
  figure.suptitle('What PKPO turns a reward into: n = 32 rewards, uniform on [-1/2, 1/2]')
  style.save(figure, output_dir / 'transforms.png')


if __name__ == '__main__':
  main()

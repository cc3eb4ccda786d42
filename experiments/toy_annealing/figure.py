"""Draws pass@1 and pass@8 under schedules of k, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
COLORS = (style.BLACK, style.GREEN, style.BLUE, style.ORANGE, style.VERMILION)
STYLES = ('-', '-', '--', '--', ':')


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'annealing.csv')
  names = list(dict.fromkeys(row['schedule'] for row in rows))
  ks = sorted({row['k_eval'] for row in rows})
  figure, axes = style.plt.subplots(1, len(ks), figsize=(style.WIDTH_2, style.HEIGHT + 0.6))
  for axis, k in zip(axes, ks, strict=True):
    for name, color, line in zip(names, COLORS, STYLES, strict=True):
      step, mean, low, high, best = (
        results.column(rows, column, schedule=name, k_eval=k)
        for column in ('step', 'pass_at_k', 'quantile_05', 'quantile_95', 'optimum')
      )
      axis.plot(step, mean, color=color, linestyle=line, label=name)
      axis.fill_between(step, low, high, color=color, alpha=0.15)
    axis.axhline(best[0], color='black', linestyle=':', linewidth=1)
    axis.set(xlabel='step', ylabel=f'pass@{k}', title=f'pass@{k}')
  figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
  figure.suptitle(
    f'Hidden answer under schedules of k: mean and 5 to 95 % band of {rows[0]["num_seeds"]} seeds'
  )
  style.save(figure, output_dir / 'annealing.png')


if __name__ == '__main__':
  main()

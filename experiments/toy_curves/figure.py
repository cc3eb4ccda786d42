"""Draws max@k_eval over the steps and against k_opt, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
TITLES = {
  'safe_risky': 'Safe and risky arms',
  'parabola': r'Normal($\theta$, 0.1), reward $x^2$ on [0, 1]',
}
EVAL_KS = (1, 4, 16)


def main(output_dir: Path = RESULTS) -> None:
  for name, title in TITLES.items():
    rows = results.read_rows(RESULTS / f'{name}.csv')
    ks = sorted({row['k_opt'] for row in rows})
    last_step = max(row['step'] for row in rows)
    figure, axes = style.plt.subplots(
      1, len(EVAL_KS) + 1, figsize=(style.WIDTH_3 + 2, style.HEIGHT)
    )
    for axis, k_eval in zip(axes, EVAL_KS, strict=False):
      for k_opt in ks:
        column = lambda key, k_opt=k_opt, k_eval=k_eval: results.column(
          rows, key, k_opt=k_opt, k_eval=k_eval
        )
        color = style.k_color(k_opt)
        axis.plot(column('step'), column('max_at_k'), color=color, label=f'k_opt = {k_opt}')
        axis.fill_between(
          column('step'), column('quantile_05'), column('quantile_95'), color=color, alpha=0.2
        )
      axis.axhline(column('optimum')[0], color='black', linestyle='--', linewidth=1)
      axis.set(xlabel='step', ylabel=f'max@{k_eval}', title=f'max@{k_eval}')
    for k_eval in ks:
      column = lambda key, k_eval=k_eval: results.column(rows, key, step=last_step, k_eval=k_eval)
      best = column('optimum')[0]
      axes[-1].errorbar(
        column('k_opt'), [value / best for value in column('max_at_k')],
        yerr=[
          [(value - low) / best
           for value, low in zip(column('max_at_k'), column('quantile_05'), strict=True)],
          [(high - value) / best
           for value, high in zip(column('max_at_k'), column('quantile_95'), strict=True)],
        ],
        color=style.k_color(k_eval), marker='o', capsize=3, label=f'k_eval = {k_eval}',
      )  # fmt: skip
    axes[-1].set(xlabel='k_opt', ylabel='share of the optimum', title='max@k_eval at the end')
    axes[-1].set_xscale('log', base=2)
    axes[-1].set_xticks(ks, ks)
    axes[-1].legend()
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=len(ks))
    num_seeds = rows[0]['num_seeds']
    figure.suptitle(f'{title}: mean and 5 to 95 % band of {num_seeds} seeds; dashed: the optimum')
    style.save(figure, output_dir / f'{name}.png')


if __name__ == '__main__':
  main()

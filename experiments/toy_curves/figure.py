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
    figure, axes = style.plt.subplots(1, len(EVAL_KS) + 1, figsize=(16, style.HEIGHT + 0.4))
    for axis, k_eval in zip(axes, EVAL_KS, strict=False):
      _draw_steps(axis, rows, ks, k_eval)
    _draw_end(axes[-1], rows, ks)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=len(ks))
    num_seeds = rows[0]['num_seeds']
    figure.suptitle(f'{title}: mean and 5 to 95 % band of {num_seeds} seeds; dashed: the optimum')
    style.save(figure, output_dir / f'{name}.png')


def _draw_steps(axis, rows, ks, k_eval) -> None:
  for k_opt in ks:
    step, mean, low, high, best = (
      results.column(rows, name, k_opt=k_opt, k_eval=k_eval)
      for name in ('step', 'max_at_k', 'quantile_05', 'quantile_95', 'optimum')
    )
    color = style.k_color(k_opt)
    axis.plot(step, mean, color=color, label=f'k_opt = {k_opt}')
    axis.fill_between(step, low, high, color=color, alpha=0.2)
  axis.axhline(best[0], color='black', linestyle='--', linewidth=1)
  axis.set(xlabel='step', ylabel=f'max@{k_eval}', title=f'max@{k_eval}')


def _draw_end(axis, rows, ks) -> None:
  last_step = max(row['step'] for row in rows)
  for k_eval in ks:
    k_opt, mean, low, high, best = (
      results.column(rows, name, step=last_step, k_eval=k_eval)
      for name in ('k_opt', 'max_at_k', 'quantile_05', 'quantile_95', 'optimum')
    )
    color = style.k_color(k_eval)
    axis.plot(k_opt, mean / best, color=color, marker='o', label=f'k_eval = {k_eval}')
    axis.fill_between(k_opt, low / best, high / best, color=color, alpha=0.2)
  axis.set(xlabel='k_opt', ylabel='share of the optimum', title='max@k_eval at the end')
  axis.set_xscale('log', base=2)
  axis.set_xticks(ks, ks)
  axis.legend()


if __name__ == '__main__':
  main()

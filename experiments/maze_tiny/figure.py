"""Draws pass@k on held-out mazes, and how training went, for every method, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
LABELS = {
  'warm': ('warm start', style.GREY, ':'),
  'k1': ('k_opt = 1', style.k_color(1), '-'),
  'k4': ('k_opt = 4', style.k_color(4), '-'),
  'k8': ('k_opt = 8', style.k_color(8), '-'),
  'tzsm': ('TZSM (k = n = 16)', style.PURPLE, '--'),
}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'pass_at_k.csv')
  curves = results.read_rows(RESULTS / 'curves.csv')
  figure, axes = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT))
  for method in dict.fromkeys(row['method'] for row in rows):
    label, color, line_style = LABELS[method]
    column = lambda name, method=method: results.column(rows, name, method=method)
    error = column('standard_error')
    axes[0].errorbar(
      column('k_eval'), column('pass_at_k'), None if None in error else error,
      color=color, linestyle=line_style, marker='o', capsize=3, label=label,
    )  # fmt: skip
  axes[0].set_xscale('log', base=2)
  axes[0].set_xticks(ks := sorted({row['k_eval'] for row in rows}), ks)
  axes[0].set(xlabel='k_eval', ylabel='pass@k_eval', title='Held-out mazes, after training')
  axes[0].legend()
  for axis, name, title in (
    (axes[1], 'cumulative_solve_rate', 'Share of the training mazes solved so far'),
    (axes[2], 'entropy', 'Entropy of the policy, nats per token'),
  ):
    style.draw_curve(axis, curves, name, LABELS)
    axis.set_title(title)
  style.save(figure, output_dir / 'maze_tiny.png')


if __name__ == '__main__':
  main()

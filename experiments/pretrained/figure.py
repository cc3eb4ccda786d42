"""Draws pass@k of the packaged models before and after training, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
TITLES = {
  'smollm2_135m': 'SmolLM2 135M, sums of three digits',
  'gemma3_270m': 'Gemma-3 270M, remainders',
}
LABELS = {
  'before': ('before', style.GREY, ':'),
  'k1': ('k_opt = 1', style.k_color(1), '-'),
  'k8': ('k_opt = 8', style.k_color(8), '-'),
}
CURVES = (
  ('cumulative_solve_rate', 'Share of problems solved so far'),
  ('entropy', 'Entropy, nats per token'),
)


def main(output_dir: Path = RESULTS) -> None:
  figure, axes = style.plt.subplots(
    len(TITLES), 3, figsize=(style.WIDTH_3, len(TITLES) * style.HEIGHT), squeeze=False
  )
  for row, (model, title) in zip(axes, TITLES.items(), strict=True):
    _draw_pass_at_k(row[0], results.read_rows(RESULTS / f'{model}_pass_at_k.csv'))
    row[0].set_title(title)
    curves = results.read_rows(RESULTS / f'{model}_curves.csv')
    for axis, (name, label) in zip(row[1:], CURVES, strict=True):
      _draw_curve(axis, curves, name)
      axis.set_title(label)
  style.save(figure, output_dir / 'training.png')


def _draw_pass_at_k(axis, rows):
  for method, (label, color, line_style) in LABELS.items():
    columns = ('k_eval', 'pass_at_k', 'standard_error')
    ks, mean, error = (results.column(rows, name, method=method) for name in columns)
    axis.errorbar(
      ks, mean, error, color=color, linestyle=line_style, marker='o', capsize=3, label=label
    )
  axis.set_xscale('log', base=2)
  axis.set_xticks(ks, ks)
  axis.set(xlabel='k', ylabel='pass@k, held-out problems')
  axis.set_ylim(bottom=0)
  axis.legend()


def _draw_curve(axis, rows, name):
  for method in dict.fromkeys(row['method'] for row in rows):
    label, color, line_style = LABELS[method]
    columns = ('step', name, f'{name}_se')
    steps, mean, error = (results.column(rows, column, method=method) for column in columns)
    axis.plot(steps, mean, color=color, linestyle=line_style, label=label)
    axis.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
  axis.set(xlabel='step')
  axis.set_ylim(bottom=0)


if __name__ == '__main__':
  main()

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
      style.draw_curve(axis, curves, name, LABELS)
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


if __name__ == '__main__':
  main()

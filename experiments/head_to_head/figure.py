"""Draws the head to head: where each advantage ends, and what its learning rate decides."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
LOOKS = {
  ('adam', 'tuned'): ('Adam, own rate', style.BLUE, 'o'),
  ('sgd', 'tuned'): ('SGD, own rate', style.VERMILION, 's'),
  ('sgd', 'common'): ('SGD, rate 10 for all', style.GREY, 'x'),
}
CURVES = ('pkpo_loo_minus_one', 'pkpo', 'passk_analytical', 'maxrl', 'grpo', 'rloo')


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'methods.csv')
  tuning = results.read_rows(RESULTS / 'tuning.csv')
  at_8 = [row for row in rows if row['k_eval'] == 8]
  ends = {(row['optimizer'], row['choice'], row['method']): row for row in at_8}
  methods = sorted(
    dict.fromkeys(row['method'] for row in at_8),
    key=lambda method: ends['adam', 'tuned', method]['pass_at_k'],
  )
  figure, (left, right) = style.plt.subplots(1, 2, figsize=(style.WIDTH_3, style.HEIGHT + 2.2))
  for (optimizer, choice), (label, color, marker) in LOOKS.items():
    chosen = [ends[optimizer, choice, method] for method in methods]
    left.errorbar(
      [row['pass_at_k'] for row in chosen], range(len(methods)),
      xerr=[row['standard_error'] for row in chosen],
      color=color, marker=marker, linestyle='', label=label,
    )  # fmt: skip
  left.axvline(at_8[0]['optimum'], color=style.BLACK, linewidth=1, linestyle='--', label='optimum')
  left.set_yticks(range(len(methods)), [style.method(method)['label'] for method in methods])
  left.set(xlabel='pass@8 after 400 steps, exact', title='Where each ends (10 seeds)')
  left.legend(loc='upper left')
  for method in CURVES:
    own = {'optimizer': 'sgd', 'method': method}
    rate, value = (results.column(tuning, name, **own) for name in ('learning_rate', 'pass_at_8'))
    right.plot(rate, value, **style.method(method))
  right.set(
    xlabel='peak learning rate', ylabel='pass@8 after 400 steps', xscale='log',
    title='SGD: what the rate decides (3 validation seeds)',
  )  # fmt: skip
  right.legend(loc='lower center')
  style.save(figure, output_dir / 'head_to_head.png')


if __name__ == '__main__':
  main()

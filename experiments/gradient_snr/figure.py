"""Draws the signal-to-noise ratio of every advantage's gradient, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
PANELS = {
  'PKPO': ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered', 'pkpo_weighted_loo',
           'max_at_k_off_policy'),
  'Pass@k Training': (
    'passk_analytical', 'passk_bootstrap', 'passk_full_sampling', 'passk_exceeding',
    'passk_combination', 'passk_adaptive',
  ),
  'Relatives': (
    'reinforce', 'rloo', 'mean_centered', 'grpo', 'f_grpo', 'maxrl', 'tailrl', 'rs_grpo', 'tzsm',
  ),
}  # fmt: skip
REFERENCE = 'pkpo_loo_minus_one'


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'snr.csv')
  figure, axes = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT + 0.4), sharey=True)
  for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
    for name in names if REFERENCE in names else (REFERENCE, *names):
      pass_rate = results.column(rows, 'pass_rate', advantage=name)
      snr = results.column(rows, 'snr', advantage=name)
      axis.plot(pass_rate, abs(snr), markevery=4, **style.method(name))
    axis.set(xlabel='pass rate p of one sample', title=title, xscale='log', yscale='log')
    axis.set_ylim(1e-3, 20)
    axis.legend(fontsize=8.5, loc='lower center')
  axes[0].set_ylabel('|mean| / standard deviation of the gradient')
  figure.suptitle('Signal-to-noise ratio of one prompt, n = 16, k = 8, 0/1 rewards (exact)')
  style.save(figure, output_dir / 'snr.png')


if __name__ == '__main__':
  main()

"""Draws the weights of prompts from the committed rows."""

from pathlib import Path

import numpy as np

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
# Advantages whose curves coincide are drawn once: 'pkpo_loo_minus_one' stands for all that are
# unbiased for max@k, 'rloo' for those of pass@1, 'maxrl' for 'tailrl'.
PANELS = {
  'Unbiased for an objective': (
    'pkpo_loo_minus_one',
    'rloo',
    'maxrl',
    'tzsm',
    'order_statistic',
    'pass_hat_k',
  ),
  'Pass@k Training': (
    'passk_analytical',
    'passk_bootstrap',
    'passk_full_sampling',
    'passk_exceeding',
    'passk_combination',
  ),
  'Divided by a deviation, or risk seeking': ('grpo', 'f_grpo', 'mean_centered', 'rs_grpo'),
}
LABELS = {
  'pkpo_loo_minus_one': 'pass@8: PKPO',
  'rloo': 'pass@1: RLOO, REINFORCE',
  'maxrl': 'MaxRL, TailRL',
  'tzsm': 'pass@16: TZSM',
  'order_statistic': 'median of 8',
  'pass_hat_k': 'pass^8',
}


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'weights.csv')
  figure, panels = style.plt.subplots(
    1, len(PANELS), figsize=(style.WIDTH_3, style.HEIGHT * 1.25), sharey=True
  )
  for axis, (title, names) in zip(panels, PANELS.items(), strict=True):
    for method in names:
      look = style.method(method)
      look['label'] = LABELS.get(method, look['label'])
      pass_rates = results.column(rows, 'pass_rate', method=method)
      weights = results.column(rows, 'weight', method=method)
      # At a pass rate of 1 some are 0, which has no place on this axis.
      shown = np.where(weights > 1e-3, weights, np.nan)
      axis.plot(pass_rates, shown, markevery=10, **look)
    axis.set(title=title, xlabel='pass rate of the prompt', yscale='log', ylim=(0.01, 20))
    axis.legend(loc='upper center', bbox_to_anchor=(0.5, -0.2), ncols=1, fontsize=9)
  panels[0].set_ylabel("weight of its gradient, F'(p)")
  style.save(figure, output_dir / 'weights.png')


if __name__ == '__main__':
  main()

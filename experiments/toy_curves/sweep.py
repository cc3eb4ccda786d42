"""Trains the toy problems with continuous rewards on every k_opt, 100 seeds each.

python -m experiments.toy_curves.sweep
"""

import pathlib
import time

import numpy as np
import tqdm

from configs import bandit, gaussian
from experiments.results import write_rows
from experiments.toy import train_seeds
from pkpo_jax.checkpoints import flatten
from pkpo_jax.train import make_run

NUM_SEEDS = 100
LOG_EVERY = 50
RESULTS = pathlib.Path(__file__).parent / 'results'
CONFIGS = {'safe_risky': bandit.get_config('safe_risky'), 'parabola': gaussian.get_config()}


def main() -> None:
  """Writes, per problem, one row for each k_opt, k_eval and recorded step."""
  for name, config in CONFIGS.items():
    start = time.time()
    run, ks, rows = make_run(config), config.eval.ks, []
    best = [run.task.best_max_at_k(run.policy, k) for k in ks]
    for k_opt in tqdm.tqdm(ks, desc=name):
      config.advantage.k = k_opt
      steps, curves = train_seeds(config, config.seed + np.arange(NUM_SEEDS), LOG_EVERY)
      low, high = np.quantile(curves, [0.05, 0.95], axis=0)
      for m, step in enumerate(steps):
        for i, k_eval in enumerate(ks):
          rows.append(
            {
              'k_opt': k_opt,
              'k_eval': k_eval,
              'step': step,
              'max_at_k': curves[:, m, i].mean(),
              'standard_error': curves[:, m, i].std(ddof=1) / np.sqrt(NUM_SEEDS),
              'quantile_05': low[m, i],
              'quantile_95': high[m, i],
              'optimum': best[i],
              'num_seeds': NUM_SEEDS,
            }
          )
    del config.advantage.k
    write_rows(
      RESULTS / f'{name}.csv',
      rows,
      command='python -m experiments.toy_curves.sweep',
      config={**flatten(config.to_dict()), 'num_seeds': NUM_SEEDS},
      seed=config.seed,
      wall_seconds=time.time() - start,
    )


if __name__ == '__main__':
  main()

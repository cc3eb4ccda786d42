"""Trains the hidden-answer bandit on every k_opt and measures pass@k_eval exactly for every k.

python -m experiments.hidden_answer_diagonal.sweep
"""

import pathlib
import time

import numpy as np

from configs import bandit
from experiments.diagonal import diagonal_rows
from experiments.results import write_rows
from experiments.toy import train_seeds
from pkpo_jax.run import make_run
from pkpo_jax.workdir import flatten

NUM_SEEDS = 20
RESULTS = pathlib.Path(__file__).parent / 'results' / 'diagonal.csv'


def main() -> None:
  """Writes one row for each pair of k_opt and k_eval."""
  start = time.time()
  config = bandit.get_config('hidden_answer')
  ks = config.eval.ks
  run = make_run(config)
  best = [run.task.best_objective(run.policy, k) for k in ks]
  values = []
  for k_opt in ks:
    config.advantage.k = k_opt
    _, curves = train_seeds(
      config, config.seed + np.arange(NUM_SEEDS), log_every=config.num_train_steps
    )
    values.append(curves[:, -1])
    print(f'k_opt = {k_opt}: pass@{ks} = {values[-1].mean(axis=0).round(4)}', flush=True)
  del config.advantage.k
  write_rows(
    RESULTS,
    diagonal_rows(ks, np.asarray(values), best),
    command='python -m experiments.hidden_answer_diagonal.sweep',
    config={**flatten(config.to_dict()), 'num_seeds': NUM_SEEDS},
    seed=config.seed,
    wall_seconds=time.time() - start,
  )


if __name__ == '__main__':
  main()

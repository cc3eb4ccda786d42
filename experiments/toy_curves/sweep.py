"""Trains the toy problems with continuous rewards on every k_opt, 100 seeds each.

python -m experiments.toy_curves.sweep
"""

import pathlib
import time

from configs import bandit, gaussian
from experiments.results import write_rows
from experiments.toy import curve_rows
from pkpo_jax.progress import Progress
from pkpo_jax.workdir import flatten

NUM_SEEDS = 100
LOG_EVERY = 50
RESULTS = pathlib.Path(__file__).parent / 'results'
CONFIGS = {'safe_risky': bandit.get_config('safe_risky'), 'parabola': gaussian.get_config()}


def main() -> None:
  """Writes, per problem, one row for each k_opt, k_eval and recorded step."""
  for name, config in CONFIGS.items():
    start = time.time()
    rows = []
    for k_opt in Progress(name, items=config.eval.ks, unit='k'):
      config.advantage.k = k_opt
      rows += curve_rows(config, NUM_SEEDS, LOG_EVERY, 'max_at_k', k_opt=k_opt)
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

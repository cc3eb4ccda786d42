"""Trains the hidden-answer bandit under schedules of k, 100 seeds each.

python -m experiments.toy_annealing.sweep
"""

import pathlib
import time

from configs import bandit, default
from experiments.results import write_rows
from experiments.toy import curve_rows
from pkpo_jax.progress import Progress
from pkpo_jax.workdir import flatten

NUM_SEEDS = 100
LOG_EVERY = 20
KS = (1, 8)
RESULTS = pathlib.Path(__file__).parent / 'results' / 'annealing.csv'


def schedules() -> dict[str, tuple[int, dict]]:
  """Returns name -> (config.advantage.k, config.advantage.schedule)."""
  return {
    'k = 1': (1, default.schedule('constant')),
    'k = 8': (8, default.schedule('constant')),
    '8, then 1 from step 500': (8, default.schedule('step')),
    '8 to 1 in a line to step 500': (8, default.schedule('linear')),
    '1, then 8, then 1': (8, default.schedule('pass1_passk_pass1')),
  }


def main() -> None:
  """Writes one row for each schedule, k_eval and recorded step."""
  start = time.time()
  config = bandit.get_config('hidden_answer')
  config.eval.ks = KS
  config.optimizer.decay = 'constant'  # Every phase of a schedule gets the same step size.
  rows = []
  for name, (k, schedule) in Progress('annealing', items=[*schedules().items()], unit='schedule'):
    config.advantage.k, config.advantage.schedule = k, schedule
    rows += curve_rows(config, NUM_SEEDS, LOG_EVERY, 'pass_at_k', schedule=name)
  del config.advantage.k, config.advantage.schedule
  write_rows(
    RESULTS,
    rows,
    command='python -m experiments.toy_annealing.sweep',
    config={**flatten(config.to_dict()), 'num_seeds': NUM_SEEDS},
    seed=config.seed,
    wall_seconds=time.time() - start,
  )


if __name__ == '__main__':
  main()

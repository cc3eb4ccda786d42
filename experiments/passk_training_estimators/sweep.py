"""Trains the hidden-answer bandit with the three estimates of Pass@k Training, at equal rollouts.

python -m experiments.passk_training_estimators.sweep [--smoke]
"""

import argparse
import time
from pathlib import Path

from configs import bandit
from experiments.results import write_rows
from experiments.toy import end_rows, gradient_noise, train_run
from pkpo_jax.parts import defaults
from pkpo_jax.progress import Progress
from pkpo_jax.run import make_run
from pkpo_jax.workdir import flatten

RESULTS = Path(__file__).parent / 'results' / 'estimators.csv'
NUM_SAMPLES = (8, 16, 32)
SAMPLES_PER_STEP = 1024
METHODS = ('passk_full_sampling', 'passk_bootstrap', 'passk_analytical', 'pkpo_loo_minus_one')
NUM_GROUPS = (4, 8, 32, 64)  # Of passk_bootstrap at n = 16, beside n groups.
K = 4
NUM_SEEDS = 20
LOG_EVERY = 10
NUM_BATCHES = 512


def cases() -> list[tuple[str, int, int | None]]:
  """Returns every method, n, and number of groups of the bootstrap, which is n in the paper."""
  groups_of = lambda method, n: n if method == 'passk_bootstrap' else None
  usual = [(method, n, groups_of(method, n)) for n in NUM_SAMPLES for method in METHODS]
  return usual + [('passk_bootstrap', 16, num_groups) for num_groups in NUM_GROUPS]


def main() -> None:
  """Writes a row for each case and k_eval."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--smoke', action='store_true', help='two cases; writes no rows')
  args = parser.parse_args()
  start = time.time()
  rows = []
  chosen = cases()[:2] if args.smoke else cases()
  for method, n, num_groups in Progress('estimators', items=chosen, unit='case'):
    run = make_run(make_config(method, n, num_groups))
    curves = train_run(run, range(NUM_SEEDS), [1.0] * NUM_SEEDS, LOG_EVERY)
    labels = {'method': method, 'n': n, 'num_groups': num_groups}
    noise = gradient_noise(run, NUM_BATCHES)
    rows += [labels | row | noise for row in end_rows(run, curves)]
  if args.smoke:
    return
  config = flatten(make_config('passk_analytical', 16, None).to_dict())
  for field in ('advantage.name', 'rollout.num_samples', 'rollout.num_prompts'):
    del config[field]
  config |= {'num_seeds': NUM_SEEDS, 'samples_per_step': SAMPLES_PER_STEP}
  write_rows(
    RESULTS,
    rows,
    command='python -m experiments.passk_training_estimators.sweep',
    config=config | {'num_batches': NUM_BATCHES},
    seed=0,
    wall_seconds=time.time() - start,
  )


def make_config(method: str, n: int, num_groups: int | None):
  """Returns the bandit with as many samples in a step, whatever n."""
  config = bandit.get_config('hidden_answer')
  config.num_train_steps = 400
  config.rollout.num_samples, config.rollout.num_prompts = n, SAMPLES_PER_STEP // n
  config.advantage.update(defaults('advantage', method))
  config.advantage.k = K
  if num_groups is not None:
    config.advantage.num_groups = num_groups
  config.eval.ks = (1, 2, 4, 8)
  return config


if __name__ == '__main__':
  main()

"""Trains the hidden-answer bandit with every advantage, each at its own best learning rate.

python -m experiments.head_to_head.sweep [--smoke]
"""

import argparse
import math
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from configs import bandit
from experiments.results import write_rows
from experiments.toy import end_rows, gradient_noise, train_run
from pkpo_jax.estimators import standard_error
from pkpo_jax.parts import defaults
from pkpo_jax.progress import Progress
from pkpo_jax.run import Run, make_run
from pkpo_jax.workdir import flatten

RESULTS = Path(__file__).parent / 'results'
N, K = 16, 8
NUM_STEPS = 400
# Those with the objective pass@8 or pass@1, or one of their own on the way from one to the other.
METHODS = (
  *('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered', 'pkpo_weighted_loo'),
  *('passk_analytical', 'passk_bootstrap', 'passk_full_sampling', 'passk_exceeding'),
  *('passk_combination', 'passk_adaptive', 'tzsm', 'maxrl', 'tailrl', 'rs_grpo', 'f_grpo'),
  *('grpo', 'rloo', 'mean_centered', 'reinforce', 'maxrl_pkpo'),
)
# The peak, of which the best for pass@8 at the end is taken: as many trials for each method.
LEARNING_RATES = {
  'adam': (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
  'sgd': (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
}
COMMON_RATE = {'adam': 0.05, 'sgd': 10.0}  # What all are compared at, too.
VALIDATION_SEEDS = (1000, 1001, 1002)
NUM_SEEDS = 10
LOG_EVERY = 20
NUM_BATCHES = 512  # For the noise of the gradient at the start.


def main() -> None:
  """Writes a row for each optimizer, method, choice of the learning rate and k_eval."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--smoke', action='store_true', help='two methods; writes no rows')
  args = parser.parse_args()
  start = time.time()
  rows, tuning = [], []
  pairs = [(optimizer, method) for optimizer in LEARNING_RATES for method in METHODS]
  pairs = [('adam', 'pkpo_loo_minus_one'), ('sgd', 'maxrl_pkpo')] if args.smoke else pairs
  for optimizer, method in Progress('head to head', items=pairs, unit='method'):
    run = make_method(optimizer, method)
    found = _tune(run, optimizer)
    tuning += [{'optimizer': optimizer, 'method': method, **row} for row in found]
    best = max(found, key=lambda row: row['pass_at_8'])['learning_rate']
    noise = gradient_noise(run, NUM_BATCHES)
    rates = {'tuned': best, 'common': COMMON_RATE[optimizer]}
    lanes = np.tile(range(NUM_SEEDS), 2), np.repeat([*rates.values()], NUM_SEEDS)
    curves = train_run(run, *lanes, LOG_EVERY)
    for i, (choice, rate) in enumerate(rates.items()):
      labels = {'optimizer': optimizer, 'method': method, 'choice': choice, 'learning_rate': rate}
      own = slice(i * NUM_SEEDS, (i + 1) * NUM_SEEDS)
      rows += [labels | row | noise for row in end_rows(run, curves.lanes(own))]
  if args.smoke:
    return
  config = flatten(make_config('adam').to_dict()) | {
    **{'num_seeds': NUM_SEEDS, 'methods': METHODS, 'learning_rates': LEARNING_RATES},
    **{'validation_seeds': VALIDATION_SEEDS, 'num_batches': NUM_BATCHES},
  }
  for field in ('optimizer.name', 'optimizer.learning_rate', 'advantage.name'):
    del config[field]
  for name, each in (('methods', rows), ('tuning', tuning)):
    write_rows(
      RESULTS / f'{name}.csv',
      each,
      command='python -m experiments.head_to_head.sweep',
      config=config,
      seed=0,
      wall_seconds=time.time() - start,
    )


def make_config(optimizer: str):
  """Returns the bandit with a learning rate of 1, which the lanes scale."""
  config = bandit.get_config('hidden_answer')
  config.num_train_steps = NUM_STEPS
  config.rollout.num_samples, config.advantage.k = N, K
  config.optimizer.name, config.optimizer.learning_rate = optimizer, 1.0
  return config


def make_method(optimizer: str, method: str) -> Run:
  """Returns the run of a method; its options have their defaults."""
  config = make_config(optimizer)
  if method != 'maxrl_pkpo':
    config.advantage.update(defaults('advantage', method))
    return make_run(config)
  own = lambda params, rollout, rewards, where, k, key, answers=None: maxrl_pkpo(rewards, K)
  return make_run(config)._replace(advantage_fn=own)


def maxrl_pkpo(rewards: Float[Array, '*G n'], k: int) -> Float[Array, '*G n']:
  """Returns what the repository of MaxRL calls PKPO, for 0/1 rewards.

  C(n - c, k - 1) / C(n - 1, k - 1) for each of c right samples and 0 for wrong ones, less the mean
  of that over the other samples. On average it is n / ((n - 1) k) times
  (1 - k/n) grad pass@k + (k/n) grad pass@(k-1).
  """
  n = rewards.shape[-1]
  by_count = jnp.asarray([math.comb(n - c, k - 1) / math.comb(n - 1, k - 1) for c in range(n + 1)])
  num_right = jnp.sum(rewards, axis=-1, keepdims=True).astype(jnp.int32)
  gains = rewards * by_count[num_right]
  return (gains - jnp.mean(gains, axis=-1, keepdims=True)) * n / (n - 1)


def _tune(run: Run, optimizer: str) -> list[dict]:
  """Returns pass@8 at the end for each learning rate, of the validation seeds."""
  rates, seeds = LEARNING_RATES[optimizer], VALIDATION_SEEDS
  lanes = np.tile(seeds, len(rates)), np.repeat(rates, len(seeds))
  curves = train_run(run, *lanes, log_every=run.settings.num_train_steps)
  at = run.settings.eval.ks.index(K)
  ends = curves.objective[:, -1, at].reshape(len(rates), len(seeds))
  return [
    {'learning_rate': rate, 'pass_at_8': each.mean(), 'standard_error': standard_error(each)}
    for rate, each in zip(rates, ends, strict=True)
  ]


if __name__ == '__main__':
  main()

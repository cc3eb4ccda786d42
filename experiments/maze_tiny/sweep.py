"""Trains the tiny Gemma-2 on mazes for several k_opt and seeds, and evaluates all of them.

python -m experiments.maze_tiny.sweep [--workers=2] [--smoke]
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from absl import logging

from experiments.comparison import curve_rows, over_seeds, paired_rows
from experiments.launcher import Job, run_jobs
from experiments.results import write_rows
from pkpo_jax.checkpoints import restore_params
from pkpo_jax.evaluation.measure import make_evaluate
from pkpo_jax.evaluation.summary import Evaluation
from pkpo_jax.intervals import paired_bootstrap
from pkpo_jax.progress import Progress
from pkpo_jax.run import make_run
from pkpo_jax.workdir import flatten

RUNS = Path('runs/maze_tiny')
RESULTS = Path(__file__).parent / 'results'
NUM_SEEDS = 5
NUM_EVAL_SAMPLES = 64
# Name: config.advantage.name and k, of 16 samples.
METHODS = {
  'k1': ('pkpo_loo_minus_one', 1),
  'k4': ('pkpo_loo_minus_one', 4),
  'k8': ('pkpo_loo_minus_one', 8),
  'tzsm': ('tzsm', 16),
}
# Which differences are of interest: first minus second; the warm start has just one seed.
PAIRS = [(method, 'k1') for method in ('k4', 'k8', 'tzsm')] + [('k8', 'k4')]
PAIRS += [(method, 'warm') for method in METHODS]
CURVES = ('cumulative_solve_rate', 'entropy', 'pass@1_rolling', 'pass@8_rolling')
WARM = Job(RUNS / 'warm', 'maze_tiny:warm', {'log.tensorboard': False})


def job(method: str, seed: int) -> Job:
  """Returns a training from the common warm start."""
  name, k = METHODS[method]
  overrides = {
    'seed': seed,
    'warm_start': str(WARM.workdir),
    'advantage.name': name,
    'advantage.k': k,
    'log.tensorboard': False,
  }
  return Job(RUNS / f'{method}_seed{seed}', 'maze_tiny', overrides)


def main() -> None:
  """Trains what is not trained yet, evaluates, writes rows."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workers', type=int, default=2, help='trainings at a time')
  parser.add_argument('--smoke', action='store_true', help='two short runs: only that they run')
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  if args.smoke:
    for one in (WARM, job('k8', 0)):
      run_jobs([one.smoke()], 1, 'maze_tiny, small')
    return
  start = time.time()
  jobs = {method: [job(method, seed) for seed in range(NUM_SEEDS)] for method in METHODS}
  run_jobs([WARM], 1, 'warm start')
  run_jobs([jobs[m][seed] for seed in range(NUM_SEEDS) for m in METHODS], args.workers, 'maze_tiny')
  ks, found = evaluate({'warm': [WARM], **jobs})
  values = {m: np.asarray([one.values for one in group]) for m, group in found.items()}
  config = flatten(job('k1', 0).load().to_dict())
  for field in ('seed', 'advantage.name', 'advantage.k'):
    del config[field]
  config |= {'num_seeds': NUM_SEEDS, 'methods': METHODS, 'num_eval_samples': NUM_EVAL_SAMPLES}
  config['warm_start'] = flatten(WARM.load().to_dict())
  for name, rows in (
    ('pass_at_k', pass_at_k_rows(ks, found)),
    ('paired', paired_rows(values, PAIRS, ks, paired_bootstrap)),
    ('curves', curve_rows(jobs, CURVES)),
  ):
    write_rows(
      RESULTS / f'{name}.csv',
      rows,
      command='python -m experiments.maze_tiny.sweep',
      config=config,
      seed=0,
      wall_seconds=time.time() - start,
    )


def evaluate(jobs: Mapping[str, list[Job]]) -> tuple[tuple[int, ...], dict[str, list[Evaluation]]]:
  """Returns config.eval.ks and the evaluation of every run, all on the same held-out mazes."""
  config = job('k1', 0).load()
  config.eval.num_samples = NUM_EVAL_SAMPLES
  run = make_run(config)
  like = jax.eval_shape(run.policy.init, jax.random.key(0))
  measure = make_evaluate(run)
  found = {method: [] for method in jobs}
  all_jobs = [(method, one) for method, group in jobs.items() for one in group]
  for i, (method, one) in enumerate(Progress('evaluation', items=all_jobs, unit='run')):
    step, params = restore_params(one.workdir, like)
    found[method].append(measure(params, step, jax.random.key(i)))
  return run.settings.eval.ks, found


def pass_at_k_rows(ks: tuple[int, ...], found: Mapping[str, list[Evaluation]]) -> list[dict]:
  """Returns the mean over seeds of each method's pass@k and, of the same samples, entropy."""
  rows = []
  for method, evaluations in found.items():
    values = np.asarray([np.mean(one.values, axis=0) for one in evaluations])
    entropy = np.mean([np.mean(one.statistics['entropy']) for one in evaluations])
    for i, k in enumerate(ks):
      row = {'method': method, 'k_eval': k, **over_seeds(values[:, i], 'pass_at_k')}
      rows.append(row | {'entropy': entropy})
  return rows


if __name__ == '__main__':
  main()

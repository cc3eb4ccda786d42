"""Trains both packaged models on a drill each, for k = 1 and k = 8, and compares pass@k.

python -m experiments.pretrained.training [--models=smollm2_135m,gemma3_270m] [--smoke]

Trains what is not trained yet: a run that was stopped goes on where it was. The weights have to be
in place (python -m pkpo_jax.pretrained NAME).
"""

import argparse
import collections
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.comparison import curve_rows, over_seeds, paired_rows
from experiments.launcher import Job, TrainingFailed, run_jobs, sweep_jobs
from experiments.pretrained.evaluations import outcomes, question
from experiments.results import write_rows
from pkpo_jax.curves import curve
from pkpo_jax.errors import FieldError, WorkdirError, expect
from pkpo_jax.intervals import paired_interval
from pkpo_jax.metrics import read_metrics
from pkpo_jax.samples import read_samples
from pkpo_jax.workdir import flatten

RUNS = Path('runs')
RESULTS = Path(__file__).parent / 'results'
MODELS = ('smollm2_135m', 'gemma3_270m')
PAIRS = [('k8', 'k1'), ('k1', 'before'), ('k8', 'before')]
CURVES = ('pass@1', 'cumulative_solve_rate', 'entropy')
NUM_SHOWN = 8


def main() -> None:
  """Trains what is not trained yet, writes rows and completions."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', type=lambda x: x.split(','), default=MODELS)
  parser.add_argument('--workers', type=int, default=1, help='trainings at a time')
  parser.add_argument('--smoke', action='store_true', help='two steps of each: only that they run')
  args = parser.parse_args()
  try:
    for model in args.models:
      expect(model in MODELS, 'models', f'some of {MODELS}', model)
    jobs = {model: sweep_jobs(model, RUNS / model) for model in args.models}
    if args.smoke:
      run_jobs([group[0].smoke() for group in jobs.values()], 1, 'pretrained, small')
      return
    for model, group in jobs.items():
      run_jobs(group, args.workers, model)
  except (FieldError, WorkdirError, TrainingFailed) as error:
    sys.exit(str(error))
  for model, group in jobs.items():
    write(model, group)


def write(model: str, jobs: Sequence[Job]) -> None:
  """Writes the rows and the answers of a model's trainings, and prints the answers.

  Their wall_seconds are those of the steps of all runs, which may have been made one by one.
  """
  config = jobs[0].load()
  ks, last = tuple(config.eval.ks), config.num_train_steps
  of_method = {}
  for job in jobs:
    of_method.setdefault(job.workdir.name.split('_seed')[0], []).append(job)
  found = {
    'before': [(job.workdir, 0) for job in of_method['k1']],
    **{method: [(job.workdir, last) for job in group] for method, group in of_method.items()},
  }
  values = {
    method: np.array([curve(outcomes(read_samples(w, 'eval', step)), ks) for w, step in runs])
    for method, runs in found.items()
  }
  flat = flatten(config.to_dict())
  for field in ('seed', 'advantage.k'):
    del flat[field]
  for name, rows in (
    ('pass_at_k', pass_at_k_rows(ks, values, found)),
    ('paired', paired_rows(values, PAIRS, ks, paired_interval)),
    ('curves', curve_rows(of_method, CURVES)),
  ):
    write_rows(
      RESULTS / f'{model}_{name}.csv',
      rows,
      command='python -m experiments.pretrained.training',
      config=flat | {'num_seeds': len(of_method['k1']), 'methods': list(of_method)},
      seed=0,
      wall_seconds=sum(_seconds(job.workdir) for job in jobs),
    )
  path = RESULTS / f'{model}_answers.txt'
  path.write_text(answers({method: runs[0] for method, runs in found.items()}))
  print(path.read_text())


def pass_at_k_rows(
  ks: Sequence[int],
  values: Mapping[str, np.ndarray],
  found: Mapping[str, Sequence[tuple[Path, int]]],
) -> list[dict]:
  """Returns the mean over seeds of each method's pass@k and, of the same samples, entropy."""
  rows = []
  for method, runs in found.items():
    entropy = np.mean([_metric(workdir, step, 'eval/entropy') for workdir, step in runs])
    for i, k in enumerate(ks):
      over_problems = values[method][:, :, i].mean(axis=1)
      row = {'method': method, 'k_eval': k, **over_seeds(over_problems, 'pass_at_k')}
      rows.append(row | {'entropy': entropy})
  return rows


def answers(found: Mapping[str, tuple[Path, int]]) -> str:
  """Returns a text: how often each answer came in the samples of the first held-out problems."""
  lines = ['The answers to the first held-out problems, seed 0; "*" is right, "x3" is three times.']
  samples = {
    method: read_samples(workdir, 'eval', step) for method, (workdir, step) in found.items()
  }
  width = max(map(len, samples))
  for group in range(NUM_SHOWN):
    for index, (method, all_of_them) in enumerate(samples.items()):
      own = [x for x in all_of_them if x['group'] == group]
      if not index:
        lines += ['', question(own[0])]
      counts = collections.Counter(
        f'{"*" if x["success"] else ""}{x["completion"].strip()!r}' for x in own
      )
      cells = (text + (f' x{count}' if count > 1 else '') for text, count in counts.most_common())
      lines.append(f'  {method:<{width}}  {"  ".join(cells)}')
  return '\n'.join(lines) + '\n'


def _seconds(workdir: Path) -> float:
  times = ('time/rollout_s', 'time/rewards_s', 'time/update_s')
  return sum(line.get(name, 0.0) for line in read_metrics(workdir) for name in times)


def _metric(workdir: Path, step: int, name: str) -> float:
  return next(x[name] for x in read_metrics(workdir) if x['step'] == step and name in x)


if __name__ == '__main__':
  main()

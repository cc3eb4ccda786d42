"""The main job: teaches a tiny Gemma-2 mazes, for pass@1 and, at equal compute, for pass@8.

python -m experiments.quickstart [--workdir=runs/quickstart] [--smoke]
"""

import argparse
import os
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from configs import quickstart
from experiments import style
from pkpo_jax import sharding
from pkpo_jax.evaluation.measure import make_evaluate
from pkpo_jax.intervals import Interval, mean_interval
from pkpo_jax.metrics import read_metrics
from pkpo_jax.run import make_run
from pkpo_jax.train import train

KS = (1, 2, 4, 8, 16)
TRAINED_KS = (1, 8)
LABELS = ('warm start', *(f'pass@{k}' for k in TRAINED_KS))


class Trained(NamedTuple):
  """A trained policy.

  Attributes:
    label: what it was trained on.
    pass_at_k: of the held-out mazes, `[K]` for KS.
    entropy: of the policy there, nats per token.
    lines: the metrics of its training.
  """

  label: str
  pass_at_k: Interval
  entropy: float
  lines: list[dict]


def main() -> None:
  """Trains, prints the table, draws the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/quickstart'))
  parser.add_argument('--smoke', action='store_true', help='a few steps: shows only that it runs')
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  workdir = args.workdir / 'smoke' if args.smoke else args.workdir
  compile_quickly(workdir / '.jax_cache')
  start = time.time()
  print('A Gemma-2 of 130,000 weights on mazes of 4 x 4. First it imitates noisy demonstrations;')
  print('then it is trained twice, at equal compute: for pass@1 (k = 1) and for pass@8 (k = 8).')
  policies = train_all(workdir, seed=0, smoke=args.smoke)
  _print_table(policies)
  path = workdir / 'quickstart.png'
  draw(policies, path)
  print(f'Figure: {path}    Metrics: {workdir}/*/metrics.jsonl    {time.time() - start:.0f} s')


def compile_quickly(cache_dir: pathlib.Path) -> None:
  """Takes less time to compile; to be called before jax first looks for devices."""
  # Runs as short as these do not earn back what the compiler's last optimizations take.
  flags = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{flags} --xla_backend_optimization_level=1'.strip()
  # All runs compile the same programs.
  jax.config.update('jax_compilation_cache_dir', str(cache_dir))


def train_all(workdir: pathlib.Path, seed: int, smoke: bool = False) -> list[Trained]:
  """Trains a warm start and, from it, for each of TRAINED_KS, and measures them, as in LABELS.

  Args:
    workdir: the folder of their workdirs; what is trained there already is not trained again.
    seed: of everything random but the mazes.
    smoke: take a few steps.
  """
  configs = {'warm': quickstart.get_config('warm_quick' if smoke else 'warm')}
  for k in TRAINED_KS:
    config = configs[f'k{k}'] = quickstart.get_config('quick' if smoke else None)
    config.warm_start, config.advantage.k = str(workdir / 'warm'), k
  policies = []
  for label, (name, config) in zip(LABELS, configs.items(), strict=True):
    config.seed = seed
    params = train(config, workdir / name).params
    policies.append(_evaluate(label, config, params, read_metrics(workdir / name)))
  return policies


def _evaluate(label: str, config: ConfigDict, params, lines: list[dict]) -> Trained:
  """Measures a policy on the held-out mazes."""
  evaluate_key, interval_key = jax.random.split(jax.random.key(config.seed))
  run = make_run(config)
  # Over the same mesh the programs are those of training's own evaluation, compiled already.
  over_prompts = sharding.over_prompts(sharding.make_mesh(run.settings.mesh))
  evaluate = make_evaluate(run, over_prompts)
  evaluation = evaluate(params, config.num_train_steps, evaluate_key)
  interval = mean_interval(evaluation.curves['pass@k'], interval_key)
  return Trained(label, interval, float(np.mean(evaluation.statistics['entropy'])), lines)


def _print_table(policies: list[Trained]) -> None:
  """Prints pass@k with half the width of its 95 % interval, solve rate and entropy."""
  print(f'\n{"trained on":<11}' + ''.join(f'{f"pass@{k}":>14}' for k in KS), ' solved  entropy')
  for label, pass_at_k, entropy, lines in policies:
    print(f'{label:<11}', end='')
    for mean, low, high in zip(*pass_at_k, strict=True):
      print(f'{f"{mean:.3f} +-{(high - low) / 2:.3f}":>14}', end='')
    solved = _column(lines, 'train/cumulative_solve_rate')[1]
    print(f'{f"{solved[-1]:.3f}" if solved else "-":>8}{entropy:9.3f}')
  print('pass@k and entropy (nats per token) on held-out mazes, with half the 95 % interval over')
  print('mazes; solved: share of the training mazes of which a right answer was ever drawn.\n')


def draw(policies: list[Trained], path: pathlib.Path) -> None:
  """Draws pass@k against k, and during training the solve rate and entropy."""
  figure, axes = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT))
  colors = [style.GREY, *map(style.k_color, TRAINED_KS)]
  for color, (label, pass_at_k, _, lines) in zip(colors, policies, strict=True):
    axes[0].plot(KS, pass_at_k.mean, color=color, marker='o', label=label)
    axes[0].fill_between(KS, pass_at_k.low, pass_at_k.high, color=color, alpha=0.15, linewidth=0)
    if label != LABELS[0]:
      axes[1].plot(*_column(lines, 'train/cumulative_solve_rate'), color=color, label=label)
      axes[2].plot(*_column(lines, 'train/entropy'), color=color, label=label)
  axes[0].set_xscale('log', base=2)
  axes[0].set_xticks(KS, KS)
  axes[0].set(xlabel='k', ylabel='pass@k', title='Held-out mazes, with 95 % intervals')
  axes[0].legend(title='trained on')
  axes[1].set(xlabel='step', title='Share of the training mazes solved so far')
  axes[2].set(xlabel='step', title='Entropy of the policy, nats per token')
  for axis in axes:
    axis.set_ylim(bottom=0)
  style.save(figure, path)


def _column(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
  """Returns the steps that have a metric, and its values."""
  lines = [line for line in lines if name in line]
  return [line['step'] for line in lines], [line[name] for line in lines]


if __name__ == '__main__':
  main()

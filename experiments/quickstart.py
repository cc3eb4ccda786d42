"""The main job: trains the hidden-answer bandit with k = 1 and k = 8, prints and draws the result.

python -m experiments.quickstart [--workdir=runs/quickstart] [--smoke]
"""

import argparse
import pathlib
import time

import jax
from absl import logging
from ml_collections import ConfigDict

from configs import bandit
from experiments import style
from pkpo_jax.estimators import Interval, bootstrap_interval
from pkpo_jax.evaluate import make_evaluate
from pkpo_jax.metrics import read_metrics
from pkpo_jax.run import make_run
from pkpo_jax.train import train

TRAINED_KS = (1, 8)


def main() -> None:
  """Trains, prints the table, draws the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/quickstart'))
  parser.add_argument('--smoke', action='store_true', help='20 steps: shows only that it runs')
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  workdir = args.workdir / 'smoke' if args.smoke else args.workdir
  start = time.time()
  print('Hidden answer: each problem hides its right arm; pass@1 wants the likeliest one, pass@8')
  print('wants a hedge. The same bandit is trained on both, by PKPO with k = 1 and with k = 8.')
  found = {}
  for k in TRAINED_KS:
    config = make_config(k, smoke=args.smoke)
    found[k] = _evaluate(config, train(config, workdir / f'k{k}').params)
  _print_table(found)
  path = workdir / 'quickstart.png'
  draw({k: read_metrics(workdir / f'k{k}') for k in TRAINED_KS}, found[1][2], path)
  print(f'Figure: {path}    Metrics: {workdir}/k*/metrics.jsonl    {time.time() - start:.0f} s')


def make_config(k: int, *, smoke: bool = False) -> ConfigDict:
  """Returns the bandit's config with `k` as objective, evaluated on pass@1 and pass@8."""
  config = bandit.get_config('hidden_answer_quick' if smoke else None)
  config.advantage.k = k
  config.eval.ks = TRAINED_KS
  config.eval.num_prompts = 64 if smoke else 2048
  return config


def _evaluate(config: ConfigDict, params) -> tuple[Interval, jax.Array, list[float]]:
  """Returns the estimate with its interval, the exact value and the optimum for each k."""
  run = make_run(config)
  evaluate_key, bootstrap_key = jax.random.split(jax.random.key(config.seed + 1))
  evaluate = make_evaluate(run.policy, run.task, run.settings.eval)
  values, exact = evaluate(params, config.num_train_steps, evaluate_key)
  best = [run.task.best_max_at_k(run.policy, k) for k in TRAINED_KS]
  return bootstrap_interval(values, bootstrap_key), exact, best


def _print_table(found: dict[int, tuple]) -> None:
  print(
    f'\n{"trained on":>12} {"measured":>9} {"exact":>8} {"estimated":>10}  '
    f'{"95 % interval":<18} {"optimum":>8}'
  )
  for trained_k, (estimate, exact, best) in found.items():
    for i, k in enumerate(TRAINED_KS):
      interval = f'[{estimate.low[i]:.4f}, {estimate.high[i]:.4f}]'
      print(
        f'{f"pass@{trained_k}":>12} {f"pass@{k}":>9} {exact[i]:8.4f} {estimate.mean[i]:10.4f}  '
        f'{interval:<18} {best[i]:8.4f}'
      )
  print()


def draw(metrics: dict[int, list[dict]], best: list[float], path: pathlib.Path) -> None:
  """Draws pass@1 and pass@8 over the steps, for each k that was trained, with the optima."""
  figure, axes = style.plt.subplots(1, len(TRAINED_KS), figsize=(style.WIDTH_2, style.HEIGHT))
  for axis, k, optimum in zip(axes, TRAINED_KS, best, strict=True):
    for trained_k, lines in metrics.items():
      color = style.k_color(trained_k)
      train_lines = [line for line in lines if f'train/pass@{k}' in line]
      steps = [line['step'] for line in train_lines]
      axis.plot(steps, [line[f'train/pass@{k}'] for line in train_lines], color=color, alpha=0.25)
      axis.plot(
        steps,
        [line[f'train/pass@{k}_exact'] for line in train_lines],
        color=color,
        label=f'trained on pass@{trained_k}',
      )
    axis.axhline(optimum, color='black', linestyle='--', linewidth=1, label='optimum')
    axis.set(title=f'pass@{k}', xlabel='step', ylabel=f'pass@{k}')
  figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
  figure.suptitle('Hidden-answer bandit: exact objective (line) and its estimate (faint)')
  style.save(figure, path)


if __name__ == '__main__':
  main()

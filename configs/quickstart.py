"""A Gemma-2 of 130 thousand weights on small mazes: what `make quickstart` trains, in two minutes.

  python -m pkpo_jax.main --config=configs/quickstart.py:warm --workdir=runs/quickstart_warm
  python -m pkpo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart_k8 \
    --config.warm_start=runs/quickstart_warm --config.advantage.k=8

configs/maze_tiny.py at a twentieth of its arithmetic: mazes of 4 x 4 instead of 5 x 5, a model of
2 layers of width 64 instead of 4 of width 128, fewer steps. `:warm` imitates noisy demonstrations.
"""

from ml_collections import ConfigDict

from configs import default
from configs.text_tiny import make_config


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  task = default.task('maze', size=4, max_moves=6)
  # Up to six moves, one to spare, and the end.
  config = make_config('quickstart', arg, task, 8, num_train_steps=150, num_warm_steps=600)
  config.policy.preset = 'gemma2_micro'
  config.eval.num_samples = 32
  # A small model bears higher learning rates.
  config.optimizer.learning_rate = 1e-3
  if 'warm' in (arg or ''):
    # Without the rise some seeds learn little in these steps.
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = config.num_train_steps // 12
  if 'quick' not in (arg or ''):
    config.eval.every = config.num_train_steps
    config.checkpoint.every = 100
  return config

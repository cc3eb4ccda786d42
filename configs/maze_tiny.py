"""A Gemma-2 of one million weights on mazes, on a laptop: pass@1 or pass@k.

  python -m pkpo_jax.main --config=configs/maze_tiny.py:warm --workdir=runs/maze_warm
  python -m pkpo_jax.main --config=configs/maze_tiny.py --workdir=runs/maze_k8 \
    --config.warm_start=runs/maze_warm --config.advantage.k=8

`:warm` imitates noisy demonstrations, which teaches the form of an answer and little more.
`:quick` and `:warm_quick` only show that everything runs.
"""

from ml_collections import ConfigDict

from configs import default

_VARIANTS = ('', 'warm', 'quick', 'warm_quick')


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  arg = arg or ''
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/maze_tiny.py: expected one of {_VARIANTS} after the colon, got {arg!r}.'
    )
  config = default.get_config()
  config.num_train_steps = 400
  config.task = default.maze()
  config.policy = default.gemma2()
  config.policy.max_new_tokens = 10  # Up to eight moves, one to spare, and the end.

  config.rollout.num_prompts = 16
  config.rollout.num_samples = 16
  config.advantage.k = 8

  config.optimizer.learning_rate = 3e-4
  config.optimizer.max_grad_norm = 1.0

  config.eval.every = 200
  config.eval.num_prompts = 256
  config.eval.policy = default.gemma2_eval()
  config.checkpoint.every = 200
  if 'warm' in arg:
    config.num_train_steps = 800
    config.rollout.source = 'demonstrations'
    config.rollout.num_prompts = 64
    config.rollout.num_samples = 1
    config.eval.every = 200
    config.loss.normalization = 'token'
    config.advantage.name, config.advantage.k = 'reinforce', 1
    config.optimizer.learning_rate = 1e-3
  if 'quick' in arg:
    config.num_train_steps = 10
    config.eval.every = 5
    config.eval.num_prompts = 32
    config.checkpoint.every = 5
  return config

"""A Gemma-2 of one million random weights that learns to copy words, on a laptop.

  python -m pkpo_jax.main --config=configs/gemma2_tiny.py --workdir=runs/gemma2_tiny

45 s on 2 CPU cores. Expect eval/max@1 (the share of right characters) of about 0.88, from 0.004.
The variant `:quick` after the file's name only shows that everything runs.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant 'quick'."""
  if arg not in (None, '', 'quick'):
    raise ValueError(f"configs/gemma2_tiny.py: expected 'quick' after the colon, got {arg!r}.")
  config = default.get_config()
  config.num_train_steps = 300
  config.task = default.task('copy')
  config.policy = default.policy('language_model')
  config.policy.max_new_tokens = 4  # Three letters and the end.

  config.rollout.num_prompts = 16
  config.rollout.num_samples = 16
  config.advantage.k = 4

  config.optimizer.learning_rate = 1e-3
  config.optimizer.max_grad_norm = 1.0

  config.eval.every = 100
  config.eval.num_prompts = 64
  config.eval.policy = default.eval_policy()
  config.checkpoint.every = 100
  if arg == 'quick':
    config.num_train_steps = 10
  return config

"""A Gemma-2 of one million weights on countdown, on a laptop: pass@1 or pass@k.

  python -m pkpo_jax.main --config=configs/countdown_tiny.py:warm --workdir=runs/countdown_warm
  python -m pkpo_jax.main --config=configs/countdown_tiny.py --workdir=runs/countdown_k8 \
    --config.warm_start=runs/countdown_warm --config.advantage.k=8

`:warm` imitates noisy demonstrations, which teaches the form of an answer and little more. Each run
takes two minutes of CPU time. Expect, on 256 problems held out (one seed, standard errors 0.005 to
0.03), of completions 2 to 3 % malformed and

                 pass@1  pass@2  pass@4  pass@8  pass@16
  warm            0.083   0.157   0.281   0.459   0.664
  advantage.k=1   0.257   0.332   0.390   0.442   0.484
  advantage.k=8   0.160   0.272   0.414   0.549   0.645

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
      f'configs/countdown_tiny.py: expected one of {_VARIANTS} after the colon, got {arg!r}.'
    )
  config = default.get_config()
  config.num_train_steps = 200
  config.task = default.countdown()
  config.policy = default.gemma2()
  config.policy.max_new_tokens = 12  # '(15-12)*17' and the end are 11.

  config.rollout.num_prompts = 16
  config.rollout.num_samples = 16
  config.advantage.k = 8

  config.optimizer.learning_rate = 3e-4
  config.optimizer.max_grad_norm = 1.0

  config.eval.every = 100
  config.eval.num_prompts = 256
  config.eval.policy = default.gemma2_eval()
  config.checkpoint.every = 100
  if 'warm' in arg:
    config.num_train_steps = 600
    config.rollout.source = 'demonstrations'
    config.rollout.num_prompts = 64
    config.rollout.num_samples = 1
    config.eval.every = 300
    config.loss.normalization = 'token'
    config.advantage.name, config.advantage.k = 'reinforce', 1
    config.optimizer.learning_rate = 1e-3
  if 'quick' in arg:
    config.num_train_steps = 10
    config.eval.every = 5
    config.eval.num_prompts = 32
    config.checkpoint.every = 5
  return config

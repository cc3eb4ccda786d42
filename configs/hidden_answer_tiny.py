"""The hidden answer as a string, for a Gemma-2 of one million weights: pass@k with known optima.

  python -m pkpo_jax.main --config=configs/hidden_answer_tiny.py:warm \
    --workdir=runs/hidden_answer_warm
  python -m pkpo_jax.main --config=configs/hidden_answer_tiny.py --workdir=runs/hidden_answer_k8 \
    --config.warm_start=runs/hidden_answer_warm --config.advantage.k=8

`:warm` imitates all strings of a context alike, so that the policy begins where the bandit does,
undecided. `:quick` and `:warm_quick` only show that everything runs.
"""

from ml_collections import ConfigDict

from configs import default

_VARIANTS = ('', 'warm', 'quick', 'warm_quick')


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  arg = arg or ''
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/hidden_answer_tiny.py: expected one of {_VARIANTS} after the colon, got {arg!r}.'
    )
  config = default.get_config()
  config.num_train_steps = 400
  config.task = default.hidden_answer_text()
  config.policy = default.gemma2()
  config.policy.max_new_tokens = 4  # Three letters and the end.

  config.rollout.num_prompts = 16
  config.rollout.num_samples = 16
  config.advantage.k = 8

  config.optimizer.learning_rate = 2e-4
  # Gradients of pass@16 have a norm of about 3: clipped, they are no longer unbiased.
  config.optimizer.max_grad_norm = 10.0

  config.eval.every = 100
  config.eval.num_prompts = 256
  config.eval.policy = default.gemma2_eval()
  config.checkpoint.every = 100
  if 'warm' in arg:
    config.num_train_steps = 350
    config.rollout.source = 'demonstrations'
    config.loss.normalization = 'token'
    config.advantage.name, config.advantage.k = 'reinforce', 1
    config.optimizer.learning_rate = 2e-3
  if 'quick' in arg:
    config.num_train_steps = 10
    config.eval.every = 5
    config.eval.num_prompts = 32
    config.checkpoint.every = 5
  return config

"""What the configs of a tiny Gemma-2 with a warm start have in common; no config of its own."""

from ml_collections import ConfigDict

from configs import default

_VARIANTS = ('', 'warm', 'quick', 'warm_quick')


def make_config(
  name: str,
  arg: str | None,
  task: ConfigDict,
  max_new_tokens: int,
  num_train_steps: int,
  num_warm_steps: int,
) -> ConfigDict:
  """Returns the variant `arg` of the config `name`.

  'warm' imitates demonstrations; 'quick' and 'warm_quick' only show that everything runs.
  """
  arg = arg or ''
  if arg not in _VARIANTS:
    raise ValueError(
      f'configs/{name}.py: expected one of {_VARIANTS} after the colon, got {arg!r}.'
    )
  config = default.get_config()
  config.num_train_steps = num_train_steps
  config.task = task
  config.policy = default.policy('language_model')
  config.policy.max_new_tokens = max_new_tokens

  config.rollout.num_prompts = 16
  config.rollout.num_samples = 16
  config.advantage.k = 8

  config.optimizer.learning_rate = 3e-4
  config.optimizer.max_grad_norm = 1.0

  config.eval.every = 200
  config.eval.num_prompts = 256
  config.eval.policy = default.eval_policy()
  config.checkpoint.every = 200
  if 'warm' in arg:
    config.num_train_steps = num_warm_steps
    config.rollout.source = 'demonstrations'
    config.rollout.num_prompts = 64
    config.rollout.num_samples = 1
    config.loss.normalization = 'token'
    config.advantage.name, config.advantage.k = 'reinforce', 1
    config.optimizer.learning_rate = 1e-3
  if 'quick' in arg:
    config.num_train_steps = 10
    config.eval.every = 5
    config.eval.num_prompts = 32
    config.checkpoint.every = 5
  return config

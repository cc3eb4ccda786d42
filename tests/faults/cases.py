"""The run that the tests of faults disturb."""

from configs import bandit

# Eight steps of a bandit, with a checkpoint after every second.
_FIELDS = {
  'num_train_steps': 8,
  'rollout.num_prompts': 8,
  'rollout.num_samples': 4,
  'advantage.k': 2,
  'eval.every': 4,
  'eval.ks': (1, 2),
  'eval.num_prompts': 8,
  'checkpoint.every': 2,
  'log.every': 1,
  'log.tensorboard': False,
}
ARGUMENTS = ['--config=configs/bandit.py']
ARGUMENTS += [f'--config.{name}={value}' for name, value in _FIELDS.items()]


def make_config(**overrides):
  """Returns the config of ARGUMENTS, with some fields changed."""
  config = bandit.get_config('hidden_answer')
  config.update_from_flattened_dict(_FIELDS | overrides)
  return config

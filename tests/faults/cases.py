"""The run that the tests of faults disturb."""

from configs import bandit


def make_config(**overrides):
  """Returns a bandit of eight steps, with a checkpoint after every second."""
  config = bandit.get_config('hidden_answer')
  fields = {
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
  config.update_from_flattened_dict(fields | overrides)
  return config

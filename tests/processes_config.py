"""The run that several processes train together in the tests: a real but small language model."""

from configs import default
from configs.text_tiny import make_config


def get_config(arg=None):
  """Returns the config; `arg` is 'pool' for math problems, which worker processes judge."""
  task = default.task('copy')
  config = make_config('processes_config', 'quick', task, 8, 4, 1)
  config.num_train_steps = 4
  config.policy.preset = 'llama_micro'
  config.rollout.num_prompts, config.rollout.num_samples = 8, 4
  config.advantage.k = 2
  config.loss.kl_coef = 0.01
  config.eval.every, config.eval.num_prompts, config.eval.num_samples = 4, 8, 4
  config.eval.ks = (1, 2, 4)
  config.checkpoint.every = 2
  config.log.every = 1
  config.log.tensorboard = False
  config.mesh.data = -1
  if arg == 'pool':
    config.task = default.task('math_problems', num_workers=1, source='samples')
    config.rollout.num_samples = 16
    config.num_train_steps = 100_000
    config.eval.num_prompts = 2
  return config

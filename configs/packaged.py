"""What the configs of packaged pretrained models have in common; no config of its own."""

from ml_collections import ConfigDict

from configs import default

_VARIANTS = ('', 'short', 'quick')


def make_config(
  name: str, arg: str | None, kind: str, tokenizer: str, tokenizer_path: str
) -> ConfigDict:
  """Returns the variant `arg` of the config `name`: training on a drill.

  A step is 8 problems of 16 samples, one update with the unbiased gradient. The embedding table,
  most of the weights and of no use to a drill, stays as it is. 'short' is what
  `make quickstart-pretrained` trains, 'quick' takes two steps.

  Args:
    name: of the config, and of the folder of weights.
    arg: the variant.
    kind: of the drill, a key of `pkpo_jax.tasks.drills.KINDS`.
    tokenizer: the kind of tokenizer.
    tokenizer_path: its file or folder.

  Raises:
    ValueError: if there is no such variant.
  """
  if (arg or '') not in _VARIANTS:
    raise ValueError(
      f'configs/{name}.py: expected one of {_VARIANTS} after the colon, got {arg!r}.'
    )
  config = default.get_config()
  config.num_train_steps = 30
  config.task = default.task('drills', kind=kind)
  config.policy = default.policy('language_model', preset=None, weights=f'weights/{name}')
  config.policy.tokenizer = default.tokenizer(tokenizer, path=tokenizer_path)
  config.policy.freeze_embedding = True
  config.policy.max_new_tokens = 4
  config.policy.log_prob_chunk = 4

  config.rollout.num_prompts, config.rollout.num_samples = 8, 16
  config.advantage.k = 8

  config.optimizer.learning_rate = 3e-6
  config.optimizer.warmup_steps = 2
  config.optimizer.decay = 'constant'
  config.optimizer.max_grad_norm = 1.0

  config.eval.every = 30
  config.eval.num_prompts = 128
  config.eval.policy = default.eval_policy()
  config.checkpoint.every = 10
  config.checkpoint.max_to_keep = 1
  config.log.every = 1
  if arg == 'short':
    config.num_train_steps = config.eval.every = config.checkpoint.every = 20
    config.rollout.num_prompts = 4
    config.optimizer.learning_rate = 1e-5
    config.eval.num_prompts = 32
  elif arg == 'quick':
    config.num_train_steps = 2
    config.optimizer.warmup_steps = 1
    config.rollout.num_prompts, config.rollout.num_samples = 4, 8
    config.eval.every, config.eval.num_prompts = 2, 8
    config.checkpoint.every = 2
  return config

"""The contextual softmax bandit, on a laptop.

  python -m pkpo_jax.main --config=configs/bandit.py --workdir=runs/bandit

Variants after the colon: `hidden_answer` (default), `safe_risky`, and forms of both that only show
that everything runs (`quick`, `safe_risky_quick`).
"""

from ml_collections import ConfigDict

from configs import default

_TASKS = ('hidden_answer', 'safe_risky')


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config of the variant `arg`."""
  name, quick = (arg or '').removesuffix('quick').removesuffix('_'), (arg or '').endswith('quick')
  name = name or 'hidden_answer'
  if name not in _TASKS:
    variants = [*_TASKS, 'quick', *(f'{task}_quick' for task in _TASKS)]
    raise ValueError(f'configs/bandit.py: expected one of {variants} after the colon, got {arg!r}.')
  config = default.get_config()
  config.task = default.task(name)
  if quick:
    config.num_train_steps = 20
    config.eval.num_prompts = 64
  return config

"""The optimiser that config.optimizer describes."""

import optax

from pkpo_jax.settings import expect, lookup

OPTIMIZERS = {'sgd': optax.sgd, 'adam': optax.adam}
DECAYS = ('constant', 'linear', 'cosine')


def make_optimizer(
  name: str,
  learning_rate: float,
  warmup_steps: int,
  decay: str,
  max_grad_norm: float | None,
  num_train_steps: int,
) -> optax.GradientTransformation:
  """Returns the optimiser.

  Args:
    name: 'sgd' or 'adam'.
    learning_rate: peak step size.
    warmup_steps: steps over which the step size rises linearly from 0.
    decay: 'constant', or 'linear' or 'cosine' down to 0 at num_train_steps.
    max_grad_norm: global norm that gradients are scaled down to; None leaves them.
    num_train_steps: where the decay ends.

  Raises:
    ValueError: if a name is unknown or a number out of range.
  """
  optimizer = lookup('name', name, OPTIMIZERS)
  expect(decay in DECAYS, 'decay', f'one of {DECAYS}', decay)
  expect(learning_rate > 0, 'learning_rate', 'a number > 0', learning_rate)
  expect(
    0 <= warmup_steps < num_train_steps,
    'warmup_steps',
    f'0 <= warmup_steps < num_train_steps = {num_train_steps}',
    warmup_steps,
  )
  remaining = num_train_steps - warmup_steps
  after_warmup = {
    'constant': lambda: optax.constant_schedule(learning_rate),
    'linear': lambda: optax.linear_schedule(learning_rate, 0.0, remaining),
    'cosine': lambda: optax.cosine_decay_schedule(learning_rate, remaining),
  }[decay]()
  warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  transforms = [optimizer(optax.join_schedules([warmup, after_warmup], [warmup_steps]))]
  if max_grad_norm is not None:
    expect(max_grad_norm > 0, 'max_grad_norm', 'a number > 0 or None', max_grad_norm)
    transforms.insert(0, optax.clip_by_global_norm(max_grad_norm))
  return optax.chain(*transforms)

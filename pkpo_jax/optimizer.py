"""The optimizer that config.optimizer describes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pkpo_jax.errors import expect
from pkpo_jax.settings import lookup

OPTIMIZERS = {'sgd': optax.sgd, 'adam': optax.adam, 'adamw': optax.adamw}
DECAYS = ('constant', 'linear', 'cosine')


def make_learning_rate(
  learning_rate: float,
  warmup_steps: int,
  decay: str,
  decay_steps: int | None,
  num_train_steps: int,
) -> optax.Schedule:
  """Returns fn(step) -> the learning rate of a training step.

  Args:
    learning_rate: peak step size.
    warmup_steps: training steps over which it rises linearly from 0.
    decay: 'constant', or 'linear' or 'cosine' down to 0.
    decay_steps: the training step at which the decay ends, 0 from there on; None is
      num_train_steps. Where it is set, a run can be extended.
    num_train_steps: length of the run.

  Raises:
    ValueError: if a name is unknown or a number out of range.
  """
  expect(decay in DECAYS, 'decay', f'one of {DECAYS}', decay)
  expect(learning_rate > 0, 'learning_rate', 'a number > 0', learning_rate)
  expect(decay_steps is None or decay_steps >= 1, 'decay_steps', 'at least 1 or None', decay_steps)
  horizon = num_train_steps if decay_steps is None else decay_steps
  name = 'num_train_steps' if decay_steps is None else 'decay_steps'
  expect(
    0 <= warmup_steps < horizon,
    'warmup_steps',
    f'0 <= warmup_steps < {name} = {horizon}',
    warmup_steps,
  )
  remaining = horizon - warmup_steps
  after_warmup = {
    'constant': lambda: optax.constant_schedule(learning_rate),
    'linear': lambda: optax.linear_schedule(learning_rate, 0.0, remaining),
    'cosine': lambda: optax.cosine_decay_schedule(learning_rate, remaining),
  }[decay]()
  warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  return optax.join_schedules([warmup, after_warmup], [warmup_steps])


def make_optimizer(
  name: str,
  learning_rate: float,
  warmup_steps: int,
  decay: str,
  decay_steps: int | None,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  max_grad_norm: float | None,
  max_skipped_updates: int,
  num_train_steps: int,
  updates_per_step: int,
) -> optax.GradientTransformation:
  """Returns the optimizer; for parameters below float32, of their float32 master copies.

  An update whose gradient has a NaN or an infinite number is left out and counted, see
  `skipped_updates`; it does not count as a step of the learning rate.

  Args:
    name: 'sgd', 'adam' or 'adamw'.
    learning_rate: as in `make_learning_rate`.
    warmup_steps: as there.
    decay: as there.
    decay_steps: as there.
    b1: Adam's decay of the mean of gradients.
    b2: Adam's decay of the mean of their squares.
    eps: added to the root of that mean.
    weight_decay: AdamW's: times the step size, the share taken off every weight in an update.
    max_grad_norm: global norm that gradients are scaled down to; None leaves them.
    max_skipped_updates: updates that may be left out in a run; who trains has to look.
    num_train_steps: length of the run.
    updates_per_step: updates in a training step; all have the step size of their step.

  Raises:
    ValueError: if a name is unknown or a number out of range.
  """
  optimizer = lookup('name', name, OPTIMIZERS)
  by_step = make_learning_rate(learning_rate, warmup_steps, decay, decay_steps, num_train_steps)
  expect(0 <= b1 < 1, 'b1', 'a number in [0, 1)', b1)
  expect(0 <= b2 < 1, 'b2', 'a number in [0, 1)', b2)
  expect(eps > 0, 'eps', 'a number > 0', eps)
  expect(weight_decay >= 0, 'weight_decay', 'a number >= 0', weight_decay)
  if name != 'adamw':
    expect(weight_decay == 0, 'weight_decay', f'0, as {name!r} has none (adamw has)', weight_decay)
  options = {} if name == 'sgd' else {'b1': b1, 'b2': b2, 'eps': eps}
  if name == 'adamw':
    options['weight_decay'] = weight_decay
  transforms = [optimizer(lambda count: by_step(count // updates_per_step), **options)]
  if max_grad_norm is not None:
    expect(max_grad_norm > 0, 'max_grad_norm', 'a number > 0 or None', max_grad_norm)
    transforms.insert(0, optax.clip_by_global_norm(max_grad_norm))
  most = max_skipped_updates
  expect(most >= 0, 'max_skipped_updates', 'at least 0', most)
  never = np.iinfo(np.int32).max  # Accepts such an update: the run stops before.
  return with_float32_master(optax.apply_if_finite(optax.chain(*transforms), never))


def skipped_updates(opt_state: optax.OptState) -> jax.Array:
  """Returns `[]` int32, the updates so far that were left out as their gradient was not finite.

  An optimizer that is not of `make_optimizer` leaves none out.
  """
  count = optax.tree.get(opt_state, 'total_notfinite')
  return jnp.zeros((), jnp.int32) if count is None else count


class MasterState(NamedTuple):
  """State of `with_float32_master`.

  Attributes:
    master: the parameters in float32, where they are not float32 themselves; None there.
    inner: state of the optimizer of the masters.
  """

  master: Any
  inner: optax.OptState


def with_float32_master(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """Returns `optimizer` with float32 masters, of which the parameters are the rounded values.

  An update of bfloat16 parameters below 1/256 of their size would be lost in rounding; here it
  adds up in the master. Gradients, moments and updates are float32, and float32 parameters are
  their own master.
  """

  def init(params):
    master = jax.tree.map(lambda p: None if p.dtype == jnp.float32 else _float32(p), params)
    return MasterState(master, optimizer.init(_merge(params, master)))

  def update(grads, state, params):
    masters = _merge(params, state.master)
    updates, inner = optimizer.update(jax.tree.map(_float32, grads), state.inner, masters)
    # From the parameter to the new master: `optax.apply_updates` then adds and rounds once.
    steps = jax.tree.map(
      lambda p, m, u: u if m is None else m + u - _float32(p), params, state.master, updates
    )
    # The very sum that is rounded to make the parameter. It equals m + u unless that is far from
    # the parameter, and then to float32 rounding.
    master = jax.tree.map(
      lambda p, m, s: None if m is None else _float32(p) + s, params, state.master, steps
    )
    return steps, MasterState(master, inner)

  return optax.GradientTransformation(init, update)


def _float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.float32)


def _merge(params: Any, master: Any) -> Any:
  """Returns the master where there is one, else the parameter."""
  return jax.tree.map(lambda p, m: p if m is None else m, params, master)

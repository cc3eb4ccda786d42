"""One step of training: rewards to advantages, advantages to an update. Pure functions."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from pkpo_jax import losses
from pkpo_jax.advantages import ADVANTAGES
from pkpo_jax.estimators import max_at_k
from pkpo_jax.policies import Policy
from pkpo_jax.settings import AdvantageSettings, LossSettings, lookup
from pkpo_jax.types import Rollout, TrainState
from pkpo_jax.typing import Key

AdvantageFn = Callable[[Any, Rollout, jax.Array, jax.Array, Key], jax.Array]


def make_advantage_fn(
  settings: AdvantageSettings, policy: Policy, ks: np.ndarray, num_samples: int
) -> AdvantageFn:
  """Returns fn(params, rollout, rewards, k, key) -> advantages `[P, N]`.

  An advantage asks for what it needs by the names of its arguments: its options among the fields
  of config.advantage, and `key`, `entropy` or `ratios`, which are worked out for it.

  Args:
    settings: config.advantage.
    policy: gives entropy and sequence ratios.
    ks: every k that the schedule will ask for, to be checked now.
    num_samples: samples per group.

  Raises:
    ValueError: if the name is unknown, or the advantage is not defined for one of `ks`.
  """
  function = lookup('advantage.name', settings.name, ADVANTAGES)
  arguments = inspect.signature(function).parameters
  options = {
    name: getattr(settings, name)
    for name in ('num_groups', 'success_threshold', 'beta')
    if name in arguments
  }

  def inputs(params, rollout, key):
    wanted = {'key': key} if 'key' in arguments else {}
    if not {'entropy', 'ratios'} & set(arguments):
      return wanted
    mask = rollout.completion_mask
    log_probs, entropy = policy.log_probs_and_entropy(params, rollout)
    if 'entropy' in arguments:
      total = jnp.sum(jnp.where(mask, entropy, 0), axis=(1, 2))
      wanted['entropy'] = total / jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1)
    if 'ratios' in arguments:
      log_ratios = jnp.where(mask, log_probs - rollout.sampling_log_probs, 0)
      wanted['ratios'] = jnp.exp(jnp.sum(log_ratios, axis=-1))
    return wanted

  def advantage_fn(params, rollout, rewards, k, key):
    return function(rewards, k=k, **options, **inputs(params, rollout, key))

  _try_every_k(function, arguments, options, ks, num_samples)
  return advantage_fn


def make_train_step(
  policy: Policy, optimizer: optax.GradientTransformation, settings: LossSettings
) -> Callable[
  [TrainState, Rollout, Float[jax.Array, 'P N']], tuple[TrainState, dict[str, jax.Array]]
]:
  """Returns fn(state, rollout, advantages) -> (state, metrics): one REINFORCE update.

  Metrics are scalars: loss, entropy (nats per token), grad_norm, zero_advantage_share (of the
  prompts, those whose samples all have advantage 0 and so give no gradient; they stay in the
  loss's denominator).
  """

  def loss_fn(params, rollout, advantages):
    log_probs, entropy = policy.log_probs_and_entropy(params, rollout)
    loss = losses.policy_gradient_loss(log_probs, advantages, rollout.completion_mask)
    entropy = losses.mean_entropy(entropy, rollout.completion_mask)
    return loss - settings.entropy_coef * entropy, entropy

  def train_step(state, rollout, advantages):
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, entropy), grads = grad_fn(state.params, rollout, advantages)
    metrics = {
      'loss': loss,
      'entropy': entropy,
      'grad_norm': optax.tree.norm(grads),
      'zero_advantage_share': jnp.mean(jnp.all(advantages == 0, axis=-1)),
    }
    return state.apply_gradients(grads, optimizer), metrics

  return train_step


def init_state(policy: Policy, optimizer: optax.GradientTransformation, key: Key) -> TrainState:
  """Returns the state before the first step."""
  params = policy.init(key)
  return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


def reward_metrics(
  rewards: Float[jax.Array, 'P N'], k: Int[jax.Array, ''], ks: Sequence[int], is_binary: bool
) -> dict[str, jax.Array]:
  """Returns reward_mean, k, and the estimate of pass@k (max@k) for every k in `ks` up to N."""
  metrics = {'reward_mean': jnp.mean(rewards), 'k': k}
  for eval_k in ks:
    if eval_k <= rewards.shape[-1]:
      metrics[objective_name(eval_k, is_binary)] = jnp.mean(max_at_k(rewards, eval_k))
  return metrics


def objective_name(k: int, is_binary: bool) -> str:
  """Returns 'pass@k' for 0/1 rewards, else 'max@k'."""
  return f'{"pass" if is_binary else "max"}@{k}'


def check_rewards(rewards: Any, prompt_ids: Any, step: int) -> None:
  """Raises FloatingPointError, naming the prompt, if a reward is NaN or infinite.

  Args:
    rewards: `[P, N]`, waited for.
    prompt_ids: `[P]`.
    step: the training step, for the message.
  """
  is_bad = ~np.isfinite(np.asarray(rewards))
  if is_bad.any():
    p, i = np.argwhere(is_bad)[0]
    raise FloatingPointError(
      f'rewards: expected finite numbers, got {np.asarray(rewards)[p, i]} for sample {i} of prompt '
      f'{np.asarray(prompt_ids)[p]} at step {step}.'
    )


def _try_every_k(function, arguments, options, ks, num_samples) -> None:
  """Raises ValueError if the advantage rejects a k: the kernels check a k that they know."""
  stand_ins = {
    'key': jax.random.key(0),
    'entropy': jnp.zeros(1),
    'ratios': jnp.ones((1, num_samples)),
  }
  wanted = {name: value for name, value in stand_ins.items() if name in arguments}
  for k in np.unique(ks):
    try:
      function(jnp.zeros((1, num_samples)), k=int(k), **options, **wanted)
    except ValueError as error:
      raise ValueError(f'advantage.{error} (n is rollout.num_samples)') from error

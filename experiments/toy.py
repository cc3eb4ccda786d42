"""Trains a toy config for many seeds at once: the trainer's own parts under vmap and scan."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from pkpo_jax.estimators import standard_error
from pkpo_jax.evaluation.measure import make_exact
from pkpo_jax.keys import run_keys, step_keys
from pkpo_jax.run import Run, make_run
from pkpo_jax.settings import Config
from pkpo_jax.train_step import init_state, make_train_step


class Curves(NamedTuple):
  """What `train_run` records, of each of S lanes.

  Attributes:
    steps: `[M]`, updates made at each record, from 0 to num_train_steps.
    objective: `[S, M, K]`, the exact pass@k (max@k) then, for each k in config.eval.ks.
    zero_advantage_share: `[S, M - 1]`, prompts without signal, the mean of the steps in between.
  """

  steps: np.ndarray
  objective: np.ndarray
  zero_advantage_share: np.ndarray

  def lanes(self, chosen: slice) -> 'Curves':
    """Returns those of some lanes."""
    return Curves(self.steps, self.objective[chosen], self.zero_advantage_share[chosen])


def train_seeds(
  config: Config, seeds: Sequence[int], log_every: int
) -> tuple[np.ndarray, np.ndarray]:
  """Trains `config` once per seed and returns the steps and the objective of `Curves`."""
  found = train_run(make_run(config), seeds, np.ones(len(seeds)), log_every)
  return found.steps, found.objective


def train_run(
  run: Run, seeds: Sequence[int], rate_factors: Sequence[float], log_every: int
) -> Curves:
  """Trains a run once per lane, step for step as `pkpo_jax.train.train` would.

  Args:
    run: of an exact task; the seed of its settings is replaced.
    seeds: `[S]`, of the lanes.
    rate_factors: `[S]`, what the updates of each are multiplied by.
    log_every: steps between records; must divide num_train_steps.
  """
  settings = run.settings
  num_records, rest = divmod(settings.num_train_steps, log_every)
  if rest:
    raise ValueError(
      f'log_every: expected a divisor of num_train_steps = {settings.num_train_steps}, '
      f'got {log_every}.'
    )
  exact_fn = make_exact(run.policy, run.task, settings.eval.ks)
  exact = lambda params: exact_fn(params)[run.task.objectives[0]]

  def one_lane(seed, rate_factor):
    init_key, train_key, _ = run_keys(jax.random.key(seed))
    optimizer = optax.chain(run.optimizer, optax.scale(rate_factor))
    train_step = make_train_step(run.policy, optimizer, settings.loss)

    def one_step(state, step):
      keys = step_keys(train_key, step)
      prompts = run.task.prompts(step, settings.rollout.num_prompts, train_key)
      rollout = run.policy.sample(state.params, prompts, settings.rollout.num_samples, keys.sample)
      rewards = run.task.grade(prompts, rollout, keys.grade).rewards
      k = run.k_schedule(step)
      advantages = run.advantage_fn(state.params, rollout, rewards, None, k, keys.advantages)
      state, metrics = train_step(state, frozen, rollout, advantages, keys.update)
      return state, metrics['zero_advantage_share']

    def one_record(state, first_step):
      state, shares = jax.lax.scan(one_step, state, first_step + jnp.arange(log_every))
      return state, (exact(state.params), jnp.mean(shares))

    state, frozen = init_state(run.policy, optimizer, init_key)
    first_steps = jnp.arange(num_records) * log_every
    _, (records, shares) = jax.lax.scan(one_record, state, first_steps)
    return jnp.concatenate([exact(state.params)[None], records]), shares

  lanes = jnp.asarray(seeds, jnp.uint32), jnp.asarray(rate_factors, jnp.float32)
  objective, shares = jax.jit(jax.vmap(one_lane))(*lanes)
  steps = np.arange(num_records + 1) * log_every
  return Curves(steps, np.asarray(objective), np.asarray(shares))


def curve_rows(
  config: Config, num_seeds: int, log_every: int, objective: str, **labels
) -> list[dict[str, float | int | str]]:
  """Trains `config` for `num_seeds` seeds and returns rows for each recorded step and k_eval.

  A row has the labels, k_eval, step, the mean over seeds in the column `objective`, its
  standard_error, the quantiles 0.05 and 0.95 of the seeds, the optimum and num_seeds.
  """
  run = make_run(config)
  steps, curves = train_seeds(config, config.seed + np.arange(num_seeds), log_every)
  low, high = np.quantile(curves, [0.05, 0.95], axis=0)
  rows = []
  for i, k_eval in enumerate(run.settings.eval.ks):
    best = run.task.best_objective(run.policy, k_eval)
    for m, step in enumerate(steps):
      rows.append(
        {
          **labels,
          'k_eval': k_eval,
          'step': step,
          objective: curves[:, m, i].mean(),
          'standard_error': curves[:, m, i].std(ddof=1) / np.sqrt(num_seeds),
          'quantile_05': low[m, i],
          'quantile_95': high[m, i],
          'optimum': best,
          'num_seeds': num_seeds,
        }
      )
  return rows


def end_rows(run: Run, curves: Curves) -> list[dict[str, float | int | None]]:
  """Returns a row for each k_eval: the mean over lanes at the end, and how fast it came there.

  steps_to_95_percent is the first record at which the mean has 95 % of the optimum; None is never.
  """
  rows = []
  for i, k_eval in enumerate(run.settings.eval.ks):
    best = run.task.best_objective(run.policy, k_eval)
    objective = curves.objective[..., i]
    reached = curves.steps[objective.mean(axis=0) >= 0.95 * best]
    rows.append(
      {
        'k_eval': k_eval,
        'pass_at_k': objective[:, -1].mean(),
        'standard_error': standard_error(objective[:, -1]),
        'optimum': best,
        'num_seeds': len(objective),
        'steps_to_95_percent': int(reached[0]) if len(reached) else None,
        'zero_advantage_share': curves.zero_advantage_share.mean(),
      }
    )
  return rows


def gradient_noise(run: Run, num_batches: int) -> dict[str, float]:
  """Returns the noise of one batch's gradient at the start, relative to its mean.

  The root of the trace of the covariance over batches, over the norm of their mean, which is free
  of bias: the mean product of different batches.
  """
  init_key, train_key, _ = run_keys(jax.random.key(0))
  params = run.policy.init(init_key)
  settings = run.settings

  def one_batch(step):
    keys = jax.random.split(jax.random.fold_in(train_key, step), 3)
    prompts = run.task.prompts(step, settings.rollout.num_prompts, train_key)
    rollout = run.policy.sample(params, prompts, settings.rollout.num_samples, keys[0])
    rewards = run.task.grade(prompts, rollout, keys[1]).rewards
    advantages = run.advantage_fn(params, rollout, rewards, None, settings.advantage.k, keys[2])

    def surrogate(params):
      log_probs, _ = run.policy.log_probs_and_entropy(params, rollout)
      return jnp.mean(advantages * jnp.sum(log_probs, axis=-1))

    return ravel_pytree(jax.grad(surrogate)(params))[0]

  gradients = jax.lax.map(jax.jit(one_batch), jnp.arange(num_batches))
  gradients = np.asarray(gradients, np.float64)
  mean = gradients.mean(axis=0)
  variance = ((gradients - mean) ** 2).sum() / (num_batches - 1)
  signal = (mean**2).sum() - variance / num_batches
  return {'noise_at_start': np.sqrt(variance / signal)}

"""The host loop: prompts, rollout, rewards, advantages, update, metrics."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pkpo_jax import sharding
from pkpo_jax.checkpoints import Checkpoints, claim_workdir
from pkpo_jax.evaluate import evaluation_metrics, exact_metrics, make_evaluate, make_exact
from pkpo_jax.metrics import MetricWriter, progress
from pkpo_jax.optimizer import make_optimizer
from pkpo_jax.policies import POLICIES, Policy
from pkpo_jax.schedules import SCHEDULES, Schedule
from pkpo_jax.settings import Config, Settings, as_dict, build, call, expect
from pkpo_jax.tasks import TASKS, Task
from pkpo_jax.train_step import (
  AdvantageFn,
  check_rewards,
  init_state,
  make_advantage_fn,
  make_train_step,
  reward_metrics,
)
from pkpo_jax.types import TrainState


class Run(NamedTuple):
  """The parts that a config names, all checked."""

  settings: Settings
  task: Task
  policy: Policy
  optimizer: optax.GradientTransformation
  k_schedule: Schedule
  advantage_fn: AdvantageFn


def make_run(config: Config) -> Run:
  """Returns the parts of the run that `config` describes.

  Raises:
    ValueError: if a field or name is unknown, or a value out of range.
    TypeError: if a field has the wrong type.
  """
  settings = Settings.from_config(config)
  task = build('task', settings.task, TASKS)
  policy = build('policy', settings.policy, POLICIES, task=task)
  optimizer = call(
    'optimizer', make_optimizer, settings.optimizer, num_train_steps=settings.num_train_steps
  )
  k_schedule = build(
    'advantage.schedule', settings.advantage.schedule, SCHEDULES, k=settings.advantage.k
  )
  ks = np.asarray(jax.vmap(k_schedule)(jnp.arange(settings.num_train_steps)))
  ks = np.append(ks, settings.advantage.k)
  advantage_fn = make_advantage_fn(settings.advantage, policy, ks, settings.rollout.num_samples)
  return Run(settings, task, policy, optimizer, k_schedule, advantage_fn)


def train(config: Config, workdir: str | pathlib.Path) -> TrainState:
  """Trains as `config` says, resuming what is in `workdir`, and returns the last state.

  Leaves config.json, metrics.jsonl, tensorboard/ and checkpoints/ in workdir.

  Raises:
    ValueError, TypeError: if the config is wrong, or workdir belongs to another config.
    FloatingPointError: if a reward or a metric is NaN or infinite.
  """
  settings, task, policy, optimizer, k_schedule, advantage_fn = make_run(config)
  mesh = sharding.make_mesh(settings.mesh)
  over_prompts, replicated = sharding.over_prompts(mesh), sharding.replicated(mesh)
  for field in ('rollout', 'eval'):
    num_prompts = getattr(settings, field).num_prompts
    expect(
      num_prompts % mesh.size == 0,
      f'{field}.num_prompts',
      f'a multiple of the {mesh.size} devices of the mesh',
      num_prompts,
    )
  workdir = pathlib.Path(workdir)
  claim_workdir(workdir, as_dict(config))

  sample = jax.jit(policy.sample, static_argnums=2, out_shardings=over_prompts)
  advantage_step = jax.jit(advantage_fn, out_shardings=over_prompts)
  train_step = jax.jit(
    make_train_step(policy, optimizer, settings.loss),
    in_shardings=(replicated, over_prompts, over_prompts),
    out_shardings=replicated,
    donate_argnums=0,
  )
  group_metrics = jax.jit(reward_metrics, static_argnums=(2, 3))
  exact_fn = make_exact(policy, task, settings.eval)
  evaluate = make_evaluate(policy, task, settings.eval)
  init_key, train_key, eval_key = jax.random.split(jax.random.key(settings.seed), 3)

  def write_evaluation(step):
    found = evaluate(state.params, step, jax.random.fold_in(eval_key, step))
    writer.write(step, evaluation_metrics(found, settings.eval, task.is_binary))

  with Checkpoints(workdir, settings.checkpoint) as checkpoints:
    state = jax.device_put(init_state(policy, optimizer, init_key), replicated)
    state = checkpoints.restore(state)
    first_step = int(state.step)
    if first_step:
      print(f'Resuming {workdir} at step {first_step}.')
    with MetricWriter(workdir, first_step, settings.log.tensorboard) as writer:
      for step in progress(first_step, settings.num_train_steps, workdir.name):
        if step % settings.eval.every == 0:
          write_evaluation(step)
        keys = jax.random.split(jax.random.fold_in(train_key, step), 4)
        prompts = task.prompts(step, settings.rollout.num_prompts, keys[0])
        prompts = jax.device_put(prompts, over_prompts)
        rollout = sample(state.params, prompts, settings.rollout.num_samples, keys[1])
        rewards = jax.device_put(task.rewards(prompts, rollout, keys[2]), over_prompts)
        check_rewards(rewards, prompts.ids, step)
        k = k_schedule(step)
        advantages = advantage_step(state.params, rollout, rewards, k, keys[3])
        is_logged = step % settings.log.every == 0
        exact = exact_fn(state.params) if is_logged and exact_fn else None
        state, metrics = train_step(state, rollout, advantages)
        if is_logged:
          metrics |= group_metrics(rewards, k, settings.eval.ks, task.is_binary)
          metrics |= exact_metrics(exact, settings.eval, task.is_binary)
          writer.write(step, {f'train/{name}': value for name, value in metrics.items()})
        is_last = step + 1 == settings.num_train_steps
        if (step + 1) % settings.checkpoint.every == 0 or is_last:
          writer.flush()
          checkpoints.save(state)
      write_evaluation(settings.num_train_steps)
  return state

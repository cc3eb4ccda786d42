"""Makes the parts of a run from its config: all that training and evaluation share."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from pkpo_jax import sharding
from pkpo_jax.checkpoints import restore_params
from pkpo_jax.errors import expect
from pkpo_jax.optimizer import make_optimizer
from pkpo_jax.policies import POLICIES, Policy
from pkpo_jax.schedules import SCHEDULES, Schedule
from pkpo_jax.settings import Config, LossSettings, Settings, build, call
from pkpo_jax.tasks import TASKS, FiniteTask, Task
from pkpo_jax.train_step import (
  AdvantageFn,
  init_state,
  make_advantage_fn,
  make_forward,
  make_train_step,
)


class Run(NamedTuple):
  """The parts that a config names, all checked."""

  settings: Settings
  task: Task | FiniteTask
  policy: Policy
  eval_policy: Policy
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
  expect(
    policy.samples_exactly,
    'policy',
    'one that samples from the very distribution whose log-probabilities are trained, else the '
    'gradient is biased (no top_k, top_p or greedy decoding; eval.policy may have them)',
    settings.policy,
  )
  changes = {name: value for name, value in settings.eval.policy.items() if value is not None}
  fields = sorted(policy.eval_fields)
  expect(changes.keys() <= policy.eval_fields, 'eval.policy', f'some of {fields}', changes)
  eval_policy = policy
  if changes:
    eval_policy = build('eval.policy', {**settings.policy, **changes}, POLICIES, task=task)
  loss = settings.loss
  optimizer = call(
    'optimizer',
    make_optimizer,
    settings.optimizer,
    num_train_steps=settings.num_train_steps,
    updates_per_step=loss.num_epochs * loss.num_minibatches,
  )
  k_schedule = build(
    'advantage.schedule', settings.advantage.schedule, SCHEDULES, k=settings.advantage.k
  )
  ks = np.asarray(jax.vmap(k_schedule)(jnp.arange(settings.num_train_steps)))
  ks = np.append(ks, settings.advantage.k)
  if settings.rollout.source == 'demonstrations':
    expect(
      hasattr(task, 'demonstrations'),
      'rollout.source',
      "'policy', as the task has no demonstrations",
      settings.rollout.source,
    )
    expect(
      loss.name == 'reinforce',
      'loss.name',
      "'reinforce' with rollout.source 'demonstrations', which no policy sampled",
      loss.name,
    )
    if isinstance(task, FiniteTask):  # One that is too long would stop the run when its turn comes.
      prompts = task.prompts_of(np.arange(task.num_problems))
      task.demonstrations(prompts, 1, policy.max_new_tokens, jax.random.key(settings.seed))
  forward = make_forward(policy, loss)
  advantage_fn = make_advantage_fn(settings.advantage, forward, ks, settings.rollout.num_samples)
  return Run(settings, task, policy, eval_policy, optimizer, k_schedule, advantage_fn)


def compile_step(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  settings: LossSettings,
  mesh: Mesh,
  warm_start: str | None = None,
) -> tuple[Callable, Callable]:
  """Returns how a run begins and goes on, with its state split over the mesh from the start.

  Args:
    policy: the policy.
    optimizer: makes the updates.
    settings: config.loss.
    mesh: the devices.
    warm_start: workdir of a run whose newest parameters to begin with.

  Returns:
    fn(key) -> (state, frozen), with released or warm-started weights if there are some, and the
    jitted fn(state, frozen, rollout, advantages, key) -> (state, metrics), which gives the state
    away.
  """
  over_prompts, rules = sharding.over_prompts(mesh), policy.partition_rules
  key = jax.random.key(0)  # For shapes only.
  init = functools.partial(init_state, policy, optimizer)
  shardings = sharding.tree_shardings(jax.eval_shape(init, key), mesh, rules)
  sharded_init = jax.jit(init, out_shardings=shardings, donate_argnums=1)

  def init_or_load(key):
    shapes = jax.eval_shape(policy.init, key)
    like = sharding.with_shardings(shapes, sharding.tree_shardings(shapes, mesh, rules))
    loaded = policy.pretrained(like) if hasattr(policy, 'pretrained') else {}
    if warm_start is not None:
      trained = {name: like[name] for name in like.keys() - policy.frozen}
      loaded |= restore_params(warm_start, trained)[1]
    return sharded_init(key, loaded)

  train_step = jax.jit(
    make_train_step(policy, optimizer, settings, over_prompts),
    in_shardings=(*shardings, over_prompts, over_prompts, None),
    out_shardings=(shardings[0], None),
    donate_argnums=0,
  )
  return init_or_load, train_step

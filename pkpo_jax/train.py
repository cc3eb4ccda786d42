"""The host loop: prompts, rollout, rewards, advantages, update, metrics."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from pkpo_jax import sharding
from pkpo_jax.checkpoints import Checkpoints, claim_workdir
from pkpo_jax.evaluate import evaluation_metrics, exact_metrics, make_evaluate, make_exact
from pkpo_jax.metrics import MetricWriter, progress
from pkpo_jax.optimizer import make_optimizer
from pkpo_jax.policies import POLICIES, Policy
from pkpo_jax.schedules import SCHEDULES, Schedule
from pkpo_jax.settings import Config, LossSettings, Settings, as_dict, build, call, expect
from pkpo_jax.tasks import TASKS, Task
from pkpo_jax.train_step import (
  AdvantageFn,
  check_rewards,
  init_state,
  make_advantage_fn,
  make_forward,
  make_train_step,
  reward_metrics,
)
from pkpo_jax.types import TrainState


class Run(NamedTuple):
  """The parts that a config names, all checked."""

  settings: Settings
  task: Task
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
  forward = make_forward(policy, loss)
  advantage_fn = make_advantage_fn(settings.advantage, forward, ks, settings.rollout.num_samples)
  return Run(settings, task, policy, eval_policy, optimizer, k_schedule, advantage_fn)


def train(config: Config, workdir: str | pathlib.Path) -> TrainState:
  """Trains as `config` says, resuming what is in `workdir`, and returns the last state.

  Leaves config.json, metrics.jsonl, tensorboard/ and checkpoints/ in workdir.

  Raises:
    ValueError, TypeError: if the config is wrong, or workdir belongs to another config.
    FloatingPointError: if a reward or a metric is NaN or infinite.
  """
  run = make_run(config)
  settings, task, policy = run.settings, run.task, run.policy
  mesh = sharding.make_mesh(settings.mesh)
  _check_num_prompts(settings, mesh)
  over_prompts = sharding.over_prompts(mesh)
  init_key, train_key, eval_key = jax.random.split(jax.random.key(settings.seed), 3)
  init, train_step = compile_step(policy, run.optimizer, settings.loss, mesh)
  workdir = pathlib.Path(workdir)
  claim_workdir(workdir, as_dict(config))

  sample = jax.jit(policy.sample, static_argnums=2, out_shardings=over_prompts)
  forward = jax.jit(make_forward(policy, settings.loss), out_shardings=over_prompts)
  advantage_step = jax.jit(run.advantage_fn, out_shardings=over_prompts)
  group_metrics = jax.jit(reward_metrics, static_argnums=(2, 3))
  exact_fn = make_exact(policy, task, settings.eval)
  evaluate = make_evaluate(run.eval_policy, task, settings.eval, over_prompts)

  def write_evaluation(step):
    found = evaluate(frozen | state.params, step, jax.random.fold_in(eval_key, step))
    writer.write(step, evaluation_metrics(found, settings.eval, task.is_binary))

  with Checkpoints(workdir, settings.checkpoint) as checkpoints:
    state, frozen = init(init_key)
    # A copy, as the state's own arrays are given away in the first update.
    ref_params = jax.tree.map(jnp.copy, state.params) if settings.loss.kl_coef else None
    state = checkpoints.restore(state)
    first_step = int(state.step)
    if first_step:
      print(f'Resuming {workdir} at step {first_step}.')
    with MetricWriter(workdir, first_step, settings.log.tensorboard) as writer:
      for step in progress(first_step, settings.num_train_steps, workdir.name):
        if step % settings.eval.every == 0:
          write_evaluation(step)
        keys = jax.random.split(jax.random.fold_in(train_key, step), 5)
        params = frozen | state.params
        prompts = task.prompts(step, settings.rollout.num_prompts, keys[0])
        prompts = jax.device_put(prompts, over_prompts)
        rollout = sample(params, prompts, settings.rollout.num_samples, keys[1])
        rewards = jax.device_put(task.rewards(prompts, rollout, keys[2]), over_prompts)
        check_rewards(rewards, prompts.ids, step)
        k = run.k_schedule(step)
        advantages = advantage_step(params, rollout, rewards, k, keys[3])
        if ref_params is not None:
          rollout = rollout.replace(ref_log_probs=forward(frozen | ref_params, rollout)[0])
        is_logged = step % settings.log.every == 0
        exact = exact_fn(params) if is_logged and exact_fn else None
        state, metrics = train_step(state, frozen, rollout, advantages, keys[4])
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


def compile_step(
  policy: Policy, optimizer: optax.GradientTransformation, settings: LossSettings, mesh: Mesh
) -> tuple[Callable, Callable]:
  """Returns how a run begins and goes on, with its state split over the mesh from the start.

  Returns:
    fn(key) -> (state, frozen), with released weights if the policy has some, and the jitted
    fn(state, frozen, rollout, advantages, key) -> (state, metrics), which gives the state away.
  """
  over_prompts, rules = sharding.over_prompts(mesh), policy.partition_rules
  key = jax.random.key(0)  # For shapes only.
  init = functools.partial(init_state, policy, optimizer)
  shardings = sharding.tree_shardings(jax.eval_shape(init, key), mesh, rules)
  sharded_init = jax.jit(init, out_shardings=shardings, donate_argnums=1)

  def init_or_load(key):
    if not hasattr(policy, 'pretrained'):
      return sharded_init(key)
    shapes = jax.eval_shape(policy.init, key)
    like = sharding.with_shardings(shapes, sharding.tree_shardings(shapes, mesh, rules))
    return sharded_init(key, policy.pretrained(like))

  train_step = jax.jit(
    make_train_step(policy, optimizer, settings, over_prompts),
    in_shardings=(*shardings, over_prompts, over_prompts, None),
    out_shardings=(shardings[0], None),
    donate_argnums=0,
  )
  return init_or_load, train_step


def _check_num_prompts(settings: Settings, mesh: Mesh) -> None:
  """Raises ValueError unless prompts divide evenly among devices, mini- and microbatches."""
  shards, loss = sharding.num_prompt_shards(mesh), settings.loss
  for field, multiple, fields in (
    (
      'rollout.num_prompts',
      shards * loss.num_minibatches * loss.num_microbatches,
      'mesh.data * mesh.fsdp * loss.num_minibatches * loss.num_microbatches',
    ),
    ('eval.num_prompts', shards, 'mesh.data * mesh.fsdp'),
  ):
    group = getattr(settings, field.split('.')[0])
    is_multiple = group.num_prompts % multiple == 0
    expect(is_multiple, field, f'a multiple of {fields} = {multiple}', group.num_prompts)

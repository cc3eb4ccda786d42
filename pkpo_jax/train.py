"""The host loop: prompts, rollout, rewards, advantages, update, metrics."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pkpo_jax import sharding
from pkpo_jax.checkpoints import Checkpoints, claim_workdir
from pkpo_jax.data import make_draw_prompts
from pkpo_jax.evaluate import (
  evaluation_metrics,
  exact_metrics,
  grade,
  make_evaluate,
  make_exact,
  verdict_metrics,
)
from pkpo_jax.metrics import Laps, MetricWriter, progress
from pkpo_jax.run import compile_step, make_run
from pkpo_jax.settings import Config, Settings, as_dict, expect
from pkpo_jax.tally import empty_tally
from pkpo_jax.train_step import check_rewards, make_forward, objective_name, reward_metrics
from pkpo_jax.types import TrainState


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
  init_key, train_key, eval_key, data_key = jax.random.split(jax.random.key(settings.seed), 4)
  init, train_step = compile_step(policy, run.optimizer, settings.loss, mesh, settings.warm_start)
  draw_prompts = make_draw_prompts(task, settings.rollout.num_prompts, data_key)
  workdir = pathlib.Path(workdir)
  claim_workdir(workdir, as_dict(config))

  sample = jax.jit(policy.sample, static_argnums=2, out_shardings=over_prompts)
  forward = jax.jit(make_forward(policy, settings.loss), out_shardings=over_prompts)
  advantage_step = jax.jit(run.advantage_fn, out_shardings=over_prompts)
  group_metrics = jax.jit(reward_metrics, static_argnums=(2, 3))
  exact_fn = make_exact(policy, task, settings.eval)
  evaluate = make_evaluate(run, over_prompts)

  def write_evaluation(step):
    found = evaluate(frozen | state.params, step, jax.random.fold_in(eval_key, step))
    writer.write(step, evaluation_metrics(found, settings.eval, task.is_binary))

  def position(step):
    return {'data': step * settings.rollout.num_prompts, 'k': int(run.k_schedule(step))}

  with Checkpoints(workdir, settings.checkpoint) as checkpoints:
    state, frozen = init(init_key)
    # A copy, as the state's own arrays are given away in the first update.
    ref_params = jax.tree.map(jnp.copy, state.params) if settings.loss.kl_coef else None
    ks = [k for k in settings.eval.ks if k <= settings.rollout.num_samples]
    objectives = [objective_name(k, task.is_binary) for k in ks]
    num_problems = task.num_problems if task.is_binary and hasattr(task, 'num_problems') else 0
    tally = empty_tally(num_problems, settings.log.rolling_steps, len(ks))
    state = checkpoints.restore(state)
    first_step = int(state.step)
    if first_step:
      print(f'Resuming {workdir} at step {first_step}.')
    with MetricWriter(workdir, first_step, settings.log.tensorboard) as writer:
      for step in progress(first_step, settings.num_train_steps, workdir.name):
        if step % settings.eval.every == 0:
          write_evaluation(step)
        is_logged = step % settings.log.every == 0
        laps = Laps(is_logged, state)
        keys = jax.random.split(jax.random.fold_in(train_key, step), 5)
        params = frozen | state.params
        prompts = draw_prompts(step, keys[0])
        if settings.rollout.source == 'policy':
          prompts = jax.device_put(prompts, over_prompts)
          rollout = sample(params, prompts, settings.rollout.num_samples, keys[1])
        else:
          rollout = task.demonstrations(
            prompts, settings.rollout.num_samples, policy.max_new_tokens, keys[1]
          )
          prompts, rollout = jax.device_put((prompts, rollout), over_prompts)
        laps.end('rollout', rollout)
        rewards, verdicts = grade(task, prompts, rollout, keys[2])
        rewards = jax.device_put(rewards, over_prompts)
        check_rewards(rewards, prompts.ids, step)
        laps.end('rewards', rewards)
        k = run.k_schedule(step)
        if settings.rollout.source == 'policy':
          advantages = advantage_step(params, rollout, rewards, k, keys[3])
        else:
          advantages = jnp.ones_like(rewards)
        if ref_params is not None:
          rollout = rollout.replace(ref_log_probs=forward(frozen | ref_params, rollout)[0])
        exact = exact_fn(params) if is_logged and exact_fn else None
        state, metrics = train_step(state, frozen, rollout, advantages, keys[4])
        laps.end('update', state)
        groups = group_metrics(rewards, k, settings.eval.ks, task.is_binary)
        values = [float(groups[name]) for name in objectives]
        tally = tally.add(step, np.asarray(prompts.ids), np.asarray(rewards), values)
        if is_logged:
          metrics |= groups | tally.metrics(objectives) | verdict_metrics(verdicts)
          metrics |= exact_metrics(exact, settings.eval, task.is_binary)
          metrics = {f'train/{name}': value for name, value in metrics.items()}
          writer.write(step, metrics | laps.metrics)
        is_last = step + 1 == settings.num_train_steps
        if (step + 1) % settings.checkpoint.every == 0 or is_last:
          writer.flush()
          checkpoints.save(state)
      write_evaluation(settings.num_train_steps)
  return state


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

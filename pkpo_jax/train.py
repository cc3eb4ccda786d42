"""The host loop: prompts, rollout, rewards, advantages, update, metrics."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from pkpo_jax import sharding
from pkpo_jax.checkpoints import Checkpoints, claim_workdir, lock_workdir
from pkpo_jax.data.pipeline import check_held_out, epoch_begun, make_draw_prompts
from pkpo_jax.errors import expect
from pkpo_jax.evaluation.measure import (
  Grades,
  evaluation_metrics,
  exact_metrics,
  grade,
  make_evaluate,
  make_exact,
  verdict_metrics,
)
from pkpo_jax.metrics import Laps, MetricWriter
from pkpo_jax.progress import progress
from pkpo_jax.run import Run, compile_step, make_run
from pkpo_jax.settings import Config, Settings, as_dict
from pkpo_jax.stopping import Stopping
from pkpo_jax.tally import empty_tally
from pkpo_jax.tasks import FiniteTask, Rewarder, has_success, in_use
from pkpo_jax.train_step import check_rewards, make_forward, objective_name, reward_metrics
from pkpo_jax.types import Snapshot, TrainState
from pkpo_jax.typing import Key


def train(config: Config, workdir: str | pathlib.Path) -> TrainState:
  """Trains as `config` says, resuming what is in `workdir`, and returns the last state.

  Leaves config.json, metrics.jsonl, tensorboard/ and checkpoints/ in workdir. On SIGTERM it ends
  the step, saves and exits with code 0; the same call goes on from there.

  Raises:
    ValueError, TypeError: if the config is wrong, or workdir belongs to another config or is
      another process's.
    UnreadableCheckpoint: if workdir has checkpoints, but none can be read.
    FloatingPointError: if a reward or a metric is NaN or infinite.
    SystemExit: with code 0, after SIGTERM.
  """
  with Stopping() as stopping:
    return _train(config, pathlib.Path(workdir), stopping)


def _train(config: Config, workdir: pathlib.Path, stopping: Stopping) -> TrainState:
  run = make_run(config)
  settings, task, policy = run.settings, run.task, run.policy
  mesh = sharding.make_mesh(settings.mesh)
  _check_settings(settings, mesh, task)
  over_prompts = sharding.over_prompts(mesh)
  key = jax.random.key(settings.seed)
  init, train_step = compile_step(policy, run.optimizer, settings.loss, mesh, settings.warm_start)
  claim_workdir(workdir, as_dict(config))

  draw, join, advantage_step = _make_source(run, over_prompts)
  forward = jax.jit(make_forward(policy, settings.loss), out_shardings=over_prompts)
  group_metrics = jax.jit(reward_metrics, static_argnums=(3, 4))
  exact_fn = make_exact(policy, task, settings.eval)
  evaluate = make_evaluate(run, over_prompts)
  ks = [k for k in settings.eval.ks if k <= settings.rollout.num_samples]
  objectives = [objective_name(k, has_success(task)) for k in ks]
  samples = settings.rollout.source == 'policy'

  def position(step):
    data = step * settings.rollout.num_prompts
    found = {'step': step, 'data': data, 'k': int(run.k_schedule(step))}
    return found | ({'problems': task.fingerprint} if hasattr(task, 'fingerprint') else {})

  def evaluation(step, params):
    found = evaluate(params, step, jax.random.fold_in(eval_key, step))
    metrics = evaluation_metrics(found, settings.eval, has_success(task))
    return {name: float(value) for name, value in metrics.items()}

  with (
    in_use(task),
    lock_workdir(workdir),
    Checkpoints(workdir, settings.checkpoint) as checkpoints,
  ):
    state, frozen = init(jax.random.split(key, 4)[0])
    # A copy, as the state's own arrays are given away in the first update.
    ref_params = jax.tree.map(jnp.copy, state.params) if settings.loss.kl_coef else None
    num_problems = task.num_problems if isinstance(task, FiniteTask) else None
    can_solve = samples and has_success(task)
    tally = empty_tally(num_problems if can_solve else None, settings.log.rolling_steps, len(ks))
    start = checkpoints.restore(Snapshot(state, key, tally, position(0)))
    state, tally, first_step = start.state, start.tally, start.position['step']
    due = position(first_step)
    by_whom = f'{due}, by the config and the data'
    expect(start.position == due, f'position in {workdir}', by_whom, start.position)
    if first_step:
      print(f'Resuming {workdir} at step {first_step}.')
    _, train_key, eval_key, data_key = jax.random.split(start.key, 4)
    processes = jax.process_index(), jax.process_count()
    draw_prompts = make_draw_prompts(task, settings.rollout.num_prompts, data_key, *processes)
    with (
      MetricWriter(workdir, first_step, settings.log.tensorboard) as writer,
      progress(first_step, settings.num_train_steps, workdir.name) as bar,
    ):
      for step in range(first_step, settings.num_train_steps + 1):
        is_last, found = step == settings.num_train_steps, None
        if is_last or step % settings.eval.every == 0:
          found = stopping.interruptible(evaluation, step, frozen | state.params)
          if found is not None:
            writer.write(step, found)
        is_due = is_last or stopping.requested or step % settings.checkpoint.every == 0
        if is_due and step > first_step:
          writer.flush()
          checkpoints.save(Snapshot(state, start.key, tally, position(step)), found or {})
        if is_last or stopping.requested:
          break
        epoch = num_problems and epoch_begun(step, settings.rollout.num_prompts, num_problems)
        if epoch is not None:
          writer.write(step, {'data/epoch': epoch})
        is_logged = step % settings.log.every == 0 or step + 1 == settings.num_train_steps
        laps = Laps(is_logged, state)
        keys = jax.random.split(jax.random.fold_in(train_key, step), 5)
        params = frozen | state.params
        pieces = draw(params, draw_prompts(step, keys[0]), keys[1])
        prompts, rollout = join(pieces)
        if ref_params is not None:
          rollout = rollout.replace(ref_log_probs=forward(frozen | ref_params, rollout)[0])
        # From here on the device works ahead of the verifier.
        rewards, successes, verdicts = _grade_pieces(task, pieces, keys[2], laps)
        rewards = jax.device_put(rewards, over_prompts)
        check_rewards(rewards, prompts.ids, step)
        k = run.k_schedule(step)
        groups = group_metrics(rewards, successes, k, settings.eval.ks, task.is_binary)
        values = [float(groups[name]) for name in objectives]
        outcomes = np.asarray(rewards if successes is None else successes)
        tally = tally.add(step, np.asarray(prompts.ids), outcomes, values)
        advantages = advantage_step(params, rollout, rewards, k, keys[3])
        exact = exact_fn(params) if is_logged and exact_fn else None
        state, metrics = train_step(state, frozen, rollout, advantages, keys[4])
        laps.end('update', state)
        if is_logged:
          if not samples:  # No policy drew the demonstrations, to be compared with.
            del metrics['ratio_mean'], metrics['log_ratio_max']
          metrics |= groups | tally.metrics(objectives) | verdict_metrics(verdicts)
          metrics |= exact_metrics(exact, settings.eval, has_success(task))
          metrics = {f'train/{name}': value for name, value in metrics.items()}
          writer.write(step, metrics | laps.metrics)
        bar.update()
  if stopping.requested:
    print(f'Stopped by SIGTERM after {step} steps; the same command goes on from there.')
    raise SystemExit(0)
  return state


def _make_source(run: Run, over_prompts: NamedSharding) -> tuple[Callable, Callable, Callable]:
  """Returns what is learnt from, the policy's samples or the task's demonstrations.

  Returns:
    fn(params, prompts, key) -> config.rollout.num_pieces pairs of prompts and their rollout, split
    over devices, none of which is waited for;
    fn(pairs) -> the pair of all prompts and their rollout; and
    fn(params, rollout, rewards, k, key) -> advantages; a demonstration's is 1.
  """
  num_samples, num_pieces = run.settings.rollout.num_samples, run.settings.rollout.num_pieces
  sample = jax.jit(run.policy.sample, static_argnums=2, out_shardings=over_prompts)
  concatenate = jax.jit(
    lambda *pieces: jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces),
    out_shardings=over_prompts,
  )

  def draw(params, prompts, key):
    keys = [key] if num_pieces == 1 else jax.random.split(key, num_pieces)
    size = len(prompts.ids) // num_pieces
    pieces = [
      jax.device_put(jax.tree.map(lambda x, i=i: x[i * size :][:size], prompts), over_prompts)
      for i in range(num_pieces)
    ]
    return [
      (piece, sample(params, piece, num_samples, one))
      for piece, one in zip(pieces, keys, strict=True)
    ]

  def demonstrate(params, prompts, key):
    rollout = run.task.demonstrations(prompts, num_samples, run.policy.max_new_tokens, key)
    return [jax.device_put((prompts, rollout), over_prompts)]

  join = lambda pieces: concatenate(*pieces) if len(pieces) > 1 else pieces[0]
  if run.settings.rollout.source == 'demonstrations':
    return demonstrate, join, lambda params, rollout, rewards, k, key: jnp.ones_like(rewards)
  return draw, join, jax.jit(run.advantage_fn, out_shardings=over_prompts)


def _grade_pieces(task: Rewarder, pieces: list, key: Key, laps: Laps) -> Grades:
  """Returns the grades of all pieces; while one is graded, the device samples those after it."""
  found = []
  for i, (prompts, rollout) in enumerate(pieces):
    laps.end('rollout', rollout)
    found.append(grade(task, prompts, rollout, jax.random.fold_in(key, i) if i else key))
    laps.end('rewards', found[-1].rewards)
  if len(found) == 1:
    return found[0]
  rewards, successes, verdicts = zip(*found, strict=True)
  join = lambda parts: None if parts[0] is None else np.concatenate(parts)
  return Grades(join(rewards), join(successes), verdicts[0] and sum(verdicts, []))


def _check_settings(settings: Settings, mesh: Mesh, task: Rewarder) -> None:
  """Raises ValueError for what would else fail only after work has begun.

  Prompts must divide evenly among devices, mini- and microbatches, and there must be as many held
  out as evaluation wants; config.warm_start must be a run's workdir, and checkpoint.best_metric one
  of its evaluation's estimates.
  """
  shards, loss = sharding.num_prompt_shards(mesh), settings.loss
  for field, multiple, fields in (
    (
      'rollout.num_prompts',
      shards * settings.rollout.num_pieces,
      'mesh.data * mesh.fsdp * rollout.num_pieces',
    ),
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
  if isinstance(task, FiniteTask):
    check_held_out(task, settings.eval.num_prompts)
  if settings.warm_start is not None:
    is_run = (pathlib.Path(settings.warm_start) / 'checkpoints').is_dir()
    expect(is_run, 'warm_start', 'the workdir of a run with checkpoints', settings.warm_start)
  best_metric = settings.checkpoint.best_metric
  kinds = {has_success(task), task.is_binary}  # Of shaped rewards both pass@k and max@k.
  names = [f'eval/{objective_name(k, kind)}' for kind in sorted(kinds) for k in settings.eval.ks]
  is_known = best_metric is None or best_metric in names
  expect(is_known, 'checkpoint.best_metric', f'None or one of {names}', best_metric)

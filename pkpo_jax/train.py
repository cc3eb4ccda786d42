"""The host loop: prompts, rollout, rewards, advantages, update, metrics."""

import pathlib

import jax

from pkpo_jax import sharding
from pkpo_jax.checkpoints import claim_workdir
from pkpo_jax.keys import run_keys, step_keys
from pkpo_jax.run import check_mesh, jit_train_step, make_init, make_run, make_source
from pkpo_jax.session import Session
from pkpo_jax.settings import Config, as_dict
from pkpo_jax.stopping import Stopping
from pkpo_jax.types import TrainState


def train(config: Config, workdir: str | pathlib.Path) -> TrainState:
  """Trains as `config` says, resuming what is in `workdir`, and returns the last state.

  Leaves config.json, metrics.jsonl, samples/, tensorboard/ and checkpoints/ in workdir. On SIGTERM
  it ends the step, saves and exits with code 0; the same call goes on from there.

  Raises:
    ValueError, TypeError: if the config is wrong, or workdir belongs to another config or is
      another process's.
    UnreadableCheckpoint: if workdir has checkpoints, but none can be read.
    FloatingPointError: if a reward or a metric is NaN or infinite.
    SystemExit: with code 0, after SIGTERM.
  """
  with Stopping() as stopping:
    state, num_steps = _train(config, pathlib.Path(workdir), stopping)
  if stopping.requested:
    print(f'Stopped by SIGTERM after {num_steps} steps; the same command goes on from there.')
    raise SystemExit(0)
  return state


def _train(config: Config, workdir: pathlib.Path, stopping: Stopping) -> tuple[TrainState, int]:
  """Returns the last state, and the number of steps that it has seen."""
  run = make_run(config)
  settings, task = run.settings, run.task
  mesh = sharding.make_mesh(settings.mesh)
  check_mesh(settings, mesh)
  over_prompts = sharding.over_prompts(mesh)
  init, train_step = make_init(run, mesh), jit_train_step(run, mesh)
  claim_workdir(workdir, as_dict(config))

  with Session(run, workdir, stopping, over_prompts) as session:
    state, frozen = init(run_keys(jax.random.key(settings.seed)).init)
    source = make_source(run, over_prompts, frozen | state.params)
    state, train_key, step = session.resume(state)
    while not session.is_over(step, state, frozen):
      keys, laps = step_keys(train_key, step), session.laps(step, state)
      params, k = frozen | state.params, run.k_schedule(step)

      prompts = task.prompts(step, settings.rollout.num_prompts, train_key)
      rollout, grades = source.collect(params, prompts, keys, laps)
      observed = session.observe(step, params, prompts, grades, k)
      advantages = source.advantages(params, rollout, grades, k, keys.advantages)
      state, metrics = train_step(state, frozen, rollout, advantages, keys.update)
      laps.end('update', state)
      session.keep(step, prompts, rollout, grades, advantages, k)
      session.log(step, metrics, observed, laps)
      step += 1
  return state, step

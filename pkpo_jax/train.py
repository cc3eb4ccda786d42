"""The host loop: prompts, rollout, rewards, advantages, update, metrics."""

import pathlib
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from pkpo_jax import processes, sharding
from pkpo_jax.keys import run_keys, step_keys
from pkpo_jax.parts import complete
from pkpo_jax.run import Run, check_mesh, jit_train_step, make_init, make_run, make_source
from pkpo_jax.session import Session
from pkpo_jax.settings import Config
from pkpo_jax.stopping import Stopping
from pkpo_jax.types import TrainState
from pkpo_jax.watch import Watch
from pkpo_jax.workdir import check_same_config, check_workdir, claim_workdir, lock_workdir


class Prepared(NamedTuple):
  """A run that is checked and may begin.

  Attributes:
    run: its parts.
    mesh: its devices.
    workdir: its folder, which may be this run's.
    config: all fields, to be kept in workdir.
    config_file: where they came from.
  """

  run: Run
  mesh: Mesh
  workdir: pathlib.Path
  config: Config
  config_file: str | None


def train(config: Config, workdir: str | pathlib.Path) -> TrainState:
  """Trains as `config` says, resuming what is in `workdir`, and returns the last state.

  Leaves config.json, metrics.jsonl, samples/, tensorboard/ and checkpoints/ in workdir. On SIGTERM
  it ends the step, saves and exits with code 0; the same call goes on from there.

  Raises:
    FieldError: if the config is wrong.
    WorkdirError: if workdir belongs to another config or another process, or has checkpoints of
      which none can be read.
    FloatingPointError: if a reward or a metric is NaN or infinite.
    SaveError: if a checkpoint cannot be written. Threads of the checkpointer may then wait for ever
      for what could not be, and a process that ends waits for them; `pkpo_jax.main` does not.
    SystemExit: with code 0, after SIGTERM.
  """
  return run_steps(prepare(config, workdir))


def prepare(
  config: Config, workdir: str | pathlib.Path, config_file: str | None = None
) -> Prepared:
  """Returns the run that `config` describes, after all checks that need no work; writes nothing.

  Args:
    config: the config.
    workdir: the run's folder.
    config_file: where the config came from, to be kept in workdir.

  Raises:
    FieldError: if the config is wrong.
    WorkdirError: if workdir belongs to another config.
  """

  def checked():
    full = complete(config)
    run = make_run(full)
    mesh = sharding.make_mesh(run.settings.mesh)
    check_mesh(run.settings, mesh)
    check_workdir(pathlib.Path(workdir), full)
    return Prepared(run, mesh, pathlib.Path(workdir), full, config_file)

  prepared = processes.together(checked)
  processes.together(lambda: check_same_config(prepared.config))
  return prepared


def run_steps(prepared: Prepared) -> TrainState:
  """Returns the state after the last step; arguments and errors are those of `train`."""
  run, mesh, workdir, config, config_file = prepared
  # A process alone may break off an evaluation; several have to do it together.
  stops = Stopping(interrupts=processes.count() == 1)
  with lock_workdir(workdir), Watch(workdir), stops as stopping:
    claim_workdir(workdir, config, config_file)
    if processes.count() > 1:
      shape = ', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
      kind = mesh.devices.flat[0].device_kind
      print(f'{processes.count()} processes, {mesh.size} devices of {kind}: {shape}.')
    state, num_steps = _run_steps(run, mesh, workdir, stopping)
  if stopping.requested:
    print(f'Stopped by SIGTERM after {num_steps} steps; the same command goes on from there.')
    raise SystemExit(0)
  return state


def _run_steps(
  run: Run, mesh: Mesh, workdir: pathlib.Path, stopping: Stopping
) -> tuple[TrainState, int]:
  """Returns the last state, and the number of steps that it has seen."""
  settings, task, over_prompts = run.settings, run.task, sharding.over_prompts(mesh)
  init = make_init(run.policy, run.optimizer, mesh, settings.warm_start)
  train_step = jit_train_step(run.policy, run.optimizer, settings.loss, mesh)

  with Session(run, workdir, stopping, over_prompts) as session:
    state, frozen = init(run_keys(jax.random.key(settings.seed)).init)
    source = make_source(run, over_prompts, frozen | state.params)
    state, train_key, step = session.resume(state, source)
    while not session.is_over(step, state, frozen):
      keys, laps = step_keys(train_key, step), session.laps(step, state)
      params = frozen | state.params

      prompts = task.prompts(step, settings.rollout.num_prompts, train_key)
      k = session.k(step, prompts)
      rollout, grades = source.collect(step, params, prompts, keys, laps)
      observed = session.observe(step, params, prompts, grades, k)
      advantages = source.advantages(params, rollout, grades, k, keys.advantages)
      session.diagnose(step, state, frozen, rollout, grades, advantages, k, laps)
      state, metrics = train_step(state, frozen, rollout, advantages, keys.update)
      laps.end('update', state)
      session.keep(step, prompts, rollout, grades, advantages, k)
      session.log(step, rollout, metrics, observed, laps)
      step += 1
  return state, step

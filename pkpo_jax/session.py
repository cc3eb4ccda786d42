"""What stands around the steps of a run: it resumes, evaluates, saves and logs."""

import contextlib
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from pkpo_jax import processes
from pkpo_jax.checkpoints import Checkpoints
from pkpo_jax.curves import group_metrics, metric_name
from pkpo_jax.data.pipeline import epoch_begun
from pkpo_jax.errors import WorkdirError
from pkpo_jax.evaluation.measure import (
  evaluation_metrics,
  exact_metrics,
  make_evaluate,
  make_exact,
  verdict_metrics,
)
from pkpo_jax.keys import run_keys
from pkpo_jax.metrics import Laps, MetricWriter
from pkpo_jax.optimizer import skipped_updates
from pkpo_jax.progress import progress
from pkpo_jax.rollouts import RolloutSource
from pkpo_jax.run import Run, jit_diagnose
from pkpo_jax.sample_writer import SampleWriter
from pkpo_jax.samples import SPLITS, show
from pkpo_jax.stopping import Stopping
from pkpo_jax.tally import empty_tally
from pkpo_jax.tasks.grades import Grades, check_finite, outcomes_of
from pkpo_jax.trackers import Wandb
from pkpo_jax.types import Prompts, Rollout, Snapshot, TrainState
from pkpo_jax.typing import Key
from pkpo_jax.workdir import read_config

# Metrics of an update that compare the policy with the one that drew the samples.
_OF_SAMPLES = ('ratio_mean', 'log_ratio_max')


class Session:
  """A run in its workdir; a context manager that owns its checkpoints and files."""

  def __init__(
    self,
    run: Run,
    workdir: pathlib.Path,
    stopping: Stopping,
    over_prompts: NamedSharding,
  ):
    """Opens nothing yet.

    Args:
      run: the parts of the run.
      workdir: its folder, locked and claimed.
      stopping: whether SIGTERM has come.
      over_prompts: how prompts are split over devices.
    """
    self._run, self._workdir, self._stopping = run, workdir, stopping
    settings, task = run.settings, run.task
    self._ks = [k for k in settings.eval.ks if k <= settings.rollout.num_samples]
    self._objectives = [metric_name(task.objectives[0], k) for k in self._ks]
    self._last_update: tuple[int, np.ndarray, Any] | None = None  # Not looked at yet.
    self._is_profiling = False
    self._over_prompts = over_prompts
    self._evaluate = make_evaluate(run, over_prompts)
    self._diagnose = (
      jit_diagnose(run, over_prompts.mesh) if settings.log.diagnostics_every else None
    )
    self._exact = make_exact(run.policy, task, settings.eval.ks)
    self._group_metrics = jax.jit(group_metrics, static_argnums=4)
    self._samples_policy = settings.rollout.source == 'policy'
    can_solve = self._samples_policy and 'pass@k' in task.objectives
    self._tally = empty_tally(
      task.num_problems if can_solve else None,
      settings.log.rolling_steps,
      len(self._ks),
      run.k_schedule.memory,
    )

  def __enter__(self) -> 'Session':
    with contextlib.ExitStack() as stack:
      stack.enter_context(self._run.task)
      self._checkpoints = stack.enter_context(
        Checkpoints(self._workdir, self._run.settings.checkpoint)
      )
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *exception) -> None:
    self._stack.__exit__(*exception)

  def resume(self, state: TrainState, source: RolloutSource) -> tuple[TrainState, Key, int]:
    """Returns the newest saved state, or `state` if there is none; the steps' key; the next step.

    If a saved state is returned, the arrays of `state` are deleted. What was sampled ahead is given
    back to the source, which is saved with the run from then on.
    """
    settings, self._source = self._run.settings, source
    key = jax.random.key(settings.seed)
    start = self._checkpoints.restore(
      Snapshot(state, key, self._tally, self._position(0), source.like_ahead())
    )
    self._tally, self._key, self._first_step = start.tally, start.key, start.position['step']
    due = self._position(self._first_step)
    if start.position != due:
      raise WorkdirError(
        f'position in {self._workdir}: expected {due}, by the config and the data, got '
        f'{start.position}.'
      )
    if self._first_step > settings.num_train_steps:
      raise WorkdirError(
        f'num_train_steps: expected at least the {self._first_step} steps that {self._workdir} has '
        f'seen, got {settings.num_train_steps}.'
      )
    metrics = self._workdir / 'metrics.jsonl'
    if self._first_step:
      source.ahead = start.ahead
      print(f'Resuming {self._workdir} at step {self._first_step}.')
    elif metrics.exists() and metrics.stat().st_size:
      print(f'{self._workdir} has metrics, but no checkpoint: beginning at step 0 again.')
    self._num_skipped = int(skipped_updates(start.state.opt_state))
    self._keys = run_keys(start.key)
    # Metrics are the same in all processes; the first writes them.
    self._writer, self._samples = None, {}
    if processes.is_first():
      self._writer = self._stack.enter_context(
        MetricWriter(
          self._workdir, self._first_step, settings.log.tensorboard, self._make_trackers()
        )
      )
      self._samples = {split: self._sample_writer(split) for split in SPLITS}
    self._bar = self._stack.enter_context(
      progress(self._first_step, settings.num_train_steps, self._workdir.name)
    )
    return start.state, self._keys.train, self._first_step

  def _make_trackers(self) -> list[Wandb]:
    names = self._run.settings.log.writers
    return [Wandb(self._workdir, read_config(self._workdir)) for _ in names]

  def is_over(self, step: int, state: TrainState, frozen: dict[str, Any]) -> bool:
    """Evaluates and saves the state before a step, if either is due; returns whether to stop."""
    settings = self._run.settings
    is_last = step == settings.num_train_steps
    self._profile(step, is_last, state)
    evaluation = {}
    if is_last or step % settings.eval.every == 0:
      evaluation = self._stopping.interruptible(self._evaluation, step, frozen | state.params) or {}
      if evaluation and self._writer:
        self._writer.write(step, evaluation)
        few = self._samples['eval'].write()
        self._writer.write_text(step, 'eval/samples', show(few))
    is_stopping = processes.any_of(self._stopping.requested)
    is_due = is_last or is_stopping or step % settings.checkpoint.every == 0
    if is_due and step > self._first_step:
      self._check_last_update()
      if self._writer:
        self._writer.flush()
      position = self._position(step)
      snapshot = Snapshot(state, self._key, self._tally, position, self._source.ahead)
      self._checkpoints.save(snapshot, evaluation)
      is_stopping = processes.any_of(self._stopping.requested)  # To save takes a while.
    self._stopping.requested |= is_stopping  # It may have come to another process.
    return is_last or is_stopping

  def _profile(self, step: int, is_last: bool, state: TrainState) -> None:
    """Begins or ends the profile of log.profile_steps, in each process its own, in the workdir."""
    first, end = self._run.settings.log.profile_steps or (None, None)
    if self._is_profiling and (is_last or step == end):
      jax.block_until_ready(state)
      jax.profiler.stop_trace()
      self._is_profiling = False
    elif step == first and not is_last:
      jax.profiler.start_trace(str(self._workdir / 'profile'))
      self._is_profiling = True

  def laps(self, step: int, state: TrainState) -> Laps:
    """Returns a timer of the parts of a step, which begins now; it is off in unlogged steps."""
    return Laps(self._is_logged(step), state)

  def k(self, step: int, prompts: Prompts) -> jax.Array:
    """Returns the k of a step, `[]` for all prompts or `[P]` with one for each.

    It follows from the samples of the steps before alone. Those of this step may be drawn already,
    a step ahead, but then by a policy that had not learned from the last of these: given that
    policy, they are independent of k all the same.
    """
    return self._run.k_schedule(step, self._tally.pass_rates(prompts.ids))

  def observe(
    self, step: int, params: Any, prompts: Prompts, grades: Grades, k: jax.Array
  ) -> dict[str, Any]:
    """Returns those metrics of a step that need its samples alone, not the update.

    Raises:
      FloatingPointError: if a reward is NaN or infinite, or the step before was one update too many
        whose gradient is.
    """
    self._check_last_update()
    run, ids = self._run, np.asarray(prompts.ids)
    check_finite(grades, ids, step)
    self._ids = ids
    outcomes = outcomes_of(grades, run.task.objectives)
    groups = self._group_metrics(outcomes, grades.rewards, grades.where, k, run.settings.eval.ks)
    first, where = jax.device_get((outcomes[run.task.objectives[0]], grades.where))
    values = [float(groups[name]) for name in self._objectives]
    self._tally = self._tally.add(step, ids, first, where, values)
    if not self._is_logged(step):
      return {}
    metrics = {name: value for name, value in groups.items() if not np.isnan(value)}
    metrics |= self._tally.metrics(self._objectives) | verdict_metrics(grades.verdicts)
    return metrics | exact_metrics(self._exact(params), run.settings.eval.ks)

  def diagnose(
    self,
    step: int,
    state: TrainState,
    frozen: dict[str, Any],
    rollout: Rollout,
    grades: Grades,
    advantages: jax.Array,
    k: jax.Array,
    laps: Laps,
  ) -> None:
    """Writes the diagnostics of a step, where they are due, before its update.

    They are a line of their own, diagnostics/name. What is NaN or infinite is left out: quotients
    by 0; and what comes of a gradient that is not finite, which the update reports.
    """
    if self._diagnose is None or step % self._run.settings.log.diagnostics_every:
      return
    laps.end('update', advantages)  # To which they belong in any step.
    given = processes.put((grades.rewards, grades.where), self._over_prompts)
    metrics = self._diagnose(state.params, frozen, rollout, *given, advantages, k)
    laps.end('diagnostics', metrics)
    if self._writer:
      finite = {name: value for name, value in metrics.items() if np.isfinite(value)}
      self._writer.write(step, {f'diagnostics/{name}': value for name, value in finite.items()})

  def keep(
    self,
    step: int,
    prompts: Prompts,
    rollout: Rollout,
    grades: Grades,
    advantages: jax.Array,
    k: jax.Array,
  ) -> None:
    """Keeps a few samples of a logged step, with their grades and advantages."""
    if self._is_logged(step):
      rollout, advantages = processes.to_host((rollout, advantages))
      if self._samples:
        samples = self._samples['train']
        samples.add(step, prompts, rollout, grades, advantages=advantages, k=k)
        samples.write()

  def log(
    self,
    step: int,
    rollout: Rollout,
    update: dict[str, Any],
    observed: dict[str, Any],
    laps: Laps,
  ) -> None:
    """Ends a step: writes its metrics if it is logged, and moves the bar.

    train/learning_rate is the learning rate of the step. time/tokens_per_s is the number of its
    completion tokens, divided by the seconds that its parts took.
    """
    settings, num_problems = self._run.settings, self._run.task.num_problems
    self._last_update = step, self._ids, update['skipped_updates']
    if num_problems is not None:
      epoch = epoch_begun(step, settings.rollout.num_prompts, num_problems)
      if epoch is not None and self._writer:
        self._writer.write(step, {'data/epoch': epoch})
    if self._is_logged(step):
      if not self._samples_policy:
        update = {name: value for name, value in update.items() if name not in _OF_SAMPLES}
      if update['skipped_updates'] > self._num_skipped:  # What is NaN is that update's.
        update = {name: value for name, value in update.items() if np.isfinite(value)}
      update = update | observed | {'learning_rate': self._run.learning_rate(step)}
      metrics = {f'train/{name}': value for name, value in update.items()} | laps.metrics
      seconds = sum(laps.metrics.values())
      metrics['time/tokens_per_s'] = float(jnp.sum(rollout.completion_mask)) / seconds
      if self._writer:
        self._writer.write(step, metrics)
    self._bar.update()

  def _check_last_update(self) -> None:
    """Raises FloatingPointError if the last step has left out more updates than it may.

    It is looked at a step later, when it has come to its end in any case.
    """
    if self._last_update is None:
      return
    step, ids, count = self._last_update
    self._last_update, count = None, int(count)
    if count == self._num_skipped:
      return
    self._num_skipped = count
    most = self._run.settings.optimizer['max_skipped_updates']
    problem = (
      f'the gradient of step {step} is NaN or infinite; the update was left out: {count} so far, '
      f'with optimizer.max_skipped_updates = {most}. Prompts of the step: {ids.tolist()}.'
    )
    if count > most:
      raise FloatingPointError(f'{problem} The state before it is that of the last checkpoint.')
    self._bar.note(problem)

  def _evaluation(self, step: int, params: Any) -> dict[str, float]:
    key, settings = jax.random.fold_in(self._keys.eval, step), self._run.settings.eval
    if step == self._first_step:  # Nothing else shows that it goes on.
      size = f'{settings.num_prompts} problems x {settings.num_samples} samples'
      self._bar.note(f'evaluation of {size} at step {step}')
    keep = functools.partial(self._samples['eval'].add, step) if self._samples else None
    evaluation = self._evaluate(params, step, key, after_piece=keep)
    metrics = evaluation_metrics(evaluation, settings.ks)
    return {name: float(value) for name, value in metrics.items()}

  def _sample_writer(self, split: str) -> SampleWriter:
    path, log = self._workdir / 'samples' / f'{split}.jsonl', self._run.settings.log
    return SampleWriter(path, self._run.task, split, log, self._first_step)

  def _is_logged(self, step: int) -> bool:
    settings = self._run.settings
    return step % settings.log.every == 0 or step + 1 == settings.num_train_steps

  def _position(self, step: int) -> dict[str, int]:
    """Returns the run's position before a step, as it follows from the config and the data."""
    position = {
      'step': step,
      'data': step * self._run.settings.rollout.num_prompts,
      'k': int(self._run.k_schedule(step)),
    }
    fingerprint = self._run.task.fingerprint
    return position if fingerprint is None else position | {'problems': fingerprint}

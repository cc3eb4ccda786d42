"""Makes the parts of a run from its config: all that training and evaluation share."""

import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from pkpo_jax import sharding
from pkpo_jax.advantages import ADVANTAGES, REQUIREMENTS
from pkpo_jax.checkpoints import restore_params
from pkpo_jax.curves import estimated, metric_name
from pkpo_jax.diagnostics import MOST_PARTS, Diagnose, make_diagnose, num_parts_of
from pkpo_jax.errors import FieldError, expect, require_package
from pkpo_jax.keys import run_keys, step_keys
from pkpo_jax.optimizer import make_learning_rate, make_optimizer
from pkpo_jax.parts import complete
from pkpo_jax.policies import POLICIES, Policy
from pkpo_jax.rollouts import Demonstrations, PolicySamples, RolloutSource
from pkpo_jax.schedules import SCHEDULES, Schedule
from pkpo_jax.settings import Config, LossSettings, Settings, build, call, lookup
from pkpo_jax.tasks import TASKS, Task
from pkpo_jax.tokenizers import TOKENIZERS
from pkpo_jax.train_step import (
  AdvantageFn,
  TrainStep,
  init_state,
  make_advantage_fn,
  make_forward,
  make_train_step,
  takes_answers,
)
from pkpo_jax.types import TrainState
from pkpo_jax.typing import Key


class Run(NamedTuple):
  """The parts that a config names, all checked."""

  settings: Settings
  task: Task
  policy: Policy
  eval_policy: Policy
  optimizer: optax.GradientTransformation
  learning_rate: optax.Schedule
  k_schedule: Schedule
  advantage_fn: AdvantageFn


def make_run(config: Config) -> Run:
  """Returns the parts of the run that `config` describes.

  Raises:
    FieldError: if a field or name is unknown, or a value out of range or of a wrong type.
  """
  settings = Settings.from_config(complete(config))
  task, policy, eval_policy = _make_task_and_policies(settings)
  loss, optimizer = settings.loss, optimizer_of(settings)
  expect(settings.advantage.k >= 1, 'advantage.k', 'at least 1', settings.advantage.k)
  k_schedule = build(
    'advantage.schedule', settings.advantage.schedule, SCHEDULES, k=settings.advantage.k
  )
  _check_advantage(settings, task, k_schedule)
  ks = np.append(k_schedule.ks(settings.num_train_steps), settings.advantage.k)
  if settings.log.diagnostics_every:
    _check_diagnostics(settings, int(ks.max()))
  forward = make_forward(policy, loss)
  advantage_fn = make_advantage_fn(settings.advantage, forward, ks, settings.rollout.num_samples)
  rate_fields = ('learning_rate', 'warmup_steps', 'decay', 'decay_steps')
  learning_rate = make_learning_rate(
    **{name: settings.optimizer[name] for name in rate_fields},
    num_train_steps=settings.num_train_steps,
  )
  run = Run(settings, task, policy, eval_policy, optimizer, learning_rate, k_schedule, advantage_fn)
  _check(run)
  return run


def optimizer_of(settings: Settings) -> optax.GradientTransformation:
  """Returns the optimizer of a run."""
  return call(
    'optimizer',
    make_optimizer,
    settings.optimizer,
    num_train_steps=settings.num_train_steps,
    updates_per_step=settings.loss.num_epochs * settings.loss.num_minibatches,
  )


def _make_task_and_policies(settings: Settings) -> tuple[Task, Policy, Policy]:
  """Returns the task, the policy, and the policy as config.eval.policy changes it."""
  fields = dict(settings.policy)
  tokenizer = fields.pop('tokenizer', None)
  task_class = lookup('task.name', settings.task.get('name'), TASKS)
  policy_class = lookup('policy.name', fields.get('name'), POLICIES)
  suited = sorted(
    name for name, each in POLICIES.items() if each.completions == task_class.completions
  )
  is_suited = policy_class.completions == task_class.completions
  expect(is_suited, 'policy.name', f'one of {suited} for this task', fields.get('name'))
  parts = {}
  if task_class.completions == 'text':
    parts['tokenizer'] = build('policy.tokenizer', tokenizer, TOKENIZERS)
  else:
    expect(tokenizer is None, 'policy.tokenizer', 'none, as completions are no text', tokenizer)
  task = build('task', settings.task, TASKS, **parts)
  policy = build('policy', fields, POLICIES, task=task)
  expect(
    policy.samples_exactly,
    'policy',
    'one that samples from the very distribution whose log-probabilities are trained, else the '
    'gradient is biased (no top_k, top_p or greedy decoding; eval.policy may have them)',
    fields,
  )
  changes = {name: value for name, value in settings.eval.policy.items() if value is not None}
  can_change = sorted(policy.eval_fields)
  expect(changes.keys() <= policy.eval_fields, 'eval.policy', f'some of {can_change}', changes)
  if not changes:
    return task, policy, policy
  return task, policy, build('eval.policy', {**fields, **changes}, POLICIES, task=task)


def _check(run: Run) -> None:
  """Raises FieldError for parts that do not fit together, which would fail after work has begun."""
  settings, task = run.settings, run.task
  num_blocks = settings.loss.num_sample_blocks
  expect(
    settings.rollout.num_samples % num_blocks == 0,
    'rollout.num_samples',
    f'a multiple of loss.num_sample_blocks = {num_blocks}',
    settings.rollout.num_samples,
  )
  if task.num_held_out is not None:
    expect(
      settings.eval.num_prompts <= task.num_held_out,
      'eval.num_prompts',
      f'at most task.num_held_out = {task.num_held_out}',
      settings.eval.num_prompts,
    )
  if settings.rollout.source == 'demonstrations':
    expect(
      settings.loss.name == 'reinforce',
      'loss.name',
      "'reinforce' with rollout.source 'demonstrations', which no policy sampled",
      settings.loss.name,
    )
    task.check_demonstrations(run.policy.max_new_tokens, jax.random.key(settings.seed))
  if settings.rollout.steps_ahead:
    takes_ratios = 'ratios' in inspect.signature(ADVANTAGES[settings.advantage.name]).parameters
    expect(
      settings.loss.name == 'ppo' or takes_ratios,
      'rollout.steps_ahead',
      "0, or 1 with loss.name 'ppo' or advantage.name 'max_at_k_off_policy', as the samples are "
      'those of an older policy',
      settings.rollout.steps_ahead,
    )
  for name in settings.log.writers:
    require_package(name, extra=name)
  if settings.warm_start is not None:
    is_run = (pathlib.Path(settings.warm_start) / 'checkpoints').is_dir()
    expect(is_run, 'warm_start', 'the workdir of a run with checkpoints', settings.warm_start)
  best_metric = settings.checkpoint.best_metric
  names = [
    f'eval/{metric_name(name, k)}'
    for name in sorted(estimated(task.objectives))
    for k in settings.eval.ks
  ]
  is_known = best_metric is None or best_metric in names
  expect(is_known, 'checkpoint.best_metric', f'None or one of {names}', best_metric)


def _check_advantage(settings: Settings, task: Task, k_schedule: Schedule) -> None:
  """Raises FieldError if the advantage could not learn, or is not defined for rewards or ks."""
  if settings.rollout.source != 'policy':
    return
  name = settings.advantage.name
  needs = lookup('advantage.name', name, REQUIREMENTS)
  low, high = task.reward_range
  expect(
    settings.rollout.num_samples >= needs.min_samples,
    'rollout.num_samples',
    f'at least {needs.min_samples}, as {name} is 0 for groups of fewer samples',
    settings.rollout.num_samples,
  )
  is_defined = {
    'any': True,
    'nonnegative': low >= 0,
    'binary': task.objectives == ('pass@k',),
  }[needs.rewards]
  rewards = {'nonnegative': 'rewards >= 0', 'binary': 'rewards 0 or 1'}.get(needs.rewards)
  got = f'{name} with {task.objectives} and rewards in [{low}, {high}]'
  if not is_defined:
    raise FieldError(
      'advantage.name',
      f'expected one that is defined for the rewards of this task, got {got}; '
      f'{name} needs {rewards}.',
    )
  if k_schedule.target is None:
    return
  schedule, task_name = settings.advantage.schedule['name'], settings.task['name']
  taking_ks = f'one that takes a k for each prompt, with advantage.schedule.name {schedule!r}'
  expect(not needs.one_k, 'advantage.name', taking_ks, name)
  of_step = f'one that looks at the step alone, as the task {task_name!r} has'
  field = 'advantage.schedule.name'
  expect(task.num_problems is not None, field, f'{of_step} new prompts in each step', schedule)
  is_binary = 'pass@k' in task.objectives
  expect(is_binary, field, f'{of_step} samples that are not right or wrong', schedule)


def _check_diagnostics(settings: Settings, max_k: int) -> None:
  """Raises FieldError if there is no gradient of pass@1 or of pass@k to compare."""
  rollout, what = settings.rollout, 'with log.diagnostics_every > 0'
  expect(
    rollout.source == 'policy',
    'log.diagnostics_every',
    "0 with rollout.source 'demonstrations', whose gradients are not those of rewards",
    settings.log.diagnostics_every,
  )
  expect(rollout.num_samples >= 2, 'rollout.num_samples', f'at least 2 {what}', rollout.num_samples)
  most = rollout.num_samples
  problem = f'at most rollout.num_samples = {most} {what}, as each step is measured for pass@k'
  expect(max_k <= most, 'advantage.k', f'{problem} (largest k of the schedule)', max_k)


def check_mesh(settings: Settings, mesh: Mesh) -> None:
  """Raises FieldError if prompts do not divide evenly among devices, mini- and microbatches."""
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
  expect(
    not settings.log.diagnostics_every or _num_parts(settings, mesh) >= 2,
    'rollout.num_prompts',
    f'so many that 2 to {MOST_PARTS} equal parts divide evenly among {shards} devices (mesh.data * '
    'mesh.fsdp) and microbatches, with log.diagnostics_every > 0',
    settings.rollout.num_prompts,
  )


def make_source(run: Run, over_prompts: NamedSharding, init_params: Any) -> RolloutSource:
  """Returns the source of rollouts that config.rollout names.

  Args:
    run: the parts of the run.
    over_prompts: how prompts are split over devices.
    init_params: of the reference policy of the KL penalty; copied if there is one, as the first
      update donates them.
  """
  settings, reference = run.settings, None
  if settings.loss.kl_coef:
    ref_params = jax.tree.map(jnp.copy, init_params)
    forward = jax.jit(make_forward(run.policy, settings.loss), out_shardings=over_prompts)
    reference = lambda rollout: forward(ref_params, rollout)[0]
  common = run.task, settings.rollout.num_samples, over_prompts, reference
  if settings.rollout.source == 'demonstrations':
    return Demonstrations(*common, max_new_tokens=run.policy.max_new_tokens)
  train_key = run_keys(jax.random.key(settings.seed)).train

  def batch_ahead(step):
    prompts = run.task.prompts(step, settings.rollout.num_prompts, train_key)
    return prompts, step_keys(train_key, step).sample

  return PolicySamples(
    *common,
    policy=run.policy,
    advantage_fn=run.advantage_fn,
    takes_answers=takes_answers(run.settings.advantage),
    num_pieces=settings.rollout.num_pieces,
    batch_ahead=batch_ahead if settings.rollout.steps_ahead else None,
    params_like=init_params,
    layout=make_sampling_layout(run, over_prompts.mesh),
  )


def make_sampling_layout(run: Run, mesh: Mesh) -> Callable[[Any], Any]:
  """Returns fn(params) -> the parameters, laid out for a rollout as config.mesh says."""
  settings, policy = run.settings.mesh, run.policy
  if not settings.gather_for_sampling or settings.fsdp == 1:
    return lambda params: params
  shapes = jax.eval_shape(policy.init, jax.random.key(0))
  shardings = sharding.gathered(shapes, mesh, policy.partition_rules)
  return jax.jit(lambda params: params, out_shardings=shardings)


def make_init(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  warm_start: str | None = None,
) -> Callable[[Key], tuple[TrainState, dict[str, Any]]]:
  """Returns fn(key) -> (state, frozen): how a run begins, split over the mesh from the start.

  Args:
    policy: gives random parameters and, where it has some, released weights to replace them.
    optimizer: gives its state.
    mesh: the devices.
    warm_start: workdir of a run whose newest parameters to begin with.
  """
  init = functools.partial(init_state, policy, optimizer)
  shardings = _state_shardings(policy, optimizer, mesh)
  sharded_init = jax.jit(init, out_shardings=shardings, donate_argnums=1)

  def init_or_load(key):
    shapes = jax.eval_shape(policy.init, key)
    like = sharding.with_shardings(
      shapes, sharding.tree_shardings(shapes, mesh, policy.partition_rules)
    )
    loaded = policy.pretrained(like)
    if warm_start is not None:
      trained = {name: like[name] for name in like.keys() - policy.frozen}
      loaded |= restore_params(warm_start, trained)[1]
    return sharded_init(key, loaded)

  return init_or_load


def jit_train_step(
  policy: Policy, optimizer: optax.GradientTransformation, settings: LossSettings, mesh: Mesh
) -> TrainStep:
  """Returns the jitted fn(state, frozen, rollout, advantages, key) -> (state, metrics).

  It donates the state. Arguments are those of `train_step.make_train_step`, and the devices.
  """
  over_prompts = sharding.over_prompts(mesh)
  shardings = _state_shardings(policy, optimizer, mesh)
  return jax.jit(
    make_train_step(policy, optimizer, settings, over_prompts),
    in_shardings=(*shardings, over_prompts, over_prompts, None),
    out_shardings=(shardings[0], None),
    donate_argnums=0,
  )


def jit_diagnose(run: Run, mesh: Mesh) -> Diagnose:
  """Returns the jitted function of `diagnostics.make_diagnose` for a run; it donates nothing."""
  settings, over_prompts = run.settings, sharding.over_prompts(mesh)
  state, frozen = _state_shardings(run.policy, run.optimizer, mesh)
  diagnose = make_diagnose(
    run.policy,
    settings.loss,
    _num_parts(settings, mesh),
    over_prompts,
    is_off_policy=settings.rollout.steps_ahead > 0,
  )
  return jax.jit(diagnose, in_shardings=(state.params, frozen, *[over_prompts] * 4, None))


def _num_parts(settings: Settings, mesh: Mesh) -> int:
  """Returns the parts of a step's prompts whose gradients are compared."""
  num_shards = sharding.num_prompt_shards(mesh)
  return num_parts_of(settings.rollout.num_prompts, num_shards, settings.loss)


def _state_shardings(policy: Policy, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
  """Returns the shardings of a state and of the parameters that are frozen."""
  return jax.tree.map(lambda x: x.sharding, state_shapes(policy, optimizer, mesh))


def state_shapes(policy: Policy, optimizer: optax.GradientTransformation, mesh: Mesh) -> Any:
  """Returns a state and the parameters that are frozen, as shapes with their shardings."""
  init = functools.partial(init_state, policy, optimizer)
  shapes = jax.eval_shape(init, jax.random.key(0))
  shardings = sharding.tree_shardings(shapes, mesh, policy.partition_rules)
  return sharding.with_shardings(shapes, shardings)

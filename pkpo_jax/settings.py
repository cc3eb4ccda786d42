"""The typed form of a config, and the one place where names and fields of configs are checked.

`configs/default.py` is the home of every number and comment; the dataclasses here hold no
defaults. A ConfigDict ends in `Settings.from_config`; every error names the field, its value and
what was expected.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from pkpo_jax import losses
from pkpo_jax.errors import Choices, FieldError, FieldTypeError, expect, unknown_field

Config = Mapping[str, Any] | ConfigDict


def build(field: str, group: Mapping[str, Any], choices: Mapping[str, Callable], **context) -> Any:
  """Returns `choices[group['name']](**context, **rest of group)` after checking every field.

  Args:
    field: where the group stands in the config, such as 'task'.
    group: a dict with 'name' and the keyword arguments of what it names.
    choices: what can be named.
    **context: further arguments that do not come from the config.

  Raises:
    FieldError: if the name is not a choice, or a field is unknown, missing, out of range or of a
      wrong type.
  """
  kwargs = dict(group)
  name = kwargs.pop('name', None)
  return call(field, lookup(f'{field}.name', name, choices), kwargs, **context)


def lookup(field: str, name: Any, choices: Mapping[str, Any]) -> Any:
  """Returns `choices[name]`; raises FieldError that lists the choices if there is none."""
  choices = choices if isinstance(choices, Choices) else Choices(choices)
  expect(name in choices, field, choices.expected, name)
  try:
    return choices[name]
  except FieldError as error:  # Of a file that the name is in.
    raise FieldError(field, error.problem) from error


def call(field: str, function: Callable, kwargs: Mapping[str, Any], **context) -> Any:
  """Returns `function(**context, **kwargs)` after checking the kwargs' names and types."""
  checked = check_kwargs(field, function, kwargs, context)
  try:
    return function(**context, **checked)
  except FieldError as error:
    # Those of deeper parts, or of files, name their own place.
    raise (error.within(field) if error.field in checked else error) from error


def check_kwargs(
  field: str, function: Callable, kwargs: Mapping[str, Any], context: Collection[str]
) -> dict[str, Any]:
  """Returns keyword arguments for a function, in the types that it wants.

  Args:
    field: where they stand in the config.
    function: what they are for.
    kwargs: the arguments.
    context: names of arguments that come from elsewhere.

  Raises:
    FieldError: if one is unknown, missing or of a wrong type.
  """
  parameters = {
    name: parameter
    for name, parameter in inspect.signature(function).parameters.items()
    if name not in context
  }
  for name in kwargs:
    if name not in parameters:
      raise FieldError(f'{field}.{name}', unknown_field(name, parameters))
  for name, parameter in parameters.items():
    if name not in kwargs and parameter.default is parameter.empty:
      raise FieldError(f'{field}.{name}', f'missing; {field} needs {sorted(parameters)}.')
  hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
  return {
    name: _as_type(f'{field}.{name}', value, hints.get(name, Any)) for name, value in kwargs.items()
  }


def as_dict(config: Config) -> Mapping[str, Any]:
  """Returns nested dicts for nested ConfigDicts."""
  return config.to_dict() if isinstance(config, ConfigDict) else config


def _as_type(field: str, value: Any, hint: Any) -> Any:
  """Returns `value` as `hint` (also int as float, list as tuple) or raises FieldTypeError."""
  if hint is Any:
    return value
  if isinstance(hint, types.UnionType):
    if value is None and type(None) in hint.__args__:
      return None
    (hint,) = (arg for arg in hint.__args__ if arg is not type(None))
  if typing.get_origin(hint) is tuple:
    if isinstance(value, (list, tuple)):
      return tuple(
        _as_type(f'{field}[{i}]', item, hint.__args__[0]) for i, item in enumerate(value)
      )
  elif dataclasses.is_dataclass(hint):
    if isinstance(value, hint):
      return value
    if isinstance(value, Mapping):
      return call(field, hint, value)
  elif typing.get_origin(hint) in (dict, Mapping) or hint in (dict, Mapping):
    if isinstance(value, Mapping):
      return dict(value)
  elif hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  elif isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
    return value
  name = getattr(hint, '__name__', str(hint))
  problem = f'expected {name}, got {value!r} of type {type(value).__name__}.'
  raise FieldTypeError(field, problem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutSettings:
  """How much is sampled in a step."""

  num_prompts: int
  num_samples: int
  num_pieces: int
  source: str
  steps_ahead: int

  def __post_init__(self):
    sources = ('policy', 'demonstrations')
    expect(self.source in sources, 'source', f'one of {sources}', self.source)
    expect(self.num_prompts >= 1, 'num_prompts', 'at least 1', self.num_prompts)
    expect(self.num_samples >= 1, 'num_samples', 'at least 1', self.num_samples)
    expect(self.num_pieces >= 1, 'num_pieces', 'at least 1', self.num_pieces)
    most = 1 if self.source == 'policy' else 0
    problem = f'0 to {most} with source {self.source!r}'
    expect(0 <= self.steps_ahead <= most, 'steps_ahead', problem, self.steps_ahead)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdvantageSettings:
  """How rewards become advantages."""

  name: str
  k: int
  schedule: dict
  options: dict  # Fields of the advantage that is named.

  @classmethod
  def from_group(cls, group: Mapping[str, Any]) -> 'AdvantageSettings':
    """Returns the settings of config.advantage; fields that are none of these are options."""
    own = {'name', 'k', 'schedule'}
    fixed = {name: value for name, value in group.items() if name in own}
    options = {name: value for name, value in group.items() if name not in own}
    return call('config.advantage', cls, {**fixed, 'options': options})


# The settings among the arguments of the loss: those with a default, less the array.
_LossTerms = dataclasses.make_dataclass(
  '_LossTerms',
  [
    (name, parameter.annotation)
    for name, parameter in inspect.signature(losses.policy_gradient_loss).parameters.items()
    if parameter.default not in (parameter.empty, None)
  ],
  frozen=True,
  kw_only=True,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings(_LossTerms):
  """What is minimized, and in which pieces; see `losses.policy_gradient_loss` for the terms."""

  normalization: str
  num_epochs: int
  num_minibatches: int
  num_microbatches: int
  num_sample_blocks: int
  num_lengths: int
  skip_without_signal: bool

  def __post_init__(self):
    losses.check_terms(**self.terms)
    choices = losses.LOSS_CHOICES['normalization']
    expect(self.normalization in choices, 'normalization', f'one of {choices}', self.normalization)
    counts = ('num_epochs', 'num_minibatches', 'num_microbatches')
    for field in (*counts, 'num_sample_blocks', 'num_lengths'):
      expect(getattr(self, field) >= 1, field, 'at least 1', getattr(self, field))
    for field in ('num_epochs', 'num_minibatches'):
      expect(
        self.name == 'ppo' or getattr(self, field) == 1,
        field,
        f'1 with loss.name {self.name!r}, as its gradient is that of the policy that sampled and '
        "the first update already leaves it ('ppo' corrects for that)",
        getattr(self, field),
      )
    expect(
      not (self.skip_without_signal and (self.kl_coef or self.entropy_coef)),
      'skip_without_signal',
      'False with kl_coef or entropy_coef > 0, as these terms need no signal',
      self.skip_without_signal,
    )

  @property
  def num_pieces(self) -> int:
    """The pieces of one update."""
    return self.num_microbatches * self.num_sample_blocks

  @property
  def terms(self) -> dict[str, Any]:
    """The keyword arguments of `losses.policy_gradient_loss` that are settings."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(_LossTerms)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSettings:
  """When and how thoroughly the policy is evaluated."""

  every: int
  ks: tuple[int, ...]
  num_prompts: int
  num_samples: int
  policy: dict

  def __post_init__(self):
    expect(self.every >= 1, 'every', 'at least 1', self.every)
    expect(self.num_prompts >= 2, 'num_prompts', 'at least 2', self.num_prompts)
    expect(self.num_samples >= 1, 'num_samples', 'at least 1', self.num_samples)
    expect(len(self.ks) > 0, 'ks', 'at least one k', self.ks)
    for k in self.ks:
      expect(1 <= k <= self.num_samples, 'ks', f'1 <= k <= num_samples = {self.num_samples}', k)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
  """When the run is saved, and which checkpoints stay."""

  every: int
  max_to_keep: int
  best_metric: str | None

  def __post_init__(self):
    expect(self.every >= 1, 'every', 'at least 1', self.every)
    expect(self.max_to_keep >= 1, 'max_to_keep', 'at least 1', self.max_to_keep)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings:
  """How devices are laid out."""

  data: int
  fsdp: int
  tensor: int
  gather_for_sampling: bool

  def __post_init__(self):
    expect(self.data >= 1 or self.data == -1, 'data', 'at least 1, or -1 for the rest', self.data)
    expect(self.fsdp >= 1, 'fsdp', 'at least 1', self.fsdp)
    expect(self.tensor >= 1, 'tensor', 'at least 1', self.tensor)


WRITERS = ('wandb',)  # Services that metrics can go to, by their packages.
LEVELS = ('debug', 'info', 'warning', 'error')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSettings:
  """When metrics and samples are written, and how many samples."""

  every: int
  rolling_steps: int
  tensorboard: bool
  samples_per_step: int
  max_samples_mib: int
  diagnostics_every: int
  writers: tuple[str, ...]
  level: str
  profile_steps: tuple[int, ...]

  def __post_init__(self):
    for name in self.writers:
      expect(name in WRITERS, 'writers', f'some of {WRITERS}', name)
    expect(self.level in LEVELS, 'level', f'one of {LEVELS}', self.level)
    first_and_end = self.profile_steps
    expect(
      not first_and_end or (len(first_and_end) == 2 and 0 <= first_and_end[0] < first_and_end[1]),
      'profile_steps',
      'none, or the first step and the one after the last, such as (10, 13)',
      first_and_end,
    )
    expect(self.every >= 1, 'every', 'at least 1', self.every)
    expect(self.rolling_steps >= 1, 'rolling_steps', 'at least 1', self.rolling_steps)
    for field in ('samples_per_step', 'max_samples_mib'):
      expect(getattr(self, field) >= 0, field, 'at least 0', getattr(self, field))
    expect(
      self.diagnostics_every >= 0 and self.diagnostics_every % self.every == 0,
      'diagnostics_every',
      f'0, or a multiple of log.every = {self.every}',
      self.diagnostics_every,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """A whole config, checked. Task, policy and optimizer stay dicts for their factories."""

  seed: int
  num_train_steps: int
  warm_start: str | None
  task: dict
  policy: dict
  rollout: RolloutSettings
  advantage: AdvantageSettings
  loss: LossSettings
  optimizer: dict
  eval: EvalSettings
  checkpoint: CheckpointSettings
  mesh: MeshSettings
  log: LogSettings

  def __post_init__(self):
    expect(self.seed >= 0, 'seed', 'at least 0', self.seed)
    expect(self.num_train_steps >= 1, 'num_train_steps', 'at least 1', self.num_train_steps)
    expect(
      self.checkpoint.best_metric is None or self.checkpoint.every % self.eval.every == 0,
      'checkpoint.every',
      f'a multiple of eval.every = {self.eval.every} with checkpoint.best_metric, as each '
      'checkpoint then needs its own evaluation',
      self.checkpoint.every,
    )

  @classmethod
  def from_config(cls, config: Config) -> 'Settings':
    """Returns the settings of `config`.

    Raises:
      FieldError: if a field is unknown, missing, out of range or of a wrong type.
    """
    groups = dict(as_dict(config))
    if isinstance(groups.get('advantage'), Mapping):
      groups['advantage'] = AdvantageSettings.from_group(groups['advantage'])
    return call('config', cls, groups)

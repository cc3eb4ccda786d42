"""The parts of a run that a config picks by name, and their fields.

A group of the config with a `name` describes a part. Its fields and their defaults stand in one
place, the signature of what the name stands for; what the run itself hands over is no field.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from pkpo_jax.advantages import ADVANTAGES, FROM_ROLLOUT
from pkpo_jax.policies import POLICIES
from pkpo_jax.schedules import SCHEDULES
from pkpo_jax.settings import as_dict, lookup
from pkpo_jax.tasks import TASKS
from pkpo_jax.tokenizers import TOKENIZERS


class Part(NamedTuple):
  """A group that picks a part.

  Attributes:
    choices: what can be named.
    context: arguments that the run hands over, or that are groups of their own.
    fixed: further fields of the group, which stay when another name is chosen.
  """

  choices: Mapping[str, Callable]
  context: frozenset[str] = frozenset()
  fixed: frozenset[str] = frozenset()


# Groups within others come after these.
PARTS = {
  'task': Part(TASKS, frozenset({'tokenizer'})),
  'policy': Part(POLICIES, frozenset({'task'})),
  'policy.tokenizer': Part(TOKENIZERS),
  'advantage': Part(
    ADVANTAGES,
    frozenset({'rewards', 'k', 'where'}) | FROM_ROLLOUT,
    frozenset({'k', 'schedule'}),
  ),
  'advantage.schedule': Part(SCHEDULES, frozenset({'k'})),
}
_TOKENIZER = {'name': 'characters'}  # Of a policy of text whose config names none.


def fields_of(part: Part, name: str) -> dict[str, inspect.Parameter]:
  """Returns the parameters that are fields of a part, by name."""
  parameters = inspect.signature(part.choices[name]).parameters
  return {field: x for field, x in parameters.items() if field not in part.context}


def defaults(group: str, name: str) -> dict[str, Any]:
  """Returns a group that picks the part `name`, with all fields that have a default.

  Args:
    group: a key of PARTS.
    name: one of its choices.

  Raises:
    FieldError: if there is no such choice.

  >>> defaults('advantage.schedule', 'linear')
  {'name': 'linear', 'final_k': 1, 'begin': 0, 'end': 500}
  """
  part = PARTS[group]
  lookup(f'{group}.name', name, part.choices)
  fields = {
    field: parameter.default
    for field, parameter in fields_of(part, name).items()
    if parameter.default is not parameter.empty
  }
  if group == 'policy' and part.choices[name].completions == 'text':
    fields = {'tokenizer': defaults('policy.tokenizer', _TOKENIZER['name']), **fields}
  return {'name': name, **fields}


def config_of_part(group: str, name: str, **fields) -> ConfigDict:
  """Returns `defaults` as a ConfigDict, some fields changed: None gets a placeholder's type."""
  part = PARTS[group]
  lookup(f'{group}.name', name, part.choices)
  function = part.choices[name]
  hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
  config = ConfigDict()
  for field, value in defaults(group, name).items():
    if isinstance(value, dict):
      config[field] = ConfigDict(value)
    else:
      config[field] = _placeholder(hints.get(field)) if value is None else value
  with config.unlocked():
    for field, value in fields.items():
      config[field] = value
  return config


def complete(config: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
  """Returns the config with all fields of its parts; those that are missing get their default."""
  filled = _copied(as_dict(config))
  for group, part in PARTS.items():
    parent, name = _place(filled, group)
    if parent is None or not isinstance(parent.get(name), dict):
      continue
    fields = parent[name]
    if fields.get('name') in part.choices:
      parent[name] = {**defaults(group, fields['name']), **fields}
  return filled


def choose(config: ConfigDict, group: str, name: str) -> None:
  """Changes a config's group to another part, with that part's defaults.

  Raises:
    FieldError: if there is no such choice.
  """
  parent = config
  *outer, last = group.split('.')
  for each in outer:
    parent = parent[each]
  chosen = config_of_part(group, name)
  with config.unlocked():
    for field in PARTS[group].fixed:
      if field in parent[last]:
        chosen[field] = parent[last][field]
    parent[last] = chosen


def _place(config: dict[str, Any], group: str) -> tuple[dict[str, Any] | None, str]:
  """Returns the dict that holds a group, None where there is none, and the group's name there."""
  *outer, last = group.split('.')
  for each in outer:
    config = config.get(each) if isinstance(config, dict) else None
  return config if isinstance(config, dict) else None, last


def _copied(tree: Any) -> Any:
  return {name: _copied(x) for name, x in tree.items()} if isinstance(tree, Mapping) else tree


def _placeholder(hint: Any) -> Any:
  """Returns a placeholder of the type that is not None in `int | None`."""
  if isinstance(hint, types.UnionType):
    (hint,) = (arg for arg in hint.__args__ if arg is not type(None))
  return config_dict.placeholder(hint if isinstance(hint, type) else object)

"""Flags of the commands: a config, parts picked by name, overrides, and messages that help.

The order is that of meaning, not of the words: first the config file, then the names of parts,
each of which brings its part's fields with their defaults, then all other overrides.
"""

import copy
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_dict, config_flags

from pkpo_jax import processes
from pkpo_jax.errors import FieldError, unknown_field
from pkpo_jax.own_code import import_file
from pkpo_jax.parts import PARTS, choose, config_of_part

_HELP = 'Config file, and a variant after a colon; override with --config.group.field=value.'


def parse_flags(argv: Sequence[str], config: ConfigDict | None = None) -> list[str]:
  """Parses flags, those in a --flagfile too, and defines the flag `config`.

  Exits with a message in one line if a file, a part or a field does not exist.

  Args:
    argv: the command line.
    config: stands in for --config=FILE where that is not given; None requires it.
  """
  try:
    argv = expand(argv)
    path = flag_value(argv, 'config')
    if path is not None:
      config = load_config(path)
    if config is None:
      sys.exit('--config: missing; expected a config file, such as configs/bandit.py.')
    config = with_parts(config, argv)
    check_overrides(argv, config)
  except FieldError as error:
    sys.exit(str(error))
  rest = _without_config(argv)
  config_flags.DEFINE_config_dict('config', config, _HELP, sys_argv=rest)
  try:
    return app.parse_flags_with_usage(rest)
  except (AttributeError, KeyError, TypeError) as error:
    sys.exit(f'config: {error}')


def define_process_flags() -> None:
  """Defines the flags that make a command one of several processes; see `processes.connect`."""
  flags.DEFINE_boolean(
    'distributed',
    False,
    'One of several processes that a TPU pod, SLURM, Kubernetes or MPI starts.',
  )
  flags.DEFINE_string('coordinator_address', None, 'host:port of the first of several processes.')
  flags.DEFINE_integer('num_processes', None, 'How many processes there are.', lower_bound=1)
  flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0 on.', lower_bound=0)


def connect_by_flags() -> None:
  """Makes this process one of several if the flags say so; the first alone prints.

  Raises:
    FieldError: if the flags do not fit together.
  """
  args = flags.FLAGS
  try:
    processes.connect(
      args.coordinator_address, args.num_processes, args.process_id, args.distributed
    )
  except FieldError as error:
    field = error.field.replace('from_environment', 'distributed')
    raise FieldError(f'--{field}', error.problem) from error
  if not processes.is_first():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 It stays open.


def expand(argv: Sequence[str]) -> list[str]:
  """Returns the words of a command line as all that reads them here expects them.

  Those of each --flagfile stand in its place; a flag of the config and its value, and any flag and
  its value on a line of such a file, are joined by '='.

  Raises:
    FieldError: if a flag file cannot be read.
  """
  try:
    words = flags.FLAGS.read_flags_from_files(list(argv))
  except flags.Error as error:
    raise FieldError('--flagfile', f'expected a file of flags, one a line, got {error}.') from error
  joined = []
  for word in words:
    before = joined[-1] if joined else ''
    if re.fullmatch(r'--?config(\.[\w.]+)?', before) and not word.startswith('-'):
      joined[-1] = f'{before}={word}'
    else:
      joined.append(re.sub(r'^(--?[\w.]+)\s+', r'\1=', word))
  return joined


def load_config(path: str) -> ConfigDict:
  """Returns the config of a file, open to overrides of all fields that its parts have.

  Args:
    path: a Python file with `get_config`, and after a colon its argument.

  Raises:
    FieldError: if there is no such file or variant.
  """
  file, _, variant = path.partition(':')
  if not pathlib.Path(file).is_file():
    raise FieldError('--config', f'expected a file, and a variant after a colon, got {path!r}.')
  module = import_file(pathlib.Path(file))
  try:
    config = module.get_config(variant) if variant else module.get_config()
  except ValueError as error:
    raise FieldError('--config', str(error)) from error
  return with_all_fields(config)


def with_all_fields(config: ConfigDict) -> ConfigDict:
  """Returns a config in which the fields that its parts have by default are there, too."""
  config = copy.deepcopy(config)  # A field that is None stays open to values of its type.
  with config.unlocked():
    for group in PARTS:
      parent, last = _parent(config, group)
      if parent is None or last not in parent or 'name' not in (parent[last] or {}):
        continue
      part = config_of_part(group, parent[last].name)
      for field, value in part.items():
        if field not in parent[last]:
          parent[last][field] = part.get_ref(field) if value is None else value
  return config


def with_parts(config: ConfigDict, argv: Sequence[str]) -> ConfigDict:
  """Returns the config with the parts that --config.GROUP.name=NAME picks, and their defaults."""
  config = copy.deepcopy(config)  # A field that is None stays open to values of its type.
  matches = (re.fullmatch(r'--?config\.([\w.]+)\.name=(.*)', word) for word in argv)
  names = dict(match.groups() for match in matches if match)
  for group in PARTS:
    parent, last = _parent(config, group)
    if group in names and parent is not None and last in parent:
      if parent[last].get('name') != names[group]:
        choose(config, group, names[group])
  return config


def flag_value(argv: Sequence[str], name: str) -> str | None:
  """Returns the value of a flag in `expand`ed words, the last; None where it is not given."""
  value = None
  for word, following in zip(argv, [*argv[1:], ''], strict=True):
    match = re.fullmatch(f'--?{name}(?:=(.*))?', word)
    if match:
      value = following if match[1] is None else match[1]
  return value


def check_overrides(argv: Sequence[str], config: ConfigDict) -> None:
  """Raises FieldError if --config.group.field names a field that `config` lacks."""
  for word in argv:
    match = re.match(r'--?(?:no)?config\.([^=]+)', word)
    if match:
      _check_field(config, match[1])


def from_json(value: Any) -> Any:
  """Returns a config that was written as JSON, with all its fields open to overrides."""
  if isinstance(value, dict):
    return ConfigDict({name: from_json(field) for name, field in value.items()})
  if isinstance(value, list):
    return tuple(value)
  return config_dict.placeholder(object) if value is None else value


def overridden(config: ConfigDict, overrides: dict[str, Any]) -> ConfigDict:
  """Returns a config with flat overrides, as the command line has them: names come first.

  Raises:
    FieldError: if a field is unknown.
  """
  words = [f'--config.{field}={value}' for field, value in overrides.items()]
  config = with_parts(with_all_fields(config), words)
  check_overrides(words, config)
  config.update_from_flattened_dict(overrides)
  return config


def _parent(config: ConfigDict, group: str) -> tuple[ConfigDict | None, str]:
  """Returns the group that holds a group, None where it is not there, and the last name."""
  *outer, last = group.split('.')
  for name in outer:
    if not isinstance(config, ConfigDict) or name not in config:
      return None, last
    config = config[name]
  return config, last


def _without_config(argv: Sequence[str]) -> list[str]:
  """Returns the words but for --config=FILE and the names of parts."""
  names = '|'.join(re.escape(group) for group in PARTS)
  return [x for x in argv if not re.match(rf'--?config=|--?config\.({names})\.name=', x)]


def _check_field(config: ConfigDict, field: str) -> None:
  """Raises FieldError if the dotted `field` is not in `config`."""
  group, path = config, 'config'
  for name in field.split('.'):
    if not isinstance(group, ConfigDict) or name not in group:
      fields = sorted(group) if isinstance(group, ConfigDict) else []
      raise FieldError(f'{path}.{name}', unknown_field(name, fields))
    group, path = group[name], f'{path}.{name}'

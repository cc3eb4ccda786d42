"""Flags of the commands: a config with overrides, and messages that say what there is."""

import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_dict


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; a config file, or a field of it, that does not exist ends in a message."""
  path = flag_value(argv, 'config')
  if path is not None and not pathlib.Path(path.split(':')[0]).is_file():
    sys.exit(f'--config: expected a file, and a variant after a colon, got {path!r}.')
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError):
    if path is not None:
      # The flag holds no config yet: read the file again, to say what it has.
      check_overrides(argv, flags.FLAGS['config'].parser.parse(path))
    raise


def flag_value(argv: Sequence[str], name: str) -> str | None:
  """Returns the value of a flag before flags are parsed, None where it is not given."""
  for word, following in zip(argv, [*argv[1:], ''], strict=True):
    found = re.fullmatch(f'--?{name}(?:=(.*))?', word)
    if found:
      return following if found[1] is None else found[1]
  return None


def check_overrides(argv: Sequence[str], config: ConfigDict) -> None:
  """Exits with a message if --config.group.field names a field that `config` lacks."""
  for word in argv:
    found = re.match(r'--?(?:no)?config\.([^=]+)', word)
    if found:
      _check_field(config, found[1])


def read_config(path: pathlib.Path) -> ConfigDict:
  """Returns a config that was written as JSON, with all its fields open to overrides."""
  return _as_config(json.loads(path.read_text()))


def _as_config(value: Any) -> Any:
  """Returns what JSON has changed of a config: tuples and placeholders, of any type by now."""
  if isinstance(value, dict):
    return ConfigDict({name: _as_config(field) for name, field in value.items()})
  if isinstance(value, list):
    return tuple(value)
  return config_dict.placeholder(object) if value is None else value


def _check_field(config: ConfigDict, field: str) -> None:
  """Exits with a message if the dotted `field` is not in `config`."""
  group, path = config, 'config'
  for name in field.split('.'):
    if not isinstance(group, ConfigDict) or name not in group:
      fields = sorted(group) if isinstance(group, ConfigDict) else []
      sys.exit(f'{path}.{name}: unknown field; expected one of {fields}.')
    group, path = group[name], f'{path}.{name}'

"""Trains from the command line.

python -m pkpo_jax.main --config=configs/bandit.py --workdir=runs/bandit
"""

import sys

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from pkpo_jax.metrics import read_metrics
from pkpo_jax.train import train

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file; override fields with --config.group.field=value.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder for config, metrics and checkpoints; a run that is there is resumed.'
)


def main(argv: list[str]) -> None:
  """Trains, then prints the last evaluation."""
  if len(argv) > 1:
    raise app.UsageError(f'expected only flags, got {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # Less would let the checkpointer talk all the way.
  try:
    train(_CONFIG.value, _WORKDIR.value)
  except (ValueError, TypeError) as error:
    raise app.UsageError(str(error)) from error
  print(f'Last evaluation (all of them: {_WORKDIR.value}/metrics.jsonl)')
  for name, value in read_metrics(_WORKDIR.value)[-1].items():
    print(f'  {name:24s} {value:.4f}' if name != 'step' else f'  {name:24s} {value}')


def run() -> None:
  """The console script."""
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; a field that the config lacks ends in a message with those that it has."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError):
    # The flag holds no config yet: read the file again, to say what it has.
    joined = ' '.join(argv).replace('--config ', '--config=').split()
    path = next(word for word in joined if word.startswith('--config=')).split('=', 1)[1]
    config = flags.FLAGS['config'].parser.parse(path)
    for word in joined:
      if word.startswith('--config.'):
        _check_field(config, word.removeprefix('--config.').split('=')[0])
    raise


def _check_field(config: ConfigDict, field: str) -> None:
  """Exits with a message if the dotted `field` is not in `config`."""
  group, path = config, 'config'
  for name in field.split('.'):
    if not isinstance(group, ConfigDict) or name not in group:
      fields = sorted(group) if isinstance(group, ConfigDict) else []
      sys.exit(f'{path}.{name}: unknown field; expected one of {fields}.')
    group, path = group[name], f'{path}.{name}'


if __name__ == '__main__':
  run()

"""Trains from the command line.

python -m pkpo_jax.main --config=configs/bandit.py --workdir=runs/bandit
"""

from absl import app, flags, logging
from ml_collections import config_flags

from pkpo_jax.flags import parse_flags
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
  except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
    raise app.UsageError(str(error)) from error
  print(f'Last evaluation (all of them: {_WORKDIR.value}/metrics.jsonl)')
  for name, value in read_metrics(_WORKDIR.value)[-1].items():
    print(f'  {name:24s} {value:.4f}' if name != 'step' else f'  {name:24s} {value}')


def run() -> None:
  """The console script."""
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse_flags)


if __name__ == '__main__':
  run()

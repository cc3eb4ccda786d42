"""Trains from the command line.

python -m pkpo_jax.main --config=configs/bandit.py --workdir=runs/bandit

Several processes train one run together: start the same command in each, with --distributed where a
TPU pod, SLURM, Kubernetes or MPI starts them, else with --coordinator_address, --num_processes and
--process_id. All have to share the workdir.
"""

import pathlib
import sys

from absl import app, flags, logging

from pkpo_jax import processes
from pkpo_jax.errors import CONFIG_ERRORS, USER_ERRORS, SaveError
from pkpo_jax.flags import (
  connect_by_flags,
  define_process_flags,
  expand,
  flag_value,
  parse_flags,
)
from pkpo_jax.metrics import read_metrics
from pkpo_jax.train import prepare, run_steps
from pkpo_jax.workdir import keep_compilations

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder for config, metrics and checkpoints; a run that is there is resumed.'
)
define_process_flags()
_STOPPED_EXIT_CODE = flags.DEFINE_integer(
  'stopped_exit_code',
  0,
  'Exit code of a run that SIGTERM has stopped; another than 0 tells what starts runs again that '
  'this one is not over.',
  lower_bound=0,
)


def main(argv: list[str]) -> None:
  """Trains, then prints the last evaluation."""
  if len(argv) > 1:
    raise app.UsageError(f'expected only flags, got {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # At 'info' the checkpointer talks all the way.
  # What its threads meet comes as SaveError, in one line.
  logging.get_absl_handler().addFilter(lambda record: '/orbax/' not in record.pathname)
  config, workdir = flags.FLAGS.config, pathlib.Path(_WORKDIR.value)
  keep_compilations(workdir)
  try:
    connect_by_flags()
    config_file = flag_value(expand(sys.argv), 'config')
    prepared = prepare(config, workdir, config_file)
    logging.set_verbosity(prepared.run.settings.log.level)
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  try:
    run_steps(prepared)
  except SaveError as error:
    print(error, file=sys.stderr)
    processes.leave()  # On the way out, Python would wait for what was being saved.
  except USER_ERRORS as error:
    sys.exit(str(error))
  except SystemExit:
    sys.exit(_STOPPED_EXIT_CODE.value)
  if not processes.is_first():
    return
  print(f'Last evaluation (all of them: {workdir}/metrics.jsonl)')
  for name, value in read_metrics(workdir)[-1].items():
    print(f'  {name:24s} {value:.4f}' if name != 'step' else f'  {name:24s} {value}')


def run() -> None:
  """The console script."""
  flags.mark_flag_as_required('workdir')
  app.run(main, flags_parser=parse_flags)


if __name__ == '__main__':
  run()

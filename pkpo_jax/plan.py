"""Shows what a run will cost before it is paid for, from the command line.

python -m pkpo_jax.plan --config=configs/gemma2_2b_math.py --devices=8 --config.mesh.fsdp=8 \
  --chip=v5e

It needs no accelerator, no weights, no tokenizer and no data. A config that reads its model from a
folder which is not there names it: --config.policy.preset=llama3_1_8b.
"""

import sys

from absl import app, flags, logging

from pkpo_jax.errors import CONFIG_ERRORS, FieldError, expect
from pkpo_jax.flags import parse_flags
from pkpo_jax.planning.advice import advise
from pkpo_jax.planning.chips import CHIPS
from pkpo_jax.planning.estimate import GIB, plan
from pkpo_jax.planning.programs import make_devices, make_subject
from pkpo_jax.planning.report import advice_lines, table

_DEVICES = flags.DEFINE_integer('devices', 1, 'Devices of the run, all hosts together.')
_CHIP = flags.DEFINE_string('chip', None, f'What a device is: one of {sorted(CHIPS)}.')
_HBM = flags.DEFINE_float('hbm_gib', None, "Memory of a device, GiB; the chip's where not given.")
_PROMPT = flags.DEFINE_integer(
  'prompt_tokens', None, 'Tokens of the longest prompt; task.max_prompt_tokens where not given.'
)
_FULL = flags.DEFINE_boolean('full', False, 'Compile the update with all layers: takes minutes.')


def main(argv: list[str]) -> None:
  """Prints the plan."""
  if len(argv) > 1:
    raise app.UsageError(f'expected only flags, got {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)
  config = flags.FLAGS.config
  try:
    chip, hbm_gib = _chip_and_memory()
    make_devices(_DEVICES.value)
    subject = make_subject(config, _PROMPT.value)
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  print('Compiling; nothing is run.', file=sys.stderr, flush=True)
  phases = plan(subject, (subject.num_layers,) if _FULL.value else None)
  print(table(subject, phases, _CHIP.value, chip, hbm_gib))
  if subject.mesh.size < _DEVICES.value:
    print(
      f'{_DEVICES.value - subject.mesh.size} devices are not used: --config.mesh.data=-1 takes all.'
    )
  if max(phase.peak for phase in phases.values()) > hbm_gib * GIB:
    print('\n'.join(advice_lines(advise(config, subject, phases), hbm_gib)))


def _chip_and_memory():
  """Returns the chip, None where it is not given, and the memory of a device, GiB."""
  name, hbm_gib = _CHIP.value, _HBM.value
  if name is not None:
    expect(name in CHIPS, '--chip', f'one of {sorted(CHIPS)}', name)
  elif hbm_gib is None:
    raise FieldError('--hbm_gib', 'expected the memory of a device, or --chip, got neither.')
  expect(hbm_gib is None or hbm_gib > 0, '--hbm_gib', 'a number > 0', hbm_gib)
  chip = CHIPS.get(name)
  return chip, chip.hbm_gib if hbm_gib is None else hbm_gib


def run() -> None:
  """The console script."""
  app.run(main, flags_parser=parse_flags)


if __name__ == '__main__':
  run()

r"""Prepares a data set from the command line.

python -m pkpo_jax.prepare --dataset=gsm8k --source=FOLDER --data_dir=DIR
python -m pkpo_jax.prepare --dataset=reasoning_gym --data_dir=DIR \
  --options='{"names": ["spell_backward"], "size": 100, "seed": 0}'
"""

import json

from absl import app, flags

from pkpo_jax.data.datasets import prepare, read_provenance
from pkpo_jax.errors import CONFIG_ERRORS, FieldError
from pkpo_jax.settings import call
from pkpo_jax.tasks.datasets import DATASETS

_DATASET = flags.DEFINE_enum('dataset', None, sorted(DATASETS), 'What to prepare.')
_SOURCE = flags.DEFINE_string(
  'source', None, 'File or folder with the published files; none for what a package brings.'
)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of prepared data sets.')
_OPTIONS = flags.DEFINE_string('options', '{}', 'Fields of the data set, as a JSON object.')


def main(argv: list[str]) -> None:
  """Prepares the data set if it is not, then prints what there is."""
  if len(argv) > 1:
    raise app.UsageError(f'expected only flags, got {argv[1:]}.')
  try:
    options = _read_options(_OPTIONS.value)
    dataset = call(_DATASET.value, DATASETS[_DATASET.value], options)
    folder = prepare(dataset, _DATA_DIR.value, _SOURCE.value)
  except CONFIG_ERRORS as error:
    raise app.UsageError(str(error)) from error
  provenance = read_provenance(folder)
  print(folder)
  for split, count in provenance['counts'].items():
    print(f'  {split:12s} {count:6d} records')
  for published in DATASETS[_DATASET.value].published:
    print(f'  published: {published}')
  print(f'  source files: {len(provenance["source"])}; SHA-256 of the prepared ones:')
  for name, checksum in provenance['prepared'].items():
    print(f'  {checksum}  {name}')


def _read_options(text: str) -> dict:
  """Returns the flag's JSON object."""
  try:
    options = json.loads(text)
  except json.JSONDecodeError as error:
    raise FieldError('--options', f'expected a JSON object, got {text!r}: {error}.') from error
  if not isinstance(options, dict):
    raise FieldError('--options', f'expected a JSON object, got {text!r}.')
  return options


if __name__ == '__main__':
  flags.mark_flags_as_required(['dataset', 'data_dir'])
  app.run(main)

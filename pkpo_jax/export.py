"""Writes what a run has trained as a folder that transformers, PEFT and servers load.

python -m pkpo_jax.export runs/gemma3_270m_k8 exported [--checkpoint=latest] [--dtype=bfloat16]
python -m pkpo_jax.export runs/lora exported_adapters --adapters
"""

import argparse
import pathlib
import sys
from typing import Any

from absl import logging

from pkpo_jax import sharding
from pkpo_jax.errors import CONFIG_ERRORS, FieldError, WorkdirError, expect
from pkpo_jax.evaluate import read_checkpoint_name, restore
from pkpo_jax.flags import import_file
from pkpo_jax.models import saving
from pkpo_jax.parts import complete
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.run import make_run
from pkpo_jax.workdir import config_file_of, read_config


def export(
  workdir: pathlib.Path,
  folder: pathlib.Path,
  checkpoint: int | str = 'latest',
  dtype: str | None = None,
  adapters: bool = False,
) -> int:
  """Writes a checkpoint of a language model as Hugging Face, or its adapters as PEFT, stores them.

  Adapters are added to the weights, in float32 before the cast. Weights that were not trained come
  from where the run had them from.

  Args:
    workdir: of the run.
    folder: to write; does not exist yet.
    checkpoint: a step, 'latest' or 'best'.
    dtype: of the weights, 'float32' or 'bfloat16'; None is that of the run.
    adapters: write the adapters alone, in float32.

  Returns:
    The step of the checkpoint.

  Raises:
    FieldError: if the folder exists, the dtype is unknown, or there are no adapters.
    WorkdirError: if the run trained no language model.
    FileNotFoundError: if there is no such run or checkpoint.
  """
  config = complete(read_config(workdir))
  # One device holds all that is written.
  config = {**config, 'mesh': {name: 1 for name in config['mesh']}}
  fields = config['policy']
  if fields['name'] != 'language_model':
    raise WorkdirError(
      f'{workdir}: policy.name: expected a language model, found {fields["name"]!r}.'
    )
  expect(not folder.exists(), 'folder', 'one that does not exist', str(folder))
  expect(dtype is None or dtype in saving.DTYPES, 'dtype', f'one of {[*saving.DTYPES]}', dtype)
  if adapters and fields['lora_rank'] is None:
    raise FieldError('adapters', f'expected a run with policy.lora_rank, {workdir} has none.')
  file = config_file_of(workdir)
  if file is not None:
    import_file(file)  # It may register a task.
  run = make_run(config)
  with run.task:
    step, params = restore(run, sharding.make_mesh(run.settings.mesh), workdir, checkpoint)
  _write(run.policy, params, folder, dtype or fields['dtype'], adapters, fields)
  return step


def _write(
  policy: LanguageModel,
  params: Any,
  folder: pathlib.Path,
  dtype: str,
  adapters: bool,
  fields: dict[str, Any],
) -> None:
  model = policy.model
  if adapters:
    saving.save_adapters(folder, model.lora, params['adapters'], fields['weights'])
    return
  updates = None if model.lora is None else model.lora.updates(params['adapters'])
  beside = [path for path in (fields['weights'], fields['tokenizer'].get('path')) if path]
  weights = model.weights(params)
  saving.save_model(folder, policy.architecture, weights, dtype, updates, beside)


def main(arguments: list[str] | None = None) -> None:
  """Writes the folder and says what is in it."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('workdir', type=pathlib.Path, help='of the run')
  parser.add_argument('folder', type=pathlib.Path, help='to write; does not exist yet')
  parser.add_argument('--checkpoint', default='latest', help="a step, 'latest' or 'best'")
  parser.add_argument('--dtype', help="'float32' or 'bfloat16'; if not given, that of the run")
  parser.add_argument('--adapters', action='store_true', help='write the adapters alone, for PEFT')
  options = parser.parse_args(arguments)
  logging.set_verbosity(logging.WARNING)
  try:
    step = export(
      options.workdir,
      options.folder,
      read_checkpoint_name(options.checkpoint),
      options.dtype,
      options.adapters,
    )
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  names = ', '.join(sorted(path.name for path in options.folder.iterdir()))
  print(f'{options.folder} has step {step} of {options.workdir}: {names}')
  if not options.adapters and not any(options.folder.glob('tokenizer.*')):
    print("It has no tokenizer's file, as the run's tokenizer has none.")


if __name__ == '__main__':
  main()

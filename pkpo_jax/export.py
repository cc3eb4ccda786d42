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
from pkpo_jax.errors import (
  CONFIG_ERRORS,
  DataError,
  FieldError,
  MissingDataError,
  WorkdirError,
  expect,
)
from pkpo_jax.evaluate import read_checkpoint_name, restore
from pkpo_jax.models import config_file, saving
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.own_code import import_file
from pkpo_jax.parts import complete
from pkpo_jax.run import make_run
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.workdir import config_file_of, read_config

# The file of a tokenizer in a Hugging Face folder, by policy.tokenizer.name.
_TOKENIZER_FILES = {'huggingface': 'tokenizer.json', 'sentencepiece': 'tokenizer.model'}
# What lies beside it: other forms of its vocabulary, and how texts begin, end and take turns.
_VOCABULARIES = (*_TOKENIZER_FILES.values(), 'added_tokens.json', 'vocab.json', 'merges.txt')
_GENERATION_FILE, _TEMPLATE_FILE = 'generation_config.json', 'chat_template.jinja'
_CONVENTIONS = ('tokenizer_config.json', 'special_tokens_map.json')
_CONVENTIONS += (_TEMPLATE_FILE, _GENERATION_FILE)


def export(
  workdir: pathlib.Path,
  folder: pathlib.Path,
  checkpoint: int | str = 'latest',
  dtype: str | None = None,
  adapters: bool = False,
) -> int:
  """Writes a checkpoint of a language model as Hugging Face, or its adapters as PEFT, stores them.

  Adapters are added to the weights, in float32 before a cast. Weights that were not trained come
  from where the run had them from. With them are the files of the run's tokenizer, with the chat
  template that the run has by config, and the config.json of the model; where there is none, one of
  ours with the tokenizer's ids.

  Args:
    workdir: of the run.
    folder: to write; does not exist yet.
    checkpoint: a step, 'latest' or 'best'.
    dtype: of all weights, 'float32' or 'bfloat16'; None keeps that of each.
    adapters: write the adapters alone, in float32.

  Returns:
    The step of the checkpoint.

  Raises:
    FieldError: if the folder exists, the dtype is unknown or not for adapters, or there are no
      adapters.
    WorkdirError: if the run trained no language model.
    MissingDataError: if policy.weights is gone and something in it is needed.
    FileNotFoundError: if there is no such run or checkpoint.
  """
  config = complete(read_config(workdir))
  # One device holds all that is written. The run that this one began with may be gone.
  one = dict.fromkeys(('data', 'fsdp', 'tensor'), 1)
  config = {**config, 'mesh': {**config['mesh'], **one}, 'warm_start': None}
  fields = config['policy']
  if fields['name'] != 'language_model':
    raise WorkdirError(
      f'{workdir}: policy.name: expected a language model, found {fields["name"]!r}.'
    )
  expect(not folder.exists(), 'folder', 'one that does not exist', str(folder))
  expect(dtype is None or dtype in saving.DTYPES, 'dtype', f'one of {[*saving.DTYPES]}', dtype)
  if adapters and fields['lora_rank'] is None:
    raise FieldError('adapters', f'expected a run with policy.lora_rank, {workdir} has none.')
  expect(dtype is None or not adapters, 'dtype', 'none with adapters, which are float32', dtype)
  _check_weights(fields, adapters)
  file = config_file_of(workdir)
  if file is not None:
    import_file(file)  # It may register a task.
  run = make_run(config)
  with run.task:
    mesh = sharding.make_mesh(run.settings.mesh)
    step, params = restore(run, mesh, workdir, checkpoint, trained_only=adapters)
  model, architecture = run.policy.model, run.policy.architecture
  if adapters:
    saving.save_adapters(folder, model.lora, params['adapters'], fields['weights'])
    return step
  saving.save_model(
    folder,
    architecture,
    model.weights(params),
    dtype,
    None if model.lora is None else model.lora.updates(params['adapters']),
    _config(architecture, fields, run.task.tokenizer),
    _files(fields),
  )
  return step


def _check_weights(fields: dict[str, Any], adapters: bool) -> None:
  """Raises MissingDataError if policy.weights is gone and is needed; says so if it is not."""
  weights = fields['weights']
  if weights is None or pathlib.Path(weights).is_dir():
    return
  needed = ['its config.json'] if fields['preset'] is None else []
  if not adapters and (fields['lora_rank'] is not None or fields['freeze_embedding']):
    needed.append('the weights that were not trained')
  if needed:
    raise MissingDataError(
      f'policy.weights: {weights}: expected the folder that the run began with, for '
      f'{" and ".join(needed)}, found none.'
    )
  print(f'policy.weights: {weights} is gone; nothing is taken from there.', file=sys.stderr)


def _config(
  architecture: Architecture, fields: dict[str, Any], tokenizer: Tokenizer
) -> dict[str, Any]:
  """Returns config.json: the model's own, which may say more than is known here, or one of ours."""
  own = architecture.config_json
  for folder in filter(None, (fields['weights'], _tokenizer_folder(fields))):
    try:
      file = config_file.read_config(folder)
      file.expect('model_type', (own['model_type'],), None)  # Not one of images and text.
      architecture.check_file(file)
    except DataError:
      continue
    return {**file.fields, 'vocab_size': own['vocab_size']}  # The rows that are written.
  begin, ends = tokenizer.bos_id, tokenizer.stop_ids
  return {
    **own,
    'bos_token_id': begin,
    'eos_token_id': ends[0] if len(ends) == 1 else [*ends],
    'pad_token_id': next((id for id in tokenizer.silent_ids if id != begin), None),
  }


def _files(fields: dict[str, Any]) -> dict[str, pathlib.Path]:
  """Returns the files that go with the weights, by their names there."""
  tokenizer, folder = fields['tokenizer'], _tokenizer_folder(fields)
  own, beside = {}, []
  if folder is not None:
    path = pathlib.Path(tokenizer['path'])
    name = _TOKENIZER_FILES.get(tokenizer['name'], path.name)
    is_named_so = path.is_dir() or path.name == name
    # Beside a file of another name may be another vocabulary.
    beside = [folder / x for x in _CONVENTIONS + (_VOCABULARIES if is_named_so else ())]
    if path.is_file():
      own[name] = path
  if fields['weights'] is not None:
    beside.append(pathlib.Path(fields['weights']) / _GENERATION_FILE)
  if tokenizer.get('chat_template') is not None:
    own[_TEMPLATE_FILE] = pathlib.Path(tokenizer['chat_template'])
  # The first of a name is kept.
  return {path.name: path for path in reversed(beside) if path.is_file()} | own


def _tokenizer_folder(fields: dict[str, Any]) -> pathlib.Path | None:
  """Returns the folder that the run's tokenizer came from; None where it came from no file."""
  path = fields['tokenizer'].get('path')
  if path is None:
    return None
  path = pathlib.Path(path)
  return path if path.is_dir() else path.parent


def main(arguments: list[str] | None = None) -> None:
  """Writes the folder and says what is in it."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('workdir', type=pathlib.Path, help='of the run')
  parser.add_argument('folder', type=pathlib.Path, help='to write; does not exist yet')
  parser.add_argument('--checkpoint', default='latest', help="a step, 'latest' or 'best'")
  parser.add_argument('--dtype', help="'float32' or 'bfloat16' for all weights")
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

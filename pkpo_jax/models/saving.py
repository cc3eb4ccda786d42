"""Writes weights as Hugging Face stores them, one tensor at a time."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import UnavailableError, expect
from pkpo_jax.models import config_file
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.lora import Adapters, Lora
from pkpo_jax.models.recipes import weight_name

DTYPES = {'float32': ('F32', np.float32), 'bfloat16': ('BF16', jnp.bfloat16)}
# What may lie beside weights and says how texts become tokens, and where completions end.
_TOKENIZER_FILES = (
  *('tokenizer.json', 'tokenizer.model', 'tokenizer_config.json', 'special_tokens_map.json'),
  *('added_tokens.json', 'vocab.json', 'merges.txt', 'chat_template.jinja'),
  'generation_config.json',
)


@contextlib.contextmanager
def new_folder(folder: pathlib.Path, num_bytes: int) -> Iterator[pathlib.Path]:
  """Yields a temporary folder beside `folder`, which takes its name when all went well.

  Raises:
    FieldError: if there is such a folder already.
    UnavailableError: if the disk has no room for num_bytes.
  """
  expect(not folder.exists(), 'folder', 'one that does not exist', str(folder))
  folder.parent.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(folder.parent).free
  if free < num_bytes:
    raise UnavailableError(
      f'{folder.parent}: expected {num_bytes / 1e9:.2f} GB of free disk for the weights, found '
      f'{free / 1e9:.2f} GB.'
    )
  unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
  try:
    yield unfinished
    unfinished.chmod(0o755)  # What mkdtemp makes is the user's alone.
    unfinished.rename(folder)
  except BaseException:
    shutil.rmtree(unfinished, ignore_errors=True)
    raise


def write_safetensors(
  path: pathlib.Path,
  shapes: Mapping[str, tuple[int, ...]],
  arrays: Iterable[np.ndarray],
  dtype: str,
) -> None:
  """Writes tensors one at a time: the length of a JSON header, the header, the numbers.

  The safetensors package wants all of them in memory. The format:
  https://github.com/huggingface/safetensors#format.

  Args:
    path: the file.
    shapes: of the tensors, by name.
    arrays: the tensors, in that order.
    dtype: a key of DTYPES, which they are cast to.
  """
  name_of_dtype, numpy_dtype = DTYPES[dtype]
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  for name, shape in shapes.items():
    begin, end = end, end + math.prod(shape) * np.dtype(numpy_dtype).itemsize
    header[name] = {'dtype': name_of_dtype, 'shape': list(shape), 'data_offsets': [begin, end]}
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # The numbers begin aligned.
  with path.open('wb') as output:
    output.write(len(text).to_bytes(8, 'little') + text)
    for array in arrays:
      array = np.ascontiguousarray(array, numpy_dtype)
      output.write(array.reshape(-1).view(np.uint8).data)


def save_model(
  folder: str | os.PathLike,
  architecture: Architecture,
  weights: Mapping[str, Any],
  dtype: str,
  updates: Mapping[str, Float[jax.Array, 'out in']] | None = None,
  beside: Iterable[str | os.PathLike] = (),
) -> pathlib.Path:
  """Writes a model as a Hugging Face folder; `load_params` reads it back.

  Args:
    folder: does not exist yet; appears when it is finished.
    architecture: of the model.
    weights: its parameters.
    dtype: of the weights there, 'float32' or 'bfloat16'.
    updates: what adapters add to stored matrices, from `Lora.updates`; added before the cast.
    beside: files and folders that the model came with. Their tokenizer's files are copied, and
      their config.json where it is of the same kind of model; it may say more than is known here.

  Returns:
    The folder.

  Raises:
    FieldError: if the dtype is another, or the folder exists.
    UnavailableError: if the disk has no room.
  """
  expect(dtype in DTYPES, 'dtype', f'one of {sorted(DTYPES)}', dtype)
  folder, updates, shapes, leaves = pathlib.Path(folder), updates or {}, {}, []
  for at, leaf in jax.tree.leaves_with_path(dict(weights)):
    recipe = architecture.recipe(jax.tree_util.keystr(at, simple=True, separator='/'))
    shapes |= dict.fromkeys(recipe.names, recipe.shape)
    leaves.append((recipe, leaf))
  size = sum(map(math.prod, shapes.values())) * np.dtype(DTYPES[dtype][1]).itemsize

  def arrays():
    for recipe, leaf in leaves:
      parts = recipe.split(np.asarray(jax.device_get(leaf)))
      for name, part in zip(recipe.names, parts, strict=True):
        yield part.astype(np.float32) + np.asarray(updates[name]) if name in updates else part

  with new_folder(folder, size) as unfinished:
    config = _config_beside(architecture, beside) or architecture.config_json
    config.pop('dtype', None)  # Another name of the next one.
    config_file.write_json(unfinished / config_file.NAME, {**config, 'torch_dtype': dtype})
    for file in _files_beside(beside):
      shutil.copyfile(file, unfinished / file.name)
    write_safetensors(unfinished / 'model.safetensors', shapes, arrays(), dtype)
  return folder


def save_adapters(
  folder: str | os.PathLike, lora: Lora, adapters: Adapters, base: str | None
) -> pathlib.Path:
  """Writes adapters as the package PEFT does, in float32.

  Args:
    folder: does not exist yet; appears when it is finished.
    lora: what the adapters are like.
    adapters: their numbers.
    base: folder of the weights that they go with; None where these have none.

  Returns:
    The folder.

  Raises:
    FieldError: if the folder exists.
  """
  tensors = {}
  for layer, of_layer in adapters.items():
    for target, x in of_layer.items():
      name = weight_name(int(layer.removeprefix('layer_')), target).removesuffix('.weight')
      tensors[f'base_model.model.{name}.lora_A.weight'] = np.asarray(x['a']).T
      tensors[f'base_model.model.{name}.lora_B.weight'] = np.asarray(x['b']).T
  config = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'r': lora.rank,
    'lora_alpha': lora.alpha,
    'lora_dropout': 0.0,
    'bias': 'none',
    'fan_in_fan_out': False,
    'inference_mode': True,
    'target_modules': [weight_name(0, target).split('.')[-2] for target in lora.targets],
  }
  shapes = {name: array.shape for name, array in tensors.items()}
  folder = pathlib.Path(folder)
  with new_folder(folder, sum(array.nbytes for array in tensors.values())) as unfinished:
    config_file.write_json(unfinished / 'adapter_config.json', config)
    path = unfinished / 'adapter_model.safetensors'
    write_safetensors(path, shapes, tensors.values(), 'float32')
  return folder


def _config_beside(
  architecture: Architecture, beside: Iterable[str | os.PathLike]
) -> dict[str, Any]:
  """Returns the config.json that the model came with; {} where there is none of its kind."""
  kind = architecture.config_json['model_type']
  for path in map(pathlib.Path, beside):
    if (path / config_file.NAME).is_file():
      file = config_file.read_config(path)
      if file.model_type() == kind:  # Not that of a model of images and text.
        return dict(file.fields)
  return {}


def _files_beside(beside: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
  """Returns the tokenizer's files, the first of each name."""
  found = {}
  for path in map(pathlib.Path, beside):
    folder = path if path.is_dir() else path.parent
    for name in _TOKENIZER_FILES:
      if (folder / name).is_file():
        found.setdefault(name, folder / name)
  return list(found.values())

"""Writes weights as Hugging Face stores them, one tensor at a time."""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import UnavailableError, expect
from pkpo_jax.models import config_file, folders
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.lora import Adapters, Lora
from pkpo_jax.models.recipes import weight_name

DTYPES = {'float32': 'F32', 'bfloat16': 'BF16'}  # Their names in safetensors.
_SHARD_BYTES = 5 * 10**9  # The usual size of files on Hugging Face.


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
  path: pathlib.Path, like: Mapping[str, jax.ShapeDtypeStruct], arrays: Iterable[np.ndarray]
) -> None:
  """Writes tensors one at a time: the length of a JSON header, the header, the numbers.

  The safetensors package wants all of them in memory. The format:
  https://github.com/huggingface/safetensors#format.

  Args:
    path: the file.
    like: the shapes of the tensors and the dtypes, of DTYPES, that they are cast to, by name.
    arrays: the tensors, in that order.
  """
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  for name, x in like.items():
    begin, end = end, end + _num_bytes(x)
    offsets = {'data_offsets': [begin, end]}
    header[name] = {'dtype': DTYPES[x.dtype.name], 'shape': list(x.shape), **offsets}
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # The numbers begin aligned.
  with path.open('wb') as output:
    output.write(len(text).to_bytes(8, 'little') + text)
    for x, array in zip(like.values(), arrays, strict=True):
      array = np.ascontiguousarray(array, x.dtype)
      output.write(array.reshape(-1).view(np.uint8).data)


def save_model(
  folder: str | os.PathLike,
  architecture: Architecture,
  weights: Mapping[str, Any],
  dtype: str | None = None,
  updates: Mapping[str, Callable[[], Float[jax.Array, 'out in']]] | None = None,
  config: Mapping[str, Any] | None = None,
  files: Mapping[str, str | os.PathLike] | None = None,
  shard_bytes: int = _SHARD_BYTES,
) -> pathlib.Path:
  """Writes a model as a Hugging Face folder; `load_params` reads it back.

  Args:
    folder: does not exist yet; appears when it is finished.
    architecture: of the model.
    weights: its parameters.
    dtype: of all weights there, 'float32' or 'bfloat16'; None keeps that of each.
    updates: what adapters add to stored matrices, from `Lora.updates`; added in float32, before a
      cast.
    config: config.json, but for its dtype; None is `architecture.config_json`.
    files: what else is in the folder: copies, by their names there.
    shard_bytes: weights of more bytes are split into files of up to so many, or of one tensor.

  Returns:
    The folder.

  Raises:
    FieldError: if the dtype is another, or the folder exists.
    UnavailableError: if the disk has no room.
  """
  expect(dtype is None or dtype in DTYPES, 'dtype', f'one of {sorted(DTYPES)} or None', dtype)
  folder, updates, like, leaves = pathlib.Path(folder), updates or {}, {}, []
  for at, leaf in jax.tree.leaves_with_path(dict(weights)):
    recipe = architecture.recipe(jax.tree_util.keystr(at, simple=True, separator='/'))
    like |= dict.fromkeys(recipe.names, jax.ShapeDtypeStruct(recipe.shape, dtype or leaf.dtype))
    leaves.append((recipe, leaf))

  def arrays():
    for recipe, leaf in leaves:
      parts = recipe.split(np.asarray(jax.device_get(leaf)))
      for name, part in zip(recipe.names, parts, strict=True):
        yield part.astype(np.float32) + np.asarray(updates[name]()) if name in updates else part

  config = dict(architecture.config_json if config is None else config)
  config.pop('dtype', None)  # Another name of the next one.
  # That of the matrices; norms may have another.
  config['torch_dtype'] = max(like.values(), key=lambda x: x.size).dtype.name
  with new_folder(folder, sum(map(_num_bytes, like.values()))) as unfinished:
    config_file.write_json(unfinished / config_file.NAME, config)
    for name, file in (files or {}).items():
      shutil.copyfile(file, unfinished / name)
    _write_shards(unfinished, like, arrays(), shard_bytes)
  return folder


def _write_shards(
  folder: pathlib.Path,
  like: Mapping[str, jax.ShapeDtypeStruct],
  arrays: Iterator[np.ndarray],
  shard_bytes: int,
) -> None:
  """Writes tensors in as many files as they take, and which is in which if there are several."""
  shards, room = [], 0
  for name, x in like.items():
    if not shards or _num_bytes(x) > room:
      shards.append({})
      room = shard_bytes
    shards[-1][name] = x
    room -= _num_bytes(x)
  if len(shards) == 1:
    write_safetensors(folder / folders.SAFETENSORS, like, arrays)
    return
  weight_map = {}
  for i, shard in enumerate(shards, start=1):
    file = f'model-{i:05}-of-{len(shards):05}.safetensors'
    weight_map |= dict.fromkeys(shard, file)
    write_safetensors(folder / file, shard, itertools.islice(arrays, len(shard)))
  metadata = {'total_size': sum(map(_num_bytes, like.values()))}
  index = {'metadata': metadata, 'weight_map': weight_map}
  config_file.write_json(folder / folders.INDEX, index)


def _num_bytes(x: jax.ShapeDtypeStruct) -> int:
  return x.size * x.dtype.itemsize


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
  like = {name: jax.ShapeDtypeStruct(x.shape, np.float32) for name, x in tensors.items()}
  folder = pathlib.Path(folder)
  with new_folder(folder, sum(array.nbytes for array in tensors.values())) as unfinished:
    config_file.write_json(unfinished / 'adapter_config.json', config)
    path = unfinished / 'adapter_model.safetensors'
    write_safetensors(path, like, tensors.values())
  return folder

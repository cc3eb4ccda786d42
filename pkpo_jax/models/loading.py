"""Loads released weights as the parameters of a model, one at a time."""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pkpo_jax.errors import DataError
from pkpo_jax.models import config_file, folders, recipes
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.folders import DTYPES
from pkpo_jax.models.recipes import Recipe, Stored


def load_params(
  path: str | os.PathLike, like: Mapping[str, Any], architecture: Architecture
) -> dict[str, Any]:
  """Returns the weights in the folder `path` as parameters of a model.

  What is in the folder decides the format: `_METADATA` is a gemma release, `model.safetensors` or
  `model.safetensors.index.json` with its shards is Hugging Face. The config.json there, names and
  shapes are all checked before the first is loaded. Parameters are read one at a time, each cast
  and put where it belongs before the next, so that the host needs memory for about two of the
  largest, not for the model.

  Hugging Face stores 256000 rows of Gemma-2's embedding where the gemma library has 256128: for a
  model of 256128 rows the last 128 are zeros. Their logits are 0, not -inf: what samples has to
  leave out the ids that the tokenizer does not have.

  Args:
    path: a local folder.
    like: the tree of parameters, such as jax.eval_shape of a model's init, over leaves with
      `shape`, `dtype` and, where they are to be sharded, `sharding`.
    architecture: of the model.

  Returns:
    The tree of `like`; each leaf has its shape, dtype and sharding there.

  Raises:
    FileNotFoundError: if there is no such folder, or a shard is missing; names it.
    ValueError: if the folder holds no checkpoint, or not this one; names the field of config.json
      that differs, or the first tensor, in the order of `like`, that is missing or has another
      shape or no floating-point type, with what was expected and what was found, or else the first
      unknown tensor or unreadable file.
  """
  path = pathlib.Path(path).absolute()
  kind = folders.format_of(path)
  leaves, treedef = jax.tree.flatten_with_path(like)
  leaves = {jax.tree_util.keystr(at, simple=True, separator='/'): leaf for at, leaf in leaves}
  with contextlib.ExitStack() as files:
    if kind == 'huggingface':
      if (path / config_file.NAME).exists():
        architecture.check_file(config_file.read_config(path))
      stored = architecture.adapt_stored(path, folders.open_huggingface(path, files))
      how = {name: architecture.recipe(name) for name in leaves}
    else:
      stored = architecture.adapt_release(folders.open_release(path, files))
      how = {name: recipes.as_is(name, tuple(leaf.shape)) for name, leaf in leaves.items()}
    _check(path, stored, how)
    read_all = lambda names: [_read(path, name, stored[name]) for name in names]
    loaded = []
    for name, recipe in how.items():
      loaded.append(_place(recipe.join(read_all(recipe.names)), leaves[name]))
  return jax.tree.unflatten(treedef, loaded)


def _check(path: pathlib.Path, stored: Mapping[str, Stored], how: Mapping[str, Recipe]):
  """Raises ValueError about the first tensor that is not as the recipes need it."""
  known = set()
  for recipe in how.values():
    for name in recipe.names:
      known.add(name)
      if name not in stored:
        raise DataError(f'{path}: {name}: expected shape {recipe.shape}, found no such tensor.')
      shape, dtype, _ = stored[name]
      if shape != recipe.shape:
        raise DataError(f'{path}: {name}: expected shape {recipe.shape}, found {shape}.')
      if dtype not in DTYPES.values():
        expected = ', '.join(DTYPES.values())
        raise DataError(f'{path}: {name}: expected one of {expected}, found {dtype}.')
  for name in stored:
    if name not in known:
      raise DataError(
        f'{path}: {name}: expected no such tensor, found one of shape {stored[name].shape}.'
      )


def _read(path: pathlib.Path, name: str, tensor: Stored) -> np.ndarray:
  """Returns a stored tensor; what is wrong with its bytes is an error that names it."""
  try:
    return tensor.read()
  except Exception as error:  # orbax passes on whatever its storage raises
    raise DataError(f'{path}: {name}: cannot be read: {error}') from error


def _place(array: np.ndarray, leaf: Any) -> jax.Array:
  """Returns the array in the leaf's dtype and sharding, once it is there."""
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    placed = jax.device_put(np.asarray(array, leaf.dtype))
  else:
    # Not device_put, which compares the array between processes.
    shard_of = lambda index: np.asarray(array[index], leaf.dtype)
    placed = jax.make_array_from_callback(array.shape, sharding, shard_of)
  return placed.block_until_ready()  # The host's copy goes now.

"""Opens folders of released weights: which tensors are there, of which shapes; reads none yet.

A folder of the gemma release is an orbax checkpoint with the library's own names, nested or, as
released, half flattened: 'transformer/layer_0/attn/q_einsum' -> 'w'. A folder from Hugging Face
holds safetensors with the names and layouts of torch modules.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

from pkpo_jax.errors import DataError, MissingDataError, require_package
from pkpo_jax.models.config_file import read_json
from pkpo_jax.models.recipes import Stored

DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
SAFETENSORS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
_ROWS_AT_ONCE = 8192


def format_of(path: pathlib.Path) -> str:
  """Returns 'huggingface' or 'release', by what is in a folder.

  Raises:
    MissingDataError: if there is no such folder.
    DataError: if it holds neither.
  """
  if not path.is_dir():
    raise MissingDataError(f'{path}: expected the folder of a checkpoint, found none.')
  if (path / SAFETENSORS).exists() or (path / INDEX).exists():
    return 'huggingface'
  if (path / '_METADATA').exists():
    return 'release'
  found = sorted(item.name for item in path.iterdir())[:10]
  raise DataError(
    f'{path}: expected {SAFETENSORS} or {INDEX} (Hugging Face) or _METADATA (the orbax '
    f'checkpoint of a gemma release), found {found}.'
  )


def open_release(path: pathlib.Path, files: contextlib.ExitStack) -> dict[str, Stored]:
  """Returns the tensors of an orbax checkpoint by the names of the gemma library."""
  checkpointer = files.enter_context(ocp.PyTreeCheckpointer())
  metadata = checkpointer.metadata(path).item_metadata
  if metadata is None:
    raise DataError(f'{path}: expected an orbax checkpoint, found metadata that cannot be read.')
  tensors = {}
  for at, leaf in jax.tree.leaves_with_path(metadata.tree):
    keys = tuple(jax.tree_util.keystr((key,), simple=True) for key in at)
    name = '/'.join(keys).removeprefix('transformer/')
    if name.endswith(('mlp/gating_einsum/w', 'mlp/linear/w')):
      name = name.removesuffix('/w')
    shape, dtype = getattr(leaf, 'shape', ()), getattr(leaf, 'dtype', None)
    tensors[name] = Stored(tuple(shape), str(dtype), _release_reader(checkpointer, path, keys))
  return tensors


def _release_reader(checkpointer, path, keys):
  """Returns a function that reads the one tensor at these keys."""
  args = ocp.args.PyTreeRestore(
    item=_nest(keys, 0),
    restore_args=_nest(keys, ocp.RestoreArgs(restore_type=np.ndarray)),
    partial_restore=True,
  )
  return lambda: jax.tree.leaves(checkpointer.restore(path, args=args))[0]


def _nest(keys, leaf):
  """Returns the leaf below nested dicts with these keys."""
  for key in reversed(keys):
    leaf = {key: leaf}
  return leaf


def open_huggingface(path: pathlib.Path, files: contextlib.ExitStack) -> dict[str, Stored]:
  """Returns the tensors of a folder of safetensors by their names there."""
  require_package('safetensors', extra='huggingface')
  from safetensors import SafetensorError, safe_open  # runs without these files do without it

  tensors = {}
  for file, names in _shards(path):
    try:
      shard = files.enter_context(safe_open(file, framework='np'))
    except (SafetensorError, OSError) as error:
      raise DataError(f'{file}: cannot be read: {error}') from error
    found = sorted(shard.keys())
    for name in names or ():
      if name not in found:
        raise DataError(f'{file}: {name}: expected here by {INDEX}, found no such tensor.')
    for name in found:
      part = shard.get_slice(name)
      dtype = DTYPES.get(part.get_dtype(), part.get_dtype())
      read = lambda rows=slice(None), part=part: part[rows]
      tensors[name] = Stored(tuple(part.get_shape()), dtype, read)
  return tensors


def _shards(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, list[str] | None]]:
  """Yields each file of weights and which tensors the index says are in it, if there is one."""
  if (path / SAFETENSORS).exists():
    yield path / SAFETENSORS, None
    return
  weight_map = read_json(path / INDEX).get('weight_map')
  is_map = isinstance(weight_map, dict) and all(isinstance(x, str) for x in weight_map.values())
  if not is_map or not weight_map:
    raise DataError(f'{path / INDEX}: expected a weight_map to files, found {weight_map!r:.200}.')
  shards = {}
  for name, file in sorted(weight_map.items()):
    shards.setdefault(file, []).append(name)
  for file, names in shards.items():
    if not (path / file).is_file():
      raise MissingDataError(
        f'{path / file}: expected by {INDEX} for {names[0]} and {len(names) - 1} more, found no '
        'such file.'
      )
  for file, names in shards.items():
    yield path / file, names


def drop_tied_head(path: str | os.PathLike, tensors: dict[str, Stored]) -> None:
  """Removes lm_head.weight if it is the embedding; raises ValueError if it is another matrix."""
  head, embedding = tensors.get('lm_head.weight'), tensors.get('model.embed_tokens.weight')
  if head is None or embedding is None:
    return
  if head.shape != embedding.shape:
    raise DataError(
      f'{path}: lm_head.weight: expected shape {embedding.shape}, that of the embedding that '
      f'the model ties it to, found {head.shape}.'
    )
  for start in range(0, head.shape[0], _ROWS_AT_ONCE):
    rows = slice(start, min(start + _ROWS_AT_ONCE, head.shape[0]))
    equal = (head.read(rows) == embedding.read(rows)).all(axis=1)
    if not equal.all():
      raise DataError(
        f'{path}: lm_head.weight: expected model.embed_tokens.weight, which the model ties it to, '
        f'found another row {start + int(np.argmin(equal))}.'
      )
  del tensors['lm_head.weight']

"""Loads released Gemma-2 weights, in either of their formats, as the gemma library's parameters.

A folder of the gemma release is an orbax checkpoint with the library's own names, nested or, as
released, half flattened: 'transformer/layer_0/attn/q_einsum' -> 'w'. A folder from Hugging Face
holds safetensors with the names and layouts of torch modules. Both give the same function.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from pkpo_jax.errors import DataError, MissingDataError

# The gemma library pads its embedding to this many rows, none of which is a token; Hugging Face
# stores the tokens alone.
PADDED_VOCAB_SIZE = 256_128
VOCAB_SIZE = 256_000

_DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
_SAFETENSORS, _INDEX = 'model.safetensors', 'model.safetensors.index.json'
_ROWS_AT_ONCE = 8192


class _Stored(NamedTuple):
  """A tensor of a checkpoint that has been opened, not read."""

  shape: tuple[int, ...]
  dtype: str
  read: Callable[..., np.ndarray]


class _Recipe(NamedTuple):
  """Which stored tensors, of one shape, make up a parameter, and how."""

  names: tuple[str, ...]
  shape: tuple[int, ...]
  join: Callable[[list[np.ndarray]], np.ndarray]


def load_params(path: str | os.PathLike, like: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the weights in the folder `path` as parameters of the gemma library.

  What is in the folder decides the format: `_METADATA` is a gemma release, `model.safetensors` or
  `model.safetensors.index.json` with its shards is Hugging Face. Names and shapes are all checked
  before the first is loaded. Parameters are read one at a time, each cast and put where it belongs
  before the next, so that the host needs memory for about two of the largest, not for the model.

  Hugging Face stores 256000 rows of the embedding where the gemma library has 256128: for a `like`
  of 256128 rows the last 128 are zeros. Their logits are 0, not -inf: what samples has to leave
  out the ids that the tokenizer does not have.

  Args:
    path: a local folder.
    like: the tree of the gemma library's parameters, such as jax.eval_shape of a model's init:
      'embedder', 'final_norm' and 'layer_0', ... over leaves with `shape`, `dtype` and, where they
      are to be sharded, `sharding`.

  Returns:
    The tree of `like`; each leaf has its shape, dtype and sharding there.

  Raises:
    FileNotFoundError: if there is no such folder, or a shard is missing; names it.
    ValueError: if the folder holds no checkpoint, or not this one; names the first tensor, in the
      order of `like`, that is missing or has another shape or no floating-point type, with what
      was expected and what was found, or else the first unknown tensor or unreadable file.
  """
  path = pathlib.Path(path).absolute()
  if not path.is_dir():
    raise MissingDataError(f'{path}: expected the folder of a checkpoint, found none.')
  leaves, treedef = jax.tree.flatten_with_path(like)
  leaves = {jax.tree_util.keystr(at, simple=True, separator='/'): leaf for at, leaf in leaves}
  shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
  with contextlib.ExitStack() as files:
    if (path / _SAFETENSORS).exists() or (path / _INDEX).exists():
      stored = _open_huggingface(path, files)
      recipes = {name: _huggingface_recipe(name, shapes) for name in shapes}
    elif (path / '_METADATA').exists():
      stored = _open_release(path, files)
      recipes = {name: _Recipe((name,), shapes[name], lambda arrays: arrays[0]) for name in shapes}
    else:
      found = sorted(item.name for item in path.iterdir())[:10]
      raise DataError(
        f'{path}: expected {_SAFETENSORS} or {_INDEX} (Hugging Face) or _METADATA (the orbax '
        f'checkpoint of a gemma release), found {found}.'
      )
    _check(path, stored, recipes)
    read_all = lambda names: [_read(path, name, stored[name]) for name in names]
    loaded = []
    for name, recipe in recipes.items():
      loaded.append(_place(recipe.join(read_all(recipe.names)), leaves[name]))
  return jax.tree.unflatten(treedef, loaded)


def _check(path: pathlib.Path, stored: Mapping[str, _Stored], recipes: Mapping[str, _Recipe]):
  """Raises ValueError about the first tensor that is not as the recipes need it."""
  known = set()
  for recipe in recipes.values():
    for name in recipe.names:
      known.add(name)
      if name not in stored:
        raise DataError(f'{path}: {name}: expected shape {recipe.shape}, found no such tensor.')
      shape, dtype, _ = stored[name]
      if shape != recipe.shape:
        raise DataError(f'{path}: {name}: expected shape {recipe.shape}, found {shape}.')
      if dtype not in _DTYPES.values():
        expected = ', '.join(_DTYPES.values())
        raise DataError(f'{path}: {name}: expected one of {expected}, found {dtype}.')
  for name in stored:
    if name not in known:
      raise DataError(
        f'{path}: {name}: expected no such tensor, found one of shape {stored[name].shape}.'
      )


def _read(path: pathlib.Path, name: str, tensor: _Stored) -> np.ndarray:
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


# The gemma release.


def _open_release(path: pathlib.Path, files: contextlib.ExitStack) -> dict[str, _Stored]:
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
    tensors[name] = _Stored(tuple(shape), str(dtype), _release_reader(checkpointer, path, keys))
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


# Hugging Face.


def _open_huggingface(path: pathlib.Path, files: contextlib.ExitStack) -> dict[str, _Stored]:
  """Returns the tensors of a folder of safetensors by their names there."""
  from safetensors import SafetensorError, safe_open  # runs without these files do without it

  _check_model_type(path / 'config.json')
  tensors = {}
  for file, names in _shards(path):
    try:
      shard = files.enter_context(safe_open(file, framework='np'))
    except (SafetensorError, OSError) as error:
      raise DataError(f'{file}: cannot be read: {error}') from error
    found = sorted(shard.keys())
    for name in names or ():
      if name not in found:
        raise DataError(f'{file}: {name}: expected here by {_INDEX}, found no such tensor.')
    for name in found:
      part = shard.get_slice(name)
      dtype = _DTYPES.get(part.get_dtype(), part.get_dtype())
      read = lambda rows=slice(None), part=part: part[rows]
      tensors[name] = _Stored(tuple(part.get_shape()), dtype, read)
  _drop_tied_head(path, tensors)
  return tensors


def _check_model_type(file: pathlib.Path):
  """Raises ValueError if there is a config.json of another model than Gemma-2."""
  if file.exists():
    model_type = _read_json(file).get('model_type')
    if model_type != 'gemma2':
      raise DataError(f"{file}: model_type: expected 'gemma2', found {model_type!r}.")


def _read_json(file: pathlib.Path) -> dict[str, Any]:
  """Returns the JSON object in a file."""
  try:
    value = json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise DataError(f'{file}: expected JSON: {error}') from error
  if not isinstance(value, dict):
    raise DataError(f'{file}: expected a JSON object, found a {type(value).__name__}.')
  return value


def _shards(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, list[str] | None]]:
  """Yields each file of weights and which tensors the index says are in it, if there is one."""
  if (path / _SAFETENSORS).exists():
    yield path / _SAFETENSORS, None
    return
  weight_map = _read_json(path / _INDEX).get('weight_map')
  is_map = isinstance(weight_map, dict) and all(isinstance(x, str) for x in weight_map.values())
  if not is_map or not weight_map:
    raise DataError(f'{path / _INDEX}: expected a weight_map to files, found {weight_map!r:.200}.')
  shards = {}
  for name, file in sorted(weight_map.items()):
    shards.setdefault(file, []).append(name)
  for file, names in shards.items():
    if not (path / file).is_file():
      raise MissingDataError(
        f'{path / file}: expected by {_INDEX} for {names[0]} and {len(names) - 1} more, found no '
        'such file.'
      )
  for file, names in shards.items():
    yield path / file, names


def _drop_tied_head(path: pathlib.Path, tensors: dict[str, _Stored]):
  """Removes lm_head.weight if it is the embedding; raises ValueError if it is another matrix."""
  head, embedding = tensors.get('lm_head.weight'), tensors.get('model.embed_tokens.weight')
  if head is None or embedding is None:
    return
  if head.shape != embedding.shape:
    raise DataError(
      f'{path}: lm_head.weight: expected shape {embedding.shape}, that of the embedding that '
      f'Gemma-2 ties it to, found {head.shape}.'
    )
  for start in range(0, head.shape[0], _ROWS_AT_ONCE):
    rows = slice(start, min(start + _ROWS_AT_ONCE, head.shape[0]))
    equal = (head.read(rows) == embedding.read(rows)).all(axis=1)
    if not equal.all():
      raise DataError(
        f'{path}: lm_head.weight: expected model.embed_tokens.weight, which Gemma-2 ties it to, '
        f'found another row {start + int(np.argmin(equal))}.'
      )
  del tensors['lm_head.weight']


_NORMS = {
  'pre_attention_norm': 'input_layernorm',
  'post_attention_norm': 'post_attention_layernorm',
  'pre_ffw_norm': 'pre_feedforward_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}


def _huggingface_recipe(name: str, shapes: Mapping[str, tuple[int, ...]]) -> _Recipe:
  """Returns how Hugging Face stores a parameter of the gemma library.

  A torch Linear is [out, in], with heads outside of what each of them has. In the gemma library N
  query heads, K heads of keys and values, and H numbers a head are axes of their own; D is the
  width of the model, F that of the feed-forward layer. Both scale a norm by 1 + weight.
  """
  shape = shapes[name]
  if name == 'embedder/input_embedding':
    rows, width = shape
    rows = VOCAB_SIZE if rows == PADDED_VOCAB_SIZE else rows
    return _Recipe(('model.embed_tokens.weight',), (rows, width), lambda x: _pad(x[0], shape))
  if name == 'final_norm/scale':
    return _Recipe(('model.norm.weight',), shape, lambda x: x[0])
  layer, _, parameter = name.partition('/')
  module = lambda name: f'model.layers.{layer.removeprefix("layer_")}.{name}.weight'
  match parameter.split('/'):
    case ['attn', 'q_einsum' | 'kv_einsum' | 'qkv_einsum' as kind, 'w']:
      *_, heads, width, size = shape
      names = tuple(module(f'self_attn.{letter}_proj') for letter in kind.removesuffix('_einsum'))
      split = lambda x: x.reshape(heads, size, width).transpose(0, 2, 1)
      join = lambda x: np.stack([split(part) for part in x]).reshape(shape)
      return _Recipe(names, (heads * size, width), join)
    case ['attn', 'attn_vec_einsum', 'w']:
      heads, size, width = shape
      join = lambda x: x[0].reshape(width, heads, size).transpose(1, 2, 0)
      return _Recipe((module('self_attn.o_proj'),), (width, heads * size), join)
    case ['mlp', 'gating_einsum']:
      hidden, width = shapes[f'{layer}/mlp/linear']
      if hidden == width:
        raise ValueError(
          f'{name}: expected a feed-forward layer wider or narrower than the model, to tell rows '
          f'from columns, found shape {shape}.'
        )
      is_transposed = shape == (2, hidden, width)
      names = module('mlp.gate_proj'), module('mlp.up_proj')
      join = lambda x: np.stack([part if is_transposed else part.T for part in x])
      return _Recipe(names, (hidden, width), join)
    case ['mlp', 'linear']:
      return _Recipe((module('mlp.down_proj'),), shape[::-1], lambda x: x[0].T)
    case [norm, 'scale'] if norm in _NORMS:
      return _Recipe((module(_NORMS[norm]),), shape, lambda x: x[0])
  raise ValueError(f'{name}: expected a parameter of Gemma-2, found one of shape {shape}.')


def _pad(table: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Returns the table with rows of zeros at its end."""
  if table.shape == shape:
    return table
  padded = np.zeros(shape, table.dtype)
  padded[: len(table)] = table
  return padded

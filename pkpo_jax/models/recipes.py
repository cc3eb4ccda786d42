"""How parameters are stored by Hugging Face, in both directions.

A torch Linear is [out, in], with heads outside of what each of them has.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray | jax.Array

# The matrices of a layer by the letters that adapters name them with.
LINEAR = {
  **{letter: f'self_attn.{letter}_proj' for letter in 'qkvo'},
  **{name: f'mlp.{name}_proj' for name in ('gate', 'up', 'down')},
}


class Stored(NamedTuple):
  """A tensor of a checkpoint that has been opened, not read.

  Attributes:
    shape: of the tensor.
    dtype: its name, such as 'bfloat16'.
    read: fn(rows) -> the tensor, or a slice of its rows.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[..., np.ndarray]


class Recipe(NamedTuple):
  """Which stored tensors make up a parameter, and how.

  Attributes:
    names: of the stored tensors.
    shape: of each of them.
    join: fn(stored tensors) -> the parameter.
    split: fn(the parameter) -> the stored tensors; the inverse. Both take and return NumPy arrays
      or JAX's.
  """

  names: tuple[str, ...]
  shape: tuple[int, ...]
  join: Callable[[list[Array]], Array]
  split: Callable[[Array], list[Array]]


def as_is(name: str, shape: tuple[int, ...]) -> Recipe:
  """Returns the recipe of a parameter that is stored as it is."""
  return Recipe((name,), shape, lambda x: x[0], lambda w: [w])


def stack(arrays: list[Array]) -> Array:
  """Returns the arrays along a new first axis: JAX's if they are, else NumPy's."""
  return (jnp if isinstance(arrays[0], jax.Array) else np).stack(arrays)


def weight_name(layer: int, target: str) -> str:
  """Returns the stored name of a layer's matrix.

  >>> weight_name(3, 'gate')
  'model.layers.3.mlp.gate_proj.weight'
  """
  return f'model.layers.{layer}.{LINEAR[target]}.weight'


def split_name(name: str) -> tuple[int | None, str]:
  """Returns the layer and the rest of a parameter's name; None for what is outside of layers.

  >>> split_name('layer_12/mlp/linear'), split_name('final_norm/scale')
  ((12, 'mlp/linear'), (None, 'final_norm/scale'))
  """
  layer, _, rest = name.partition('/')
  number = layer.removeprefix('layer_')
  is_layer = layer != number and number.isdecimal()
  return (int(number), rest) if is_layer else (None, name)

"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): y = x W + alpha / rank * (x A) B.

For every family alike: a layer's matrices are those of Hugging Face, by the names of
`recipes.LINEAR`, with heads outside of what each of them has.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.models.recipes import LINEAR, weight_name

Adapters = Mapping[str, Mapping[str, Mapping[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Lora:
  """What adapters are like.

  Attributes:
    rank: r, columns of A and rows of B.
    alpha: the update is multiplied by alpha / rank.
    targets: the matrices that have one, keys of `recipes.LINEAR`.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]

  def __post_init__(self):
    expect(self.rank >= 1, 'lora_rank', 'at least 1 or None', self.rank)
    expect(self.alpha > 0, 'lora_alpha', 'a number > 0 or None', self.alpha)
    is_known = bool(self.targets) and set(self.targets) <= set(LINEAR)
    is_unique = len(set(self.targets)) == len(self.targets)
    known = f'some of {tuple(LINEAR)}, each once'
    expect(is_known and is_unique, 'lora_targets', known, self.targets)

  @property
  def scale(self) -> float:
    """The factor of the update."""
    return self.alpha / self.rank

  def init(
    self, key: jax.Array, num_layers: int, sizes: Mapping[str, tuple[int, int]]
  ) -> dict[str, Any]:
    """Returns adapters without effect: A is random, B zero; float32.

    Args:
      key: of the random numbers.
      num_layers: of the model.
      sizes: how many numbers go in and come out of each target.

    Returns:
      `{'layer_0': {'q': {'a': [in, r], 'b': [r, out]}, ...}, ...}`.
    """
    adapters = {}
    for layer in range(num_layers):
      layer_key = jax.random.fold_in(key, layer)
      adapters[f'layer_{layer}'] = of_layer = {}
      for i, target in enumerate(LINEAR):  # In this order, so that targets do not change others.
        size_in, size_out = sizes[target]
        if target in self.targets:
          noise = jax.random.normal(jax.random.fold_in(layer_key, i), (size_in, self.rank))
          b = jnp.zeros((self.rank, size_out), jnp.float32)
          of_layer[target] = {'a': noise / math.sqrt(size_in), 'b': b}
    return adapters

  def adapt(
    self, adapters: Mapping[str, Mapping[str, jax.Array]]
  ) -> Callable[[str, jax.Array, jax.Array], jax.Array]:
    """Returns fn(target, x, y) -> y plus the update of one layer's adapter."""
    return functools.partial(self._adapted, adapters)

  def _adapted(self, adapters, target, x, y):
    """Returns `y`, summed in float32; `x` is `[..., in]`, `y` has the numbers of `[..., out]`."""
    if target not in adapters:
      return y
    a, b = adapters[target]['a'], adapters[target]['b']
    update = self.scale * ((x.astype(jnp.float32) @ a) @ b)
    return (y.astype(jnp.float32) + update.reshape(y.shape)).astype(y.dtype)

  def updates(self, adapters: Adapters) -> dict[str, Callable[[], Float[jax.Array, 'out in']]]:
    """Returns functions that compute what adapters add to stored matrices, by their stored names.

    Each returns `[out, in]` float32. All of them at once may be as large as the model.
    """
    return {
      weight_name(int(layer.removeprefix('layer_')), target): functools.partial(self._update, x)
      for layer, of_layer in adapters.items()
      for target, x in of_layer.items()
    }

  def _update(self, factors):
    """Returns the update of one matrix as it is stored."""
    return self.scale * (factors['a'] @ factors['b']).T

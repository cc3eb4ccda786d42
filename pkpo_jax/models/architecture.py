"""What a family of language models says of itself: all that its forward pass does not share."""

import abc
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from pkpo_jax.errors import DataError
from pkpo_jax.models.config_file import ConfigFile
from pkpo_jax.models.recipes import Recipe, Stored

# fn(target, x, y) -> y plus the update of an adapter, where there is one; x is what went in, flat.
Adapt = Callable[[str, jax.Array, jax.Array], jax.Array]


class Architecture(abc.ABC):
  """One model of a family, without its parameters.

  Its Linen module has `blocks`, one a layer; the functions here are handed the module or one of its
  blocks, bound to parameters. Parameters are named 'layer_0/...', 'embedder/...' and so on.

  Attributes:
    name: the model, for messages, such as 'gemma2'.
    model_types: what `model_type` may be in the config.json of a folder of its weights.
    num_embeddings: rows of the embedding table.
    width: D, numbers of a hidden state.
    hidden_width: F, hidden units of a feed-forward layer.
    num_heads: N, of queries.
    num_kv_heads: K, of keys and values.
    head_dim: H, numbers of a head.
    windows: of each layer, how many positions a token sees up to its own; None where all.
    soft_cap: of attention's logits; None for none.
    partition_rules: regular expressions on the ends of weights' paths, and how their axes lie on
      the mesh. Heads and hidden units are split over 'tensor', what they read and write over
      'fsdp'. Norms and adapters match nothing and stay whole on every device.
  """

  name: str
  model_types: tuple[str, ...]
  num_embeddings: int
  width: int
  hidden_width: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  windows: tuple[int | None, ...]
  soft_cap: float | None = None
  partition_rules: tuple[tuple[str, PartitionSpec], ...]

  @abc.abstractmethod
  def module(self, dtype: jax.typing.DTypeLike) -> nn.Module:
    """Returns the Linen module; `dtype` is that of its parameters."""

  @abc.abstractmethod
  def with_layers(self, num_layers: int) -> 'Architecture':
    """Returns the same model with another number of layers; beyond its own they begin again."""

  @abc.abstractmethod
  def embed(self, module: nn.Module, tokens: Int[jax.Array, '*b']) -> Float[jax.Array, '*b D']:
    """Returns the embeddings of tokens, scaled, `[..., D]`."""

  @abc.abstractmethod
  def project(
    self,
    block: nn.Module,
    x: Float[jax.Array, 'P M S D'],
    positions: Int[jax.Array, 'R S'],
    adapt: Adapt,
  ) -> tuple[Float[jax.Array, 'R S N H'], Float[jax.Array, 'R S K H'], Float[jax.Array, 'R S K H']]:
    """Returns a layer's queries, scaled, keys and values, of R = P M rows.

    Queries and keys are rotated.
    """

  @abc.abstractmethod
  def update(
    self,
    block: nn.Module,
    x: Float[jax.Array, 'P M S D'],
    attended: Float[jax.Array, 'R S N H'],
    adapt: Adapt,
  ) -> Float[jax.Array, 'P M S D']:
    """Returns `x` with what attention and the feed-forward layer of a block add to it."""

  @abc.abstractmethod
  def normalize(self, module: nn.Module, x: Float[jax.Array, '*b D']) -> Float[jax.Array, '*b D']:
    """Returns the hidden states that logits are read from."""

  @abc.abstractmethod
  def logits(
    self, weights: Mapping[str, Any], hidden: Float[jax.Array, '*b D']
  ) -> Float[jax.Array, '*b V']:
    """Returns the logits of the next token, `[..., V]` float32, nats."""

  def head(self, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the weights that `logits` reads: the embedding, if there is no table of its own."""
    name = 'head' if 'head' in weights else 'embedder'
    return {name: weights[name]}

  @abc.abstractmethod
  def recipe(self, name: str) -> Recipe:
    """Returns how Hugging Face stores the parameter `name`, such as 'layer_0/mlp/linear'.

    Raises:
      ValueError: if the model has no such parameter.
    """

  @classmethod
  @abc.abstractmethod
  def preset(cls, name: str) -> 'Architecture':
    """Returns the architecture of a name that is a key of `models.PRESETS`."""

  @classmethod
  @abc.abstractmethod
  def from_file(cls, file: ConfigFile) -> 'Architecture':
    """Returns the architecture that a config.json describes.

    Raises:
      DataError: if it is none of this family, or has a value that is not supported.
    """

  @property
  @abc.abstractmethod
  def fields(self) -> dict[str, Any]:
    """What makes out the architecture, by the names of config.json."""

  @property
  @abc.abstractmethod
  def config_json(self) -> dict[str, Any]:
    """A config.json of the model, which `from_file` and transformers read."""

  def check_file(self, file: ConfigFile) -> None:
    """Raises DataError, with the first field that differs, if a config.json is another model's."""
    file.expect('model_type', self.model_types, None)
    found = self.from_file(file).fields
    for field, value in self.fields.items():
      if found[field] != value:
        raise file.error(field, f'{value!r}, that of {self.name}', found[field])

  @abc.abstractmethod
  def adapt_stored(
    self, path: str | os.PathLike, stored: Mapping[str, Stored]
  ) -> dict[str, Stored]:
    """Returns the tensors of a Hugging Face folder that are the model's, by its recipes' names.

    Raises:
      DataError: if there is a head of its own where the model has none.
    """

  def adapt_release(self, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Returns the tensors of a gemma release that are the model's.

    Raises:
      DataError: if the family has no such release.
    """
    del stored
    raise DataError(f'{self.name}: expected a folder as Hugging Face stores it, found orbax.')

  @property
  def linear_sizes(self) -> dict[str, tuple[int, int]]:
    """How many numbers go in and come out of each matrix of a layer that can have an adapter."""
    heads, kv_heads = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
    return {
      'q': (self.width, heads),
      'k': (self.width, kv_heads),
      'v': (self.width, kv_heads),
      'o': (heads, self.width),
      'gate': (self.width, self.hidden_width),
      'up': (self.width, self.hidden_width),
      'down': (self.hidden_width, self.width),
    }

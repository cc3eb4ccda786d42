"""What a tokenizer is."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np

from pkpo_jax.chat import ChatTemplate


@runtime_checkable
class Tokenizer(Protocol):
  """A vocabulary.

  Attributes:
    vocab_size: ids are below it; a model may have more, which it is not to sample.
    bos_id: begins every prompt; `encode` does not add it. None of a model whose prompts begin with
      their text.
    stop_ids: a completion ends with one of these.
    silent_ids: other ids that `decode` leaves out, such as padding: no text shows them.
    chat_template: how the model's chats are written; None if nothing says so.
  """

  vocab_size: int
  bos_id: int | None
  stop_ids: tuple[int, ...]
  silent_ids: tuple[int, ...]
  chat_template: ChatTemplate | None

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without bos_id and without a stop id at its end."""

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Returns the text of `[S]` ids, without padding, bos_id and stop_ids wherever they are."""

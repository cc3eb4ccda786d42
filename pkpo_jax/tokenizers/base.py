"""What a tokenizer is, and whether it is that of a model."""

import os
import pathlib
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np

from pkpo_jax.chat import ChatTemplate, read_json
from pkpo_jax.errors import DataError

# Rows of an embedding that no token has. Qwen 2.5 has up to 399, Gemma-3 64.
_MAX_SPARE_ROWS = 1024


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


def check_vocabulary(tokenizer: Tokenizer, weights: str | os.PathLike) -> None:
  """Raises DataError if a tokenizer is of another vocabulary than the weights in a folder.

  config.json there has the rows of the embedding and the ids that end texts. A model has a row for
  each token and may have some to spare; the tokenizer has to end texts with the same ids. A folder
  without config.json, such as a gemma release, says neither, and passes.

  Args:
    tokenizer: the policy's.
    weights: a folder of Hugging Face.
  """
  file = pathlib.Path(weights) / 'config.json'
  if not file.is_file():
    return
  config = read_json(file)
  config = config.get('text_config', config)  # The language model of one that also sees.
  rows, ends = config.get('vocab_size'), config.get('eos_token_id')
  if rows is not None and not rows - _MAX_SPARE_ROWS <= tokenizer.vocab_size <= rows:
    raise DataError(
      f'{file}: vocab_size: expected {tokenizer.vocab_size}, the tokens of policy.tokenizer, or up '
      f'to {_MAX_SPARE_ROWS} more, found {rows}: the tokenizer is of another model.'
    )
  for end in [] if ends is None else ends if isinstance(ends, list) else [ends]:
    if end not in tokenizer.stop_ids:
      raise DataError(
        f'{file}: eos_token_id: expected some of {tokenizer.stop_ids}, which end texts in '
        f'policy.tokenizer, found {end}: the tokenizer is of another model.'
      )

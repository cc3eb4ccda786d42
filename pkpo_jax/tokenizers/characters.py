"""Characters as tokens."""

from collections.abc import Iterable

import numpy as np

from pkpo_jax.errors import DataError
from pkpo_jax.sampling import PAD_ID

_EOS, _BOS = PAD_ID + 1, PAD_ID + 2


class CharacterTokenizer:
  r"""One token for a newline and for each printable ASCII character, for models made here.

  >>> tokenizer = CharacterTokenizer()
  >>> tokenizer.encode('1+1=\n')
  [21, 15, 21, 33, 3]
  >>> tokenizer.decode([2, 21, 15, 21, 33, 1, 0, 0])
  '1+1='
  """

  vocab_size = 128
  bos_id = _BOS
  stop_ids = (_EOS,)
  silent_ids = (PAD_ID, _BOS)
  chat_template = None

  def __init__(self):
    characters = '\n' + ''.join(chr(code) for code in range(32, 127))
    self._ids = {character: i for i, character in enumerate(characters, start=_BOS + 1)}
    self._characters = {i: character for character, i in self._ids.items()}
    self._characters |= dict.fromkeys((PAD_ID, _EOS, _BOS), '')

  def encode(self, text: str) -> list[int]:
    """Returns one id a character.

    Raises:
      ValueError: if a character is neither a newline nor printable ASCII; names it and where.
    """
    for position, character in enumerate(text):
      if character not in self._ids:
        raise DataError(
          f'text: expected newlines and printable ASCII, got {character!r} at position {position}.'
        )
    return [self._ids[character] for character in text]

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Returns the characters of ids; an id without one becomes U+FFFD."""
    return ''.join(self._characters.get(int(i), '\N{REPLACEMENT CHARACTER}') for i in ids)

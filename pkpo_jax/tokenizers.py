"""Tokenizers: text to token ids and back.

The first ids are Gemma-2's in each: 0 pads, 1 ends a text, 2 begins one.
"""

import pathlib
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np

from pkpo_jax.errors import DataError, MissingDataError, expect, require_package
from pkpo_jax.sampling import PAD_ID

_EOS, _BOS, _UNKNOWN = range(PAD_ID + 1, PAD_ID + 4)
_END_OF_TURN = '<end_of_turn>'


@runtime_checkable
class Tokenizer(Protocol):
  """A vocabulary.

  Attributes:
    vocab_size: ids are below it; a model may have more, which it is not to sample.
    bos_id: begins every prompt; `encode` does not add it.
    stop_ids: a completion ends with one of these.
    silent_ids: other ids that `decode` leaves out, such as padding: no text shows them.
  """

  vocab_size: int
  bos_id: int
  stop_ids: tuple[int, ...]
  silent_ids: tuple[int, ...]

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without bos_id and without a stop id at its end."""

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Returns the text of `[S]` ids, without padding, bos_id and stop_ids wherever they are."""


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


class SentencePieceTokenizer:
  """The vocabulary of the released Gemma-2 models, from the file that comes with them."""

  bos_id = _BOS
  silent_ids = (PAD_ID, _BOS)

  def __init__(self, path: str = 'tokenizer.model'):
    """Reads the file.

    Args:
      path: tokenizer.model of a Hugging Face folder, or tokenizer_gemma2.model of the gemma
        release; the two are one file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no SentencePiece model, or one whose ids are not Gemma-2's.
    """
    if not pathlib.Path(path).is_file():
      raise MissingDataError(
        f'path: {path}: no such file. It is the SentencePiece model released with the weights of '
        'Gemma-2, tokenizer.model on Hugging Face and tokenizer_gemma2.model in the gemma release. '
        'Put it there, or name where it is: --config.policy.tokenizer.path=FILE.'
      )
    require_package('sentencepiece', extra='gemma')
    import sentencepiece  # the other tokenizer does without it

    try:
      self._model = sentencepiece.SentencePieceProcessor(model_file=path)
    except RuntimeError as error:
      raise DataError(f'path: expected a SentencePiece model, got {path}: {error}.') from error
    model = self._model
    found = dict(pad=model.pad_id(), eos=model.eos_id(), bos=model.bos_id(), unk=model.unk_id())
    ids = dict(pad=PAD_ID, eos=_EOS, bos=_BOS, unk=_UNKNOWN)
    expect(found == ids, 'path', f"a model with Gemma-2's ids {ids}", f'{path} with {found}')
    self.vocab_size = model.vocab_size()
    end_of_turn = model.piece_to_id(_END_OF_TURN)
    self.stop_ids = (_EOS,) if end_of_turn == _UNKNOWN else (_EOS, end_of_turn)
    self._dropped = {*self.silent_ids, *self.stop_ids}

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text; '<start_of_turn>' and '<end_of_turn>' in it are one id each."""
    return self._model.encode(text)

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Returns the text of ids; an id that the model lacks reads as its unknown token, ' ⁇ '."""
    kept = [int(i) for i in ids if i not in self._dropped]
    return self._model.decode([i if 0 <= i < self.vocab_size else _UNKNOWN for i in kept])


TOKENIZERS = {'characters': CharacterTokenizer, 'sentencepiece': SentencePieceTokenizer}

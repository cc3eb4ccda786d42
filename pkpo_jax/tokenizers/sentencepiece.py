"""SentencePiece models, as released with Gemma."""

import pathlib
from collections.abc import Iterable

import numpy as np

from pkpo_jax.chat import read_chat_template
from pkpo_jax.errors import DataError, MissingDataError, expect, require_package
from pkpo_jax.sampling import PAD_ID

# The same in each version of Gemma.
_EOS, _BOS, _UNKNOWN = range(PAD_ID + 1, PAD_ID + 4)
_END_OF_TURN = '<end_of_turn>'


class SentencePieceTokenizer:
  """The vocabulary of the released Gemma models, from the file that comes with them."""

  bos_id = _BOS
  silent_ids = (PAD_ID, _BOS)

  def __init__(
    self,
    path: str = 'tokenizer.model',
    chat_template: str | None = None,
    system_prompt: str | None = None,
    chat_date: str | None = None,
  ):
    """Reads the file.

    Args:
      path: tokenizer.model of a Hugging Face folder, or tokenizer_gemma2.model of the gemma
        release; the two are one file.
      chat_template: file of a chat template to use in place of the one beside `path`.
      system_prompt: of chats; see `pkpo_jax.chat.ChatTemplate`.
      chat_date: today for chats; see there.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is no SentencePiece model, or one whose ids are not Gemma's.
    """
    if not pathlib.Path(path).is_file():
      raise MissingDataError(
        f'path: {path}: no such file. It is the SentencePiece model released with the weights of '
        'Gemma, tokenizer.model on Hugging Face and tokenizer_gemma2.model in the gemma release. '
        'Put it there, or name where it is: --config.policy.tokenizer.path=FILE.'
      )
    require_package('sentencepiece', extra='gemma')
    import sentencepiece  # other tokenizers do without it

    try:
      self._model = sentencepiece.SentencePieceProcessor(model_file=path)
    except RuntimeError as error:
      raise DataError(f'path: expected a SentencePiece model, got {path}: {error}.') from error
    model = self._model
    found = dict(pad=model.pad_id(), eos=model.eos_id(), bos=model.bos_id(), unk=model.unk_id())
    ids = dict(pad=PAD_ID, eos=_EOS, bos=_BOS, unk=_UNKNOWN)
    expect(found == ids, 'path', f"a model with Gemma's ids {ids}", f'{path} with {found}')
    self.vocab_size = model.vocab_size()
    end_of_turn = model.piece_to_id(_END_OF_TURN)
    self.stop_ids = (_EOS,) if end_of_turn == _UNKNOWN else (_EOS, end_of_turn)
    self._dropped = {*self.silent_ids, *self.stop_ids}
    folder, begin = pathlib.Path(path).parent, model.id_to_piece(_BOS)
    chat = chat_template, system_prompt, chat_date
    self.chat_template = read_chat_template(folder, begin, *chat)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text; '<start_of_turn>' and '<end_of_turn>' in it are one id each."""
    return self._model.encode(text)

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Returns the text of ids; an id that the model lacks reads as its unknown token, ' ⁇ '."""
    kept = [int(i) for i in ids if i not in self._dropped]
    return self._model.decode([i if 0 <= i < self.vocab_size else _UNKNOWN for i in kept])

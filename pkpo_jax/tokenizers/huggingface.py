"""The tokenizers of Llama, Qwen and SmolLM, from the tokenizer.json that comes with them."""

import pathlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from pkpo_jax.chat import read_chat_template, read_json, token_text
from pkpo_jax.errors import DataError, MissingDataError, require_package

# Special tokens that end an answer in chats, of a document, or both. A model's config often names
# one where its chats end with another.
_ENDS = ('<|im_end|>', '<|eot_id|>', '<|eom_id|>', '<end_of_turn>')
_ENDS += ('<|endoftext|>', '<|end_of_text|>')
_NO_TOKEN = '\N{REPLACEMENT CHARACTER}'


class HuggingFaceTokenizer:
  """A vocabulary of the `tokenizers` package, with what the files beside it say of its tokens."""

  def __init__(
    self,
    path: str = 'tokenizer.json',
    chat_template: str | None = None,
    system_prompt: str | None = None,
    chat_date: str | None = None,
  ):
    """Reads the files.

    What begins a text is what tokenizer.json itself puts there. A completion ends with any end that
    generation_config.json, config.json or tokenizer_config.json names, or one of the special tokens
    with which chats end.

    Args:
      path: tokenizer.json, or the folder that has it.
      chat_template: file of a chat template to use in place of the one in the folder.
      system_prompt: of chats; see `pkpo_jax.chat.ChatTemplate`.
      chat_date: today for chats; see there.

    Raises:
      MissingDataError: if there is no such file.
      DataError: if a file is damaged, names an end that is no token, or none is named.
    """
    file = pathlib.Path(path)
    file = file / 'tokenizer.json' if file.is_dir() else file
    if not file.is_file():
      raise MissingDataError(
        f'path: {file}: no such file. It is in the folder of the weights: '
        '--config.policy.tokenizer.path=FOLDER.'
      )
    require_package('tokenizers', extra='huggingface')
    import tokenizers  # other tokenizers do without it

    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(file.read_text(encoding='utf-8'))
    except Exception as error:  # The package raises no narrower one.
      raise DataError(f'path: expected a tokenizer.json, got {file}: {error}.') from error
    self._tokenizer.no_truncation()  # Files may ask for both, for training of another kind.
    self._tokenizer.no_padding()
    self._tokens = {id: token for token, id in self._tokenizer.get_vocab().items()}
    if not self._tokens:
      raise DataError(f'path: expected a tokenizer.json with tokens, got {file} with none.')
    self.vocab_size = max(self._tokens) + 1
    begin = self._tokenizer.encode('', add_special_tokens=True).ids
    if len(begin) > 1:
      raise DataError(
        f'{file}: post_processor: expected at most one token at the start, got {begin}.'
      )
    self.bos_id = begin[0] if begin else None
    self.stop_ids = tuple(dict.fromkeys(self._ends(file)))
    if not self.stop_ids:
      raise DataError(
        f'{file.parent}: expected eos_token_id in generation_config.json or config.json, or '
        'eos_token in tokenizer_config.json, found none.'
      )
    silent = set() if self.bos_id is None else {self.bos_id}
    pad = token_text(self._json(file, 'tokenizer_config.json').get('pad_token'))
    silent |= set() if pad is None else {self._tokenizer.token_to_id(pad)} - {None}
    self.silent_ids = tuple(sorted(silent - {*self.stop_ids}))
    self._dropped = {*self.silent_ids, *self.stop_ids}
    first = '' if self.bos_id is None else self._tokens[self.bos_id]
    chat = chat_template, system_prompt, chat_date
    self.chat_template = read_chat_template(file.parent, first, *chat)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text; special tokens in it are one id each.

    A vocabulary may lack bytes that only unassigned characters have, as SmolLM2's does: the package
    leaves those out.
    """
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int] | np.ndarray) -> str:
    """Returns the text of ids; an id that is no token becomes U+FFFD, as does half a character."""
    kept = [int(i) for i in ids if i not in self._dropped]
    decode = lambda run: self._tokenizer.decode(run, skip_special_tokens=False)
    runs = ((known, list(run)) for known, run in groupby(kept, self._tokens.__contains__))
    return ''.join(decode(run) if known else _NO_TOKEN * len(run) for known, run in runs)

  def _ends(self, file: pathlib.Path) -> Iterator[int]:
    """Yields the ids that end completions; the tokenizer's own is the first."""
    token = token_text(self._json(file, 'tokenizer_config.json').get('eos_token'))
    if token is not None:
      id = self._tokenizer.token_to_id(token)
      if id is None:
        at = file.parent / 'tokenizer_config.json'
        raise DataError(f'{at}: eos_token: expected a token of {file.name}, got {token!r}.')
      yield id
    for name in ('generation_config.json', 'config.json'):
      ids = self._json(file, name).get('eos_token_id')
      for id in [] if ids is None else ids if isinstance(ids, list) else [ids]:
        if id not in self._tokens:
          at = file.parent / name
          raise DataError(f'{at}: eos_token_id: expected a token of {file.name}, got {id!r}.')
        yield id
    for id, token in self._tokenizer.get_added_tokens_decoder().items():
      if token.special and token.content in _ENDS:
        yield id

  @staticmethod
  def _json(file: pathlib.Path, name: str) -> dict[str, Any]:
    path = file.parent / name
    return read_json(path) if path.exists() else {}

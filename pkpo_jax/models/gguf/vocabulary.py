"""Writes the tokenizer of a GGUF file as the files that Hugging Face and SentencePiece have."""

import pathlib
from typing import Any

from pkpo_jax.errors import DataError, require_package
from pkpo_jax.models.config_file import write_json
from pkpo_jax.models.gguf.reading import GGUFFile

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = '\N{LOWER ONE EIGHTH BLOCK}'  # What SentencePiece writes for a space.
_BPE = 2  # sentencepiece_model_pb2.TrainerSpec.BPE

# How a text is split before merges, by tokenizer.ggml.pre: the pre_tokenizers of the released
# tokenizer.json.
_WORD_STARTS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_WORD_ENDS = r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'


def _split(pattern: str) -> list[dict[str, Any]]:
  return [
    {'type': 'Split', 'pattern': {'Regex': pattern}, 'behavior': 'Isolated', 'invert': False},
    _byte_level(use_regex=False),
  ]


def _byte_level(use_regex: bool) -> dict[str, Any]:
  fields = {'add_prefix_space': False, 'trim_offsets': True, 'use_regex': use_regex}
  return {'type': 'ByteLevel', **fields}


PRE_TOKENIZERS = {
  'gpt-2': [_byte_level(use_regex=True)],
  'smollm': [{'type': 'Digits', 'individual_digits': True}, _byte_level(use_regex=True)],
  'llama-bpe': _split(rf'{_WORD_STARTS}|\p{{N}}{{1,3}}{_WORD_ENDS}'),
  'qwen2': _split(rf'{_WORD_STARTS}|\p{{N}}{_WORD_ENDS}'),
}
PRE_TOKENIZERS['deepseek-r1-qwen'] = PRE_TOKENIZERS['qwen2']  # As in llama.cpp.
_NORMALIZERS = dict.fromkeys(('qwen2', 'deepseek-r1-qwen'), {'type': 'NFC'})
_IGNORE_MERGES = {'llama-bpe'}  # A word that is a token is that token.
_BEGINS_TEXTS = {'llama-bpe'}  # Unless add_bos_token says otherwise.


class Vocabulary:
  """The tokenizer of a GGUF file, checked."""

  def __init__(self, file: GGUFFile, num_rows: int):
    """Reads it.

    Args:
      file: has the fields `tokenizer.ggml.*`.
      num_rows: of the model's embedding.

    Raises:
      DataError: if a field is missing or of another type, an id or a length does not fit, or the
        kind of tokenizer is unknown.
    """
    self._file = file
    self.tokens = file.need('tokenizer.ggml.tokens', list)
    self.types = file.optional('tokenizer.ggml.token_type', list, [_NORMAL] * len(self.tokens))
    if not 1 <= len(self.tokens) <= num_rows:
      self._fail('tokens', f'1 to {num_rows} tokens, the rows of the embedding', len(self.tokens))
    self._same_length('token_type', self.types)
    self.kind = file.need('tokenizer.ggml.model', str)
    if self.kind not in ('llama', 'gpt2'):
      self._fail('model', "'llama' (SentencePiece) or 'gpt2' (byte-level BPE)", repr(self.kind))
    self.ids = {}
    for role, field in dict(bos='bos', eos='eos', eot='eot', pad='padding', unk='unknown').items():
      id = file.optional(f'tokenizer.ggml.{field}_token_id', int)
      if id is not None:
        if not 0 <= id < len(self.tokens):
          self._fail(f'{field}_token_id', f'an id below {len(self.tokens)}', id)
        self.ids[role] = id
    if 'eos' not in self.ids:
      self._fail('eos_token_id', 'the id that ends a text', 'none')
    if self.kind == 'llama':
      self.scores = file.need('tokenizer.ggml.scores', list)
      self._same_length('scores', self.scores)
      self._default_bos = True
    else:
      self.pre = file.optional('tokenizer.ggml.pre', str, 'gpt-2')
      if self.pre not in PRE_TOKENIZERS:
        self._fail('pre', f'one of {sorted(PRE_TOKENIZERS)}', repr(self.pre))
      self.merges = [merge.split(' ') for merge in file.need('tokenizer.ggml.merges', list)]
      self._default_bos = self.pre in _BEGINS_TEXTS
    self.add_bos = file.optional('tokenizer.ggml.add_bos_token', bool, self._default_bos)
    if self.add_bos and 'bos' not in self.ids:
      self._fail('bos_token_id', 'an id, as texts begin with it', 'none')
    self.chat_template = file.optional('tokenizer.chat_template', str)

  def write(self, folder: pathlib.Path) -> None:
    """Writes tokenizer.model or tokenizer.json, with the configs that go with it."""
    if self.kind == 'llama':
      (folder / 'tokenizer.model').write_bytes(self.sentencepiece_model())
    else:
      write_json(folder / 'tokenizer.json', self.tokenizer_json())
    roles = {role: self.tokens[id] for role, id in self.ids.items() if role != 'eot'}
    kind = 'GemmaTokenizer' if self.kind == 'llama' else 'PreTrainedTokenizerFast'
    config = {f'{role}_token': token for role, token in roles.items()}
    config |= {'add_bos_token': self.add_bos, 'add_eos_token': False}
    config |= {'clean_up_tokenization_spaces': False, 'tokenizer_class': kind}
    if self.chat_template is not None:
      config['chat_template'] = self.chat_template
    write_json(folder / 'tokenizer_config.json', config)
    ends = list(dict.fromkeys(self.ids[role] for role in ('eos', 'eot') if role in self.ids))
    generation = {f'{r}_token_id': self.ids[r] for r in ('bos', 'pad') if r in self.ids}
    write_json(folder / 'generation_config.json', {'eos_token_id': ends, **generation})

  def sentencepiece_model(self) -> bytes:
    """Returns a SentencePiece model: byte-pair merges by score, bytes for what has no piece."""
    require_package('sentencepiece', extra='gemma')
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    for id, (token, score, kind) in enumerate(
      zip(self.tokens, self.scores, self.types, strict=True)
    ):
      if id == self.ids.get('unk'):
        kind = _UNKNOWN
      elif kind == _CONTROL and id not in self.ids.values():
        # llama.cpp marks all special tokens so. SentencePiece finds no control piece in a text, and
        # texts have these: the turns of a chat.
        kind = _USER_DEFINED
      elif kind == _CONTROL and id == self.ids.get('eot'):
        kind = _USER_DEFINED
      if kind == _USER_DEFINED:
        token = token.replace(' ', _SPACE)  # llama.cpp has undone it.
      model.pieces.add(piece=token, score=score, type=kind)
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size = _BPE, len(self.tokens)
    trainer.byte_fallback = _BYTE in self.types
    for role in ('unk', 'bos', 'eos', 'pad'):
      id = self.ids.get(role, -1)
      setattr(trainer, f'{role}_id', id)
      if id >= 0:
        setattr(trainer, f'{role}_piece', self.tokens[id])
    normalizer = model.normalizer_spec
    normalizer.name = 'identity'
    normalizer.add_dummy_prefix = self._file.optional('tokenizer.ggml.add_space_prefix', bool, True)
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    return model.SerializeToString()

  def tokenizer_json(self) -> dict[str, Any]:
    """Returns the file of Hugging Face's `tokenizers`."""
    used = [id for id, kind in enumerate(self.types) if kind != _UNUSED]  # The rest is padding.
    flags = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}
    added = [
      {'id': id, 'content': self.tokens[id], **flags, 'special': self.types[id] == _CONTROL}
      for id in used
      if self.types[id] in (_CONTROL, _USER_DEFINED)
    ]
    return {
      'version': '1.0',
      'truncation': None,
      'padding': None,
      'added_tokens': added,
      'normalizer': _NORMALIZERS.get(self.pre),
      'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': PRE_TOKENIZERS[self.pre]},
      'post_processor': self._post_processor(),
      'decoder': _byte_level(use_regex=True),
      'model': {
        'type': 'BPE',
        'dropout': None,
        'unk_token': None,
        'continuing_subword_prefix': None,
        'end_of_word_suffix': None,
        'fuse_unk': False,
        'byte_fallback': False,
        'ignore_merges': self.pre in _IGNORE_MERGES,
        'vocab': {self.tokens[id]: id for id in used},
        'merges': self.merges,
      },
    }

  def _post_processor(self) -> dict[str, Any]:
    """Returns what puts the first token before a text, where one begins texts."""
    if not self.add_bos:
      return {**_byte_level(use_regex=True), 'trim_offsets': False}
    id = self.ids['bos']
    bos = self.tokens[id]
    begin = {'SpecialToken': {'id': bos, 'type_id': 0}}
    texts = {name: {'Sequence': {'id': name, 'type_id': i}} for i, name in enumerate('AB')}
    return {
      'type': 'TemplateProcessing',
      'single': [begin, texts['A']],
      'pair': [begin, texts['A'], begin, texts['B']],
      'special_tokens': {bos: {'id': bos, 'ids': [id], 'tokens': [bos]}},
    }

  def _same_length(self, field: str, values: list):
    if len(values) != len(self.tokens):
      self._fail(field, f'{len(self.tokens)} entries, one for each token', len(values))

  def _fail(self, field: str, expected: str, found: Any):
    raise DataError(f'{self._file.path}: tokenizer.ggml.{field}: expected {expected}, got {found}.')

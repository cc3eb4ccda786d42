"""Tokenizers give back the text they are given, and the ids of the gemma library."""

import enum
import io
import json
import random
import re
import string
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
from gemma import gm

from pkpo_jax.settings import build
from pkpo_jax.tokenizers import (
  TOKENIZERS,
  CharacterTokenizer,
  SentencePieceTokenizer,
  Tokenizer,
  check_vocabulary,
)

WORDS = 'the quick brown fox jumps over a lazy dog number 12 345 plus is héllo wörld , . ='.split()
TEXTS = [
  '',
  'the quick brown fox',
  ' leading',
  '   three leading, two trailing  ',
  'the  fox   jumps',
  'one\ntwo\n\n three\n',
  '\t tab',
  'héllo wörld',
  '日本語 and 🦊',
  'e\u0301 is not \u00e9',  # Gemma-2 does not normalise
  '12 + 345 = 357',
  '<start_of_turn>user\nthe fox<start_of_turn>model\n',
  '<pad></s><bos>',  # text, not tokens
]


def train(path, **options):
  """Writes a SentencePiece model with Gemma-2's options, but small."""
  rng = random.Random(0)
  model = io.BytesIO()
  options = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3) | options
  symbols = options.pop('symbols', ['<start_of_turn>', '<end_of_turn>', '\n', '  '])
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=(' '.join(rng.choices(WORDS, k=8)) for _ in range(300)),
    model_writer=model,
    model_type='bpe',
    vocab_size=360,
    user_defined_symbols=symbols,
    byte_fallback=True,
    split_digits=True,
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    normalization_rule_name='identity',
    minloglevel=2,
    **options,
  )
  path.write_bytes(model.getvalue())
  return path


@pytest.fixture(scope='module')
def model_file(tmp_path_factory):
  return train(tmp_path_factory.mktemp('tokenizer') / 'tokenizer.model')


@pytest.fixture(scope='module')
def tokenizer(model_file):
  return SentencePieceTokenizer(str(model_file))


class _SpecialTokens(gm.text.SpecialTokens, enum.IntEnum):
  """The ids of the model above; the library's own enum for Gemma-2 has those of the real one."""

  PAD = 0
  EOS = 1
  BOS = 2
  UNK = 3
  START_OF_TURN = 4
  END_OF_TURN = 5


class _LibraryTokenizer(gm.text.Gemma2Tokenizer):
  special_tokens = _SpecialTokens


def test_they_meet_the_protocol(model_file):
  assert set(TOKENIZERS) == {'characters', 'huggingface', 'sentencepiece'}
  for config in [dict(name='characters'), dict(name='sentencepiece', path=str(model_file))]:
    tokenizer = build('tokenizer', config, TOKENIZERS)
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.bos_id, tokenizer.stop_ids[0]) == (2, 1)
    assert all(i < tokenizer.vocab_size for i in tokenizer.stop_ids)


@pytest.mark.parametrize(
  'config, problem',
  [
    ({}, None),
    (dict(vocab_size=128, eos_token_id=1), None),
    (dict(vocab_size=1152, eos_token_id=[1]), None),
    (dict(text_config=dict(vocab_size=200)), None),
    (dict(vocab_size=1153), 'vocab_size: expected 128, .* or up to 1024 more, found 1153'),
    (dict(vocab_size=127), 'vocab_size: expected 128, .*, found 127'),
    (dict(text_config=dict(vocab_size=9999)), 'vocab_size: .*, found 9999'),
    (
      dict(vocab_size=128, eos_token_id=[1, 7]),
      r'eos_token_id: expected some of \(1,\), .* found 7',
    ),
  ],
)
def test_a_vocabulary_of_another_model_is_named(config, problem, tmp_path):
  check_vocabulary(CharacterTokenizer(), tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  if problem is None:
    check_vocabulary(CharacterTokenizer(), tmp_path)
  else:
    with pytest.raises(ValueError, match=f'config.json: {problem}.*: the tokenizer is of another'):
      check_vocabulary(CharacterTokenizer(), tmp_path)


# Characters.


def test_characters_round_trip():
  tokenizer = CharacterTokenizer()
  text = string.ascii_letters + string.digits + string.punctuation + ' \n  \n'
  ids = tokenizer.encode(text)
  assert len(ids) == len(text) and tokenizer.decode(ids) == text
  assert tokenizer.decode(np.array(ids, np.int32)) == text
  # 95 printable characters and the newline, each with an id of its own after PAD, EOS and BOS.
  assert sorted({*ids}) == list(range(3, 3 + 96))
  assert tokenizer.vocab_size == 128 and tokenizer.stop_ids == (1,)


def test_characters_drop_special_tokens():
  tokenizer = CharacterTokenizer()
  a, b = tokenizer.encode('ab')
  assert tokenizer.decode([0, 0, 2, a, b, 1, 0]) == 'ab'
  assert tokenizer.decode([]) == tokenizer.decode([0, 1, 2]) == ''


def test_an_id_without_a_character_is_shown():
  assert CharacterTokenizer().decode([99, 36, 127, 500, -1]) == '�@���'


@pytest.mark.parametrize('character', ['é', '\t', '\r', '\x00', '\x7f', '\u2028', '🦊'])
def test_another_character_is_named(character):
  message = f'text: expected newlines and printable ASCII, got {character!r} at position 3.'
  with pytest.raises(ValueError, match=re.escape(message)):
    CharacterTokenizer().encode(f'abc{character}é')


# SentencePiece.


@pytest.mark.parametrize('text', TEXTS)
def test_sentencepiece_is_the_library(text, tokenizer, model_file):
  library = _LibraryTokenizer(model_file)
  ids = tokenizer.encode(text)
  assert ids == library.encode(text)
  assert tokenizer.decode(ids) == library.decode(ids) == text
  assert tokenizer.decode(np.array(ids, np.int32)) == text
  assert tokenizer.vocab_size == library.vocab_size


def test_any_slice_decodes_as_in_the_library(tokenizer, model_file):
  """A completion may begin and end anywhere, in the midst of a character too."""
  library = _LibraryTokenizer(model_file)
  ids = tokenizer.encode(' héllo 日本▁\n  the fox')
  for start in range(len(ids)):
    for stop in range(start, len(ids) + 1):
      assert tokenizer.decode(ids[start:stop]) == library.decode(ids[start:stop])


def test_sentencepiece_drops_special_tokens(tokenizer):
  start_of_turn, end_of_turn = tokenizer.encode('<start_of_turn><end_of_turn>')
  assert tokenizer.stop_ids == (1, end_of_turn)
  ids = tokenizer.encode('the fox')
  assert tokenizer.decode([0, 0, 2, *ids, end_of_turn, 0]) == 'the fox'
  assert tokenizer.decode([2, *ids, 1, 0, 0]) == 'the fox'
  assert tokenizer.decode([start_of_turn, *ids]) == '<start_of_turn>the fox'
  assert tokenizer.decode([]) == tokenizer.decode([0, 1, 2]) == ''


def test_an_id_that_the_model_lacks_is_shown(tokenizer):
  ids = tokenizer.encode('the fox')
  assert tokenizer.decode([*ids, tokenizer.vocab_size, -1]) == 'the fox ⁇  ⁇ '


def test_a_model_without_turns_stops_at_its_end(tmp_path):
  assert SentencePieceTokenizer(str(train(tmp_path / 'base.model', symbols=[]))).stop_ids == (1,)


def test_other_ids_are_named(tmp_path):
  path = train(tmp_path / 'other.model', pad_id=3, eos_id=2, bos_id=1, unk_id=0)
  with pytest.raises(ValueError) as error:
    build('tokenizer', dict(name='sentencepiece', path=str(path)), TOKENIZERS)
  assert str(error.value) == (
    "tokenizer.path: expected a model with Gemma's ids {'pad': 0, 'eos': 1, 'bos': 2, 'unk': 3}, "
    f'''got "{path} with {{'pad': 3, 'eos': 2, 'bos': 1, 'unk': 0}}".'''
  )


def test_a_missing_file_is_named(tmp_path):
  path = tmp_path / 'tokenizer.model'
  with pytest.raises(FileNotFoundError, match=re.escape(f'path: {path}: no such file.')) as error:
    SentencePieceTokenizer(str(path))
  for part in ['tokenizer_gemma2.model', '--config.policy.tokenizer.path']:
    assert part in str(error.value)


@pytest.mark.parametrize('size', [0, 100, -100])
def test_a_damaged_file_is_named(size, model_file, tmp_path):
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(model_file.read_bytes()[:size])
  with pytest.raises(
    ValueError, match=re.escape(f'path: expected a SentencePiece model, got {path}')
  ):
    SentencePieceTokenizer(str(path))


def test_characters_need_no_sentencepiece():
  program = """
import sys
sys.modules['sentencepiece'] = None  # importing it fails
from pkpo_jax.tokenizers import TOKENIZERS
print(TOKENIZERS['characters']().decode([36]))
print(*({'gemma', 'tensorflow', 'torch', 'transformers'} & set(sys.modules)))
"""
  run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  assert run.stdout == '@\n\n'

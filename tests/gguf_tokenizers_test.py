"""What is written of a GGUF file's tokenizer encodes as the definition of its kind says."""

import functools
import json

import numpy as np
import pytest

pytest.importorskip('gguf', reason='gguf is not installed: it is in the extra `gguf`')
pytest.importorskip('tokenizers', reason='tokenizers is not installed: extra `huggingface`')

from pkpo_jax.errors import DataError, MissingDataError
from pkpo_jax.models.gguf import convert
from pkpo_jax.tokenizers import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer
from tests import gguf_cases, tokenizer_cases

NUM_TEXTS = 1000
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}"


@pytest.fixture(scope='module')
def texts():
  return tokenizer_cases.random_texts(np.random.default_rng(0), NUM_TEXTS)


@pytest.fixture(scope='module')
def folder_of(tmp_path_factory):
  def make(family, **options):
    folder = tmp_path_factory.mktemp(family)
    gguf_cases.write(folder / 'model.gguf', family, **options)
    return convert(folder / 'model.gguf', folder / 'out')

  return make


def test_sentencepiece_merges_by_score(folder_of, texts):
  folder = folder_of('gemma3', template=TEMPLATE)
  tokenizer = SentencePieceTokenizer(str(folder / 'tokenizer.model'))
  tokens, kinds = zip(*gguf_cases.SENTENCEPIECE, strict=True)
  # Texts may have what is one token: the turns, which the file calls control, and runs of spaces.
  tokens = [token.replace(' ', tokenizer_cases.SPACE) for token in tokens]
  whole = [t for t, kind in zip(tokens[4:], kinds[4:], strict=True) if kind in (3, 4)]
  scores = [-float(i) for i in range(len(tokens))]
  define = tokenizer_cases.SentencePieceMerges(tokens, scores, whole)
  for text in texts:
    assert tokenizer.encode(text) == define(text), repr(text)
  assert tokenizer.stop_ids == (1, 5) and tokenizer.vocab_size == len(tokens)
  assert tokenizer.chat_template.prompt([dict(role='user', content='hi')]) == '[hi]'


# The patterns of the released tokenizers; see `tokenizer_cases.compiled`.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[L]+| ?[N]+| ?[^SLN]+|[S]+(?![^S])|[S]+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLN]?[L]+|[N]| ?[^SLN]+[\r\n]*|[S]*[\r\n]+"
QWEN2 += r'|[S]+(?![^S])|[S]+'
LLAMA = QWEN2.replace('|[N]|', '|[N]{1,3}|')


@pytest.fixture(scope='module')
def words_of():
  """Returns a function from a pre-tokenizer's name and a text to the text's words."""
  gpt2, qwen2, llama = map(tokenizer_cases.compiled, (GPT2, QWEN2, LLAMA))
  digit = tokenizer_cases.compiled('([N])')
  words = {'gpt-2': gpt2.findall, 'qwen2': qwen2.findall, 'llama-bpe': llama.findall}
  words['deepseek-r1-qwen'] = qwen2.findall
  # Digits apart, then the words between them.
  words['smollm'] = lambda text: [word for part in digit.split(text) for word in gpt2.findall(part)]
  return lambda pre, text: words[pre](text)


@pytest.mark.parametrize('pre', ['gpt-2', 'smollm', 'qwen2', 'deepseek-r1-qwen', 'llama-bpe'])
def test_byte_level_merges_by_rank(pre, folder_of, texts, words_of):
  tokenizer = HuggingFaceTokenizer(str(folder_of('llama', pre=pre)))
  tokens, _ = gguf_cases.byte_level()
  define = tokenizer_cases.ByteLevelMerges(
    tokens,
    gguf_cases.MERGES,
    tokens[:3],
    functools.partial(words_of, pre),
    gguf_cases.byte_characters(),
    normal_form='NFC' if 'qwen' in pre else None,
    whole_words=pre == 'llama-bpe',
  )
  for text in texts:
    assert tokenizer.encode(text) == define(text), repr(text)
  assert tokenizer.bos_id == (1 if pre == 'llama-bpe' else None)


@pytest.fixture(scope='module')
def smollm(folder_of):
  return folder_of('llama', template=TEMPLATE)


def test_huggingface_meets_the_protocol(smollm, texts):
  tokenizer = HuggingFaceTokenizer(str(smollm))
  assert isinstance(tokenizer, Tokenizer)
  # The last token of the file is padding of the vocabulary.
  assert tokenizer.vocab_size == len(gguf_cases.byte_level()[0]) - 1
  assert (tokenizer.bos_id, tokenizer.stop_ids, tokenizer.silent_ids) == (None, (2, 0), ())
  for text in texts:
    if '<|im_end|>' not in text:  # It ends texts: what decodes leaves it out.
      assert tokenizer.decode(tokenizer.encode(text)) == text
  ids = tokenizer.encode('the é<|im_start|>')
  assert tokenizer.decode(np.array([*ids, 2, 0], np.int32)) == 'the é<|im_start|>'
  assert tokenizer.decode([]) == ''
  half = tokenizer.encode('日')[:1]
  beyond = tokenizer.vocab_size
  assert tokenizer.decode([*ids[:1], beyond, -1, *half, *ids[:1]]) == 'the���the'
  # Nothing before the prompt takes the place of the template's first token.
  assert tokenizer.chat_template.prompt([dict(role='user', content='a')]) == '<|im_start|>[a]'


def test_a_token_that_begins_prompts_is_not_doubled(folder_of):
  yes = {'tokenizer.ggml.add_bos_token': True}
  tokenizer = HuggingFaceTokenizer(str(folder_of('llama', template=TEMPLATE, fields=yes)))
  assert tokenizer.bos_id == 1 and tokenizer.silent_ids == (1,)
  assert tokenizer.encode('the') == HuggingFaceTokenizer.encode(tokenizer, 'the')
  assert 1 not in tokenizer.encode('the')
  assert tokenizer.chat_template.prompt([dict(role='user', content='a')]) == '[a]'


def changed(folder, tmp_path, name, **fields):
  """Returns a copy of the tokenizer's files in which one has other fields."""
  for file in ('tokenizer.json', 'tokenizer_config.json', 'generation_config.json', 'config.json'):
    value = json.loads((folder / file).read_text())
    value |= fields if file == name else {}
    (tmp_path / file).write_text(json.dumps(value))
  return str(tmp_path)


BAD = [
  ('generation_config.json', dict(eos_token_id=[2, 999]), 'eos_token_id: expected a token of'),
  ('tokenizer_config.json', dict(eos_token='<no>'), "eos_token: expected a token of .*'<no>'"),
  ('tokenizer.json', dict(model={'type': 'BPE'}), 'path: expected a tokenizer.json, got'),
]


@pytest.mark.parametrize('name, fields, message', BAD)
def test_what_does_not_fit_is_named(name, fields, message, smollm, tmp_path):
  with pytest.raises(DataError, match=message):
    HuggingFaceTokenizer(changed(smollm, tmp_path, name, **fields))


def test_a_missing_file_or_end_is_named(smollm, tmp_path):
  with pytest.raises(MissingDataError, match=r'tokenizer.json: no such file'):
    HuggingFaceTokenizer(str(tmp_path))
  text = (smollm / 'tokenizer.json').read_text()
  for token in ('<|im_end|>', '<|endoftext|>'):
    text = text.replace(token, f'{token[:-2]}x|>')
  (tmp_path / 'tokenizer.json').write_text(text)
  with pytest.raises(DataError, match='expected eos_token_id in generation_config.json or config'):
    HuggingFaceTokenizer(str(tmp_path))

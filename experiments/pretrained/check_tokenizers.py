"""Checks the tokenizers of converted folders on random texts, with the real vocabularies.

Against merges done one by one by the definition, from the tokens in the GGUF file, and against what
transformers makes of the GGUF file. That does not know SmolLM's rule that splits digits off, and
differs on texts with numbers, and only there (the last column). From the root of the repository:
  python -m experiments.pretrained.check_tokenizers --models=gemma3_270m,smollm2_135m \
    --folders=FOLDER,FOLDER --ggufs=FILE,FILE \
    --output=experiments/pretrained/results/tokenizers.csv

Takes a Python with transformers, tokenizers, sentencepiece and gguf, as check_conversion.py does.
"""

import argparse
import functools
import pathlib
import time
import unicodedata

import gguf
import numpy as np
import sentencepiece
import tokenizers
import transformers

from experiments.pretrained import rows
from tests import tokenizer_cases

COMMAND = 'python -m experiments.pretrained.check_tokenizers'
NUM_TEXTS = 1000
CONTROL, USER_DEFINED = 3, 4
# The released SmolLM2 splits digits off, then words as GPT-2 did.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?[L]+| ?[N]+| ?[^SLN]+|[S]+(?![^S])|[S]+"


def smollm_words(words, digit, text):
  return [word for part in digit.split(text) for word in words.findall(part)]


def byte_characters():
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = iter(range(256, 512))
  return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def by_definition(file):
  """Returns a function from a text to its ids."""
  read = lambda field: file.get_field(f'tokenizer.ggml.{field}').contents()
  tokens, kinds = read('tokens'), read('token_type')
  if read('model') == 'llama':
    first = {read(f'{role}_token_id') for role in ('bos', 'eos', 'padding', 'unknown')}
    tokens = [
      token.replace(' ', tokenizer_cases.SPACE) if kind == USER_DEFINED else token
      for token, kind in zip(tokens, kinds, strict=True)
    ]
    whole = [
      token
      for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
      if kind in (CONTROL, USER_DEFINED) and id not in first
    ]
    return tokenizer_cases.SentencePieceMerges(tokens, read('scores'), whole)
  if read('pre') != 'smollm':
    raise ValueError(f'tokenizer.ggml.pre: expected smollm, got {read("pre")}.')
  words, digit = map(tokenizer_cases.compiled, (WORDS, '([N])'))
  special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
  split = functools.partial(smollm_words, words, digit)
  return tokenizer_cases.ByteLevelMerges(tokens, read('merges'), special, split, byte_characters())


def converted(folder):
  """Returns a function from a text to its ids."""
  if (folder / 'tokenizer.model').exists():
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / 'tokenizer.model')).encode
  tokenizer = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def check(name, folder, path, texts):
  encode, define = converted(folder), by_definition(gguf.GGUFReader(path))
  load = transformers.AutoTokenizer.from_pretrained
  other = load(path.parent, gguf_file=path.name)
  found = [encode(text) for text in texts]
  differ = [define(text) != ids for text, ids in zip(texts, found, strict=True)]
  of_other = lambda text: other(text, add_special_tokens=False).input_ids
  differ_there = [of_other(text) != ids for text, ids in zip(texts, found, strict=True)]
  for text, ids, is_other in zip(texts, found, differ_there, strict=True):
    if is_other:
      print(f'{name}, first text that differs in transformers: {text!r}\n  {ids}')
      print(f'  {of_other(text)}')
      break
  return {
    'model': name,
    'num_texts': len(texts),
    'num_tokens': sum(map(len, found)),
    'other_by_definition': sum(differ),
    'other_in_transformers': sum(differ_there),
    'of_these_without_numbers': sum(
      is_other and not any(unicodedata.category(c).startswith('N') for c in text)
      for is_other, text in zip(differ_there, texts, strict=True)
    ),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  split = lambda text: text.split(',')
  paths = lambda text: [pathlib.Path(each) for each in split(text)]
  parser.add_argument('--models', type=split, required=True)
  parser.add_argument('--folders', type=paths, required=True)
  parser.add_argument('--ggufs', type=paths, required=True)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  args, start = parser.parse_args(), time.monotonic()
  texts = tokenizer_cases.random_texts(np.random.default_rng(0), NUM_TEXTS)
  each = zip(args.models, args.folders, args.ggufs, strict=True)
  found = [check(*model, texts) for model in each]
  rows.write(
    args.output,
    found,
    COMMAND,
    {'models': args.models, 'num_texts': NUM_TEXTS},
    0,
    time.monotonic() - start,
  )


if __name__ == '__main__':
  main()

"""Tokenizers by their definitions, slowly, and random texts to compare them on."""

import functools
import re
import sys
import unicodedata

SPACE = '▁'
_PIECES = ['the', ' and', ' an', 'he', ' ', '  ', '   ', '       ', '\n', '\n\n', '\n \n', '\t']
_PIECES += ['1', '23', '4567', '.', ',', "'s", "'ll", 'é', 'e\u0301', 'ß', '日本', '🦊', '\u200d']
_PIECES += ['\u00a0', '\r\n', '\x00', 'ﬁ', '½', '<table>', '<start_of_turn>', '<|im_end|>', SPACE]


@functools.cache
def _class_of(category):
  """Returns all characters of a category of Unicode, 'L' or 'N', to stand in brackets."""
  codes = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == category]
  starts = [c for c, before in zip(codes, [-2, *codes], strict=False) if c != before + 1]
  ends = [c for c, after in zip(codes, [*codes[1:], -2], strict=True) if c != after - 1]
  return ''.join(f'{chr(one)}-{chr(other)}' for one, other in zip(starts, ends, strict=True))


def compiled(pattern):
  """Returns a pattern in which, within brackets, L is any letter, N any number, S any space."""
  spaces = '\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
  classes = {'L': _class_of('L'), 'N': _class_of('N'), 'S': spaces}
  return re.compile(re.sub('[LNS]', lambda match: classes[match[0]], pattern))


def random_texts(rng, count):
  """Returns texts of words, runs of spaces and newlines, and characters from all of Unicode."""
  texts = []
  for _ in range(count):
    text = ''
    for _ in range(int(rng.integers(0, 24))):
      if rng.random() < 0.75:
        text += _PIECES[rng.integers(len(_PIECES))]
      else:
        code = int(rng.choice([rng.integers(32, 127), rng.integers(0x20, 0x3000), _anywhere(rng)]))
        text += chr(code)
    texts.append(text)
  return texts


def _anywhere(rng):
  code = int(rng.integers(0x10000 + 0xF0000))
  return ord('x') if 0xD800 <= code < 0xE000 else code  # No half of a surrogate pair.


def merge(symbols, best):
  """Returns the symbols after merging, again and again, the pair whose `best` is least.

  The leftmost of equals is first. `best(left, right)` is None for a pair that does not merge.
  """
  symbols = list(symbols)
  while True:
    ranks = [best(*pair) for pair in zip(symbols, symbols[1:], strict=False)]
    ranked = [(rank, i) for i, rank in enumerate(ranks) if rank is not None]
    if not ranked:
      return symbols
    _, i = min(ranked)
    symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def sentencepiece_ids(text, tokens, scores, user_defined):
  """Returns the ids of a text by byte-pair merges of the highest score, with byte fallback."""
  ids = {token: i for i, token in enumerate(tokens)}
  longest_first = sorted(user_defined, key=len, reverse=True)
  pattern = '|'.join(map(re.escape, longest_first)) or '(?!)'
  found = []
  for i, part in enumerate(re.split(f'({pattern})', text.replace(' ', SPACE))):
    if i % 2:
      found.append(ids[part])
      continue
    best = lambda one, other: -scores[ids[one + other]] if one + other in ids else None
    for symbol in merge(part, best):
      is_piece = symbol in ids
      found += [ids[symbol]] if is_piece else [ids[f'<0x{b:02X}>'] for b in symbol.encode()]
  return found


def byte_level_ids(text, tokens, merges, special, words_of, byte_characters, **options):
  """Returns the ids of a text by byte-level BPE: words by a regular expression, merges by rank.

  Options: normal_form of Unicode, and whole_words, which are a token without merges.
  """
  normal_form, whole_words = options.get('normal_form'), options.get('whole_words', False)
  ids = {token: i for i, token in enumerate(tokens)}
  ranks = {tuple(pair.split(' ')): rank for rank, pair in enumerate(merges)}
  pattern = '|'.join(map(re.escape, special))
  found = []
  for i, part in enumerate(re.split(f'({pattern})', text)):
    if i % 2:
      found.append(ids[part])
      continue
    part = unicodedata.normalize(normal_form, part) if normal_form else part
    for word in words_of(part):
      symbols = [byte_characters[byte] for byte in word.encode()]
      is_whole = whole_words and ''.join(symbols) in ids
      merged = [''.join(symbols)] if is_whole else merge(symbols, lambda *pair: ranks.get(pair))
      found += [ids[symbol] for symbol in merged]
  return found

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
        codes = [rng.integers(32, 127), rng.integers(0x20, 0x3000), _anywhere(rng)]
        text += chr(int(rng.choice(codes)))
    texts.append(text)
  return texts


def _anywhere(rng):
  """Returns any code point but half a surrogate pair, or one that is assigned since this Python."""
  code = int(rng.integers(sys.maxunicode + 1))
  return ord('x') if unicodedata.category(chr(code)) in ('Cs', 'Cn') else code


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


class SentencePieceMerges:
  """From a text to its ids by byte-pair merges of the highest score, with byte fallback."""

  def __init__(self, tokens, scores, user_defined):
    self._ids, self._scores = {token: i for i, token in enumerate(tokens)}, scores
    longest_first = sorted(user_defined, key=len, reverse=True)
    self._whole = re.compile('|'.join(map(re.escape, longest_first)).join('()'))

  def _best(self, one, other):
    id = self._ids.get(one + other)
    return None if id is None else -self._scores[id]

  def __call__(self, text):
    found = []
    for i, part in enumerate(self._whole.split(text.replace(' ', SPACE))):
      symbols = [part] if i % 2 else merge(part, self._best)
      for symbol in symbols:
        is_piece = symbol in self._ids
        names = [symbol] if is_piece else [f'<0x{byte:02X}>' for byte in symbol.encode()]
        found += [self._ids[name] for name in names]
    return found


class ByteLevelMerges:
  """From a text to its ids by byte-level BPE: words by a function, merges by rank."""

  def __init__(self, tokens, merges, special, words_of, byte_characters, **options):
    """Takes a tokenizer's tables.

    Options: normal_form of Unicode, and whole_words, which are a token without merges.
    """
    self._ids = {token: i for i, token in enumerate(tokens)}
    self._ranks = {tuple(pair.split(' ')): rank for rank, pair in enumerate(merges)}
    self._special = re.compile('|'.join(map(re.escape, special)).join('()'))
    self._words_of, self._byte_characters = words_of, byte_characters
    self._normal_form = options.get('normal_form')
    self._whole_words = options.get('whole_words', False)

  def _merged(self, word):
    symbols = [self._byte_characters[byte] for byte in word.encode()]
    # Some vocabularies lack bytes that no character in use has; what has no token is left out.
    symbols = [symbol for symbol in symbols if symbol in self._ids]
    whole = ''.join(symbols)
    if self._whole_words and whole in self._ids:
      return [whole]
    return merge(symbols, lambda *pair: self._ranks.get(pair))

  def __call__(self, text):
    found = []
    for i, part in enumerate(self._special.split(text)):
      if i % 2:
        found.append(self._ids[part])
        continue
      part = unicodedata.normalize(self._normal_form, part) if self._normal_form else part
      found += [self._ids[s] for word in self._words_of(part) for s in self._merged(word)]
    return found

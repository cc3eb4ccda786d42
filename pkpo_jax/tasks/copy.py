"""Copying: the smallest task of text, to see a language model learn within a minute."""

import string

import jax
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.settings import build
from pkpo_jax.tasks.text import decode_completions, encode_prompts, host_rng
from pkpo_jax.tokenizers import TOKENIZERS
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Copy:
  """Prompt 'cab=', answer 'cab'; the reward is the share of characters that are right in place."""

  is_binary = False

  def __init__(self, tokenizer: dict, num_letters: int, alphabet_size: int):
    """Draws words uniformly.

    Args:
      tokenizer: config of one of `pkpo_jax.tokenizers.TOKENIZERS`.
      num_letters: letters of a word.
      alphabet_size: how many letters of the alphabet words are made of.
    """
    expect(num_letters >= 1, 'num_letters', 'at least 1', num_letters)
    expect(1 <= alphabet_size <= 26, 'alphabet_size', '1 to 26', alphabet_size)
    expect(
      alphabet_size**num_letters < 2**31,
      'num_letters',
      'fewer than 2^31 words, alphabet_size ** num_letters',
      num_letters,
    )
    self.tokenizer = build('tokenizer', tokenizer, TOKENIZERS)
    self._num_letters = num_letters
    self._letters = string.ascii_lowercase[:alphabet_size]

  def prompts(self, step: int | jax.Array, num_prompts: int, key: Key) -> Prompts:
    """Returns words to copy; `ids` number them, `hidden` holds their letters."""
    del step
    size = len(self._letters)
    letters = host_rng(key).integers(0, size, (num_prompts, self._num_letters))
    words = [''.join(self._letters[letter] for letter in row) for row in letters]
    tokens = encode_prompts(self.tokenizer, [f'{word}=' for word in words])
    ids = (letters @ size ** np.arange(self._num_letters)).astype(np.int32)
    return Prompts(ids=ids, tokens=tokens, hidden=letters.astype(np.int32))

  def rewards(self, prompts: Prompts, rollout: Rollout, key: Key) -> Float[np.ndarray, 'P N']:
    """Returns the share of right characters; a longer answer counts as that much longer."""
    del key
    words = [''.join(self._letters[i] for i in row) for row in jax.device_get(prompts.hidden)]
    answers = decode_completions(self.tokenizer, rollout)
    return np.asarray(
      [
        [_share_right(answer, word) for answer in group]
        for group, word in zip(answers, words, strict=True)
      ],
      np.float32,
    )


def _share_right(answer: str, word: str) -> float:
  right = sum(a == b for a, b in zip(answer, word, strict=False))
  return right / max(len(answer), len(word))

"""Copying: the smallest task of text, to see a language model learn within a minute."""

import string

import jax
import numpy as np

from pkpo_jax.errors import expect
from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.tasks.text import TextTask, decode_completions, encode_prompts, host_rng
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Copy(TextTask, DrawnTask):
  """Prompt 'cab=', answer 'cab'; the reward is the share of characters that are right in place."""

  objectives = ('max@k',)

  def __init__(self, tokenizer: Tokenizer, num_letters: int = 3, alphabet_size: int = 4):
    """Draws words uniformly.

    Args:
      tokenizer: the policy's.
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
    super().__init__(tokenizer)
    self._num_letters = num_letters
    self._letters = string.ascii_lowercase[:alphabet_size]

  def draw(self, num_prompts: int, key: Key) -> Prompts:
    """Returns words to copy; `ids` number them, `hidden` holds their letters."""
    size = len(self._letters)
    letters = host_rng(key).integers(0, size, (num_prompts, self._num_letters))
    words = [''.join(self._letters[letter] for letter in row) for row in letters]
    tokens, mask = encode_prompts(self.tokenizer, [f'{word}=' for word in words])
    ids = (letters @ size ** np.arange(self._num_letters)).astype(np.int32)
    return Prompts(ids=ids, tokens=tokens, mask=mask, hidden=letters.astype(np.int32))

  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns the share of right characters; a longer answer counts as that much longer."""
    del key
    words = [''.join(self._letters[i] for i in row) for row in jax.device_get(prompts.hidden)]
    answers = decode_completions(self.tokenizer, rollout)
    shares = [
      [_share_right(answer, word) for answer in group]
      for group, word in zip(answers, words, strict=True)
    ]
    return Grades(np.asarray(shares, np.float32))


def _share_right(answer: str, word: str) -> float:
  right = sum(a == b for a, b in zip(answer, word, strict=False))
  return right / max(len(answer), len(word))

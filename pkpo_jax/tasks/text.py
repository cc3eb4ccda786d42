"""Between the text of a task and the tokens of a policy."""

import abc
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from pkpo_jax.sampling import PAD_ID, bucket
from pkpo_jax.settings import build, expect
from pkpo_jax.tasks.verifiers import Verdict, rewards_of
from pkpo_jax.tokenizers import TOKENIZERS, Tokenizer
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class TextProblems(abc.ABC):
  """A finite set of problems in text, some to train on and some held out, with a verifier.

  Attributes:
    is_binary: rewards are 0 or 1.
    tokenizer: of prompts and completions.
    num_problems: problems to train on; their ids are 0 to num_problems - 1.
    num_held_out: problems to evaluate on; their ids follow.
  """

  is_binary = True

  def __init__(self, tokenizer: dict, problems: Sequence[Any], num_held_out: int):
    """Encodes all prompts, padded to one length.

    Args:
      tokenizer: config of one of `pkpo_jax.tokenizers.TOKENIZERS`.
      problems: those to train on, then those held out.
      num_held_out: how many are held out.
    """
    self.tokenizer = build('tokenizer', tokenizer, TOKENIZERS)
    self.num_problems, self.num_held_out = len(problems) - num_held_out, num_held_out
    self._problems = tuple(problems)
    self._prompt_tokens = encode_prompts(self.tokenizer, [self.prompt_text(p) for p in problems])

  @abc.abstractmethod
  def prompt_text(self, problem: Any) -> str:
    """Returns what the policy reads."""

  @abc.abstractmethod
  def verify(self, problem: Any, completion: str) -> Verdict:
    """Returns the verdict on a completion that has come to its end."""

  @abc.abstractmethod
  def demonstrate(self, problem: Any, rng: np.random.Generator) -> str:
    """Returns a completion to imitate."""

  def prompts_of(self, ids: np.ndarray) -> Prompts:
    """Returns the problems with these ids, `[P]`."""
    return Prompts(ids=ids.astype(np.int32), tokens=self._prompt_tokens[ids], hidden=())

  def verdicts(self, prompts: Prompts, rollout: Rollout) -> list[list[Verdict]]:
    """Returns the verdict on each completion, `[P][N]`.

    One that was cut off is overlong; one with tokens that its text does not show, malformed.
    """
    tokens, masks = jax.device_get((rollout.completions, rollout.completion_mask))
    is_cut = masks[..., -1] & ~np.isin(tokens[..., -1], self.tokenizer.stop_ids)
    no_text = masks & np.isin(tokens, (PAD_ID, self.tokenizer.bos_id))
    texts = decode_completions(self.tokenizer, rollout)
    problems = [self._problems[i] for i in np.asarray(jax.device_get(prompts.ids))]

    def judge(problem, text, cut, hides):
      if cut or hides:
        return Verdict('overlong' if cut else 'malformed')
      return self.verify(problem, text)

    return [
      [judge(problem, *one) for one in zip(*group, strict=True)]
      for problem, *group in zip(problems, texts, is_cut, no_text.any(axis=-1), strict=True)
    ]

  def rewards(self, prompts: Prompts, rollout: Rollout, key: Key) -> Float[np.ndarray, 'P N']:
    """Returns 1 for a right completion, else 0."""
    del key
    return rewards_of(self.verdicts(prompts, rollout))

  def demonstrations(
    self, prompts: Prompts, num_samples: int, max_new_tokens: int, key: Key
  ) -> Rollout:
    """Returns `num_samples` demonstrations of each problem; log-probabilities are left 0."""
    rng = host_rng(key)
    texts = [
      [self.demonstrate(self._problems[i], rng) for _ in range(num_samples)] for i in prompts.ids
    ]
    return encode_completions(self.tokenizer, prompts, texts, max_new_tokens)


def distinct_problems(
  draw: Callable[[np.random.Generator], Hashable | None],
  seed: int,
  num_train: int,
  num_held_out: int,
) -> list[Any]:
  """Returns distinct problems, those to train on first; those held out do not depend on num_train.

  Args:
    draw: returns a problem, None for one that is not to be used.
    seed: of the draws.
    num_train: problems to train on.
    num_held_out: problems to hold out.

  Raises:
    ValueError: if there are not so many problems, as far as many draws can tell.
  """
  expect(seed >= 0, 'seed', 'at least 0', seed)
  expect(num_train >= 1, 'num_train', 'at least 1', num_train)
  expect(num_held_out >= 2, 'num_held_out', 'at least 2', num_held_out)
  rng, found, num_misses = np.random.default_rng(seed), {}, 0
  while len(found) < num_train + num_held_out:
    problem = draw(rng)
    if problem is None or problem in found:
      num_misses += 1
      expect(
        num_misses < 10_000,
        'num_train',
        f'fewer with num_held_out = {num_held_out}: {len(found)} distinct problems were found, '
        'then none in 10,000 draws',
        num_train,
      )
      continue
    found[problem], num_misses = None, 0
  problems = list(found)
  return problems[num_held_out:] + problems[:num_held_out]


def encode_prompts(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
  """Returns `[P, T]` int32: beginning of sequence and text, padded on the left to a bucket."""
  encoded = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
  length = bucket(max(map(len, encoded)))
  return np.asarray([[PAD_ID] * (length - len(ids)) + ids for ids in encoded], np.int32)


def encode_completions(
  tokenizer: Tokenizer, prompts: Prompts, texts: Sequence[Sequence[str]], max_new_tokens: int
) -> Rollout:
  """Returns a rollout of these texts, `[P][N]`, each with a stop token; log-probabilities are 0.

  Raises:
    ValueError: if one has more than max_new_tokens tokens with its stop token.
  """
  shape = (len(texts), len(texts[0]), max_new_tokens)
  tokens, mask = np.full(shape, PAD_ID, np.int32), np.zeros(shape, bool)
  for p, i in np.ndindex(shape[:2]):
    ids = [*tokenizer.encode(texts[p][i]), tokenizer.stop_ids[0]]
    expect(
      len(ids) <= max_new_tokens,
      'policy.max_new_tokens',
      f'at least the {len(ids)} tokens of the demonstration {texts[p][i]!r} and its end',
      max_new_tokens,
    )
    tokens[p, i, : len(ids)], mask[p, i, : len(ids)] = ids, True
  return Rollout(prompts.tokens, tokens, mask, np.zeros(shape, np.float32))


def decode_completions(tokenizer: Tokenizer, rollout: Rollout) -> list[list[str]]:
  """Returns the text of each completion, `[P][N]`; waits for the rollout."""
  tokens, masks = jax.device_get((rollout.completions, rollout.completion_mask))
  return [
    [tokenizer.decode(row[mask].tolist()) for row, mask in zip(*group, strict=True)]
    for group in zip(tokens, masks, strict=True)
  ]


def host_rng(key: jax.Array) -> np.random.Generator:
  """Returns NumPy's generator, seeded by a key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)))

"""Between the text of a task and the tokens of a policy."""

import abc
import hashlib
import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.progress import progress_if_slow
from pkpo_jax.sampling import PAD_ID, bucket
from pkpo_jax.settings import build
from pkpo_jax.tasks.grades import Verdict, rewards_of
from pkpo_jax.tasks.prompts import make_format
from pkpo_jax.tokenizers import TOKENIZERS, Tokenizer
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class TextProblems(abc.ABC):
  """A finite set of problems in text, some to train on and some held out, with a verifier.

  A subclass has `verify(problem, completion) -> Verdict`, or `verify_batch` for many at a time, and
  may have `demonstrate(problem, rng) -> str` for a supervised start.

  Attributes:
    is_binary: rewards are 0 or 1.
    tokenizer: of prompts and completions.
    num_problems: problems to train on; their ids are 0 to num_problems - 1.
    num_held_out: problems to evaluate on; their ids follow.
    fingerprint: of all problems and their tokens; a resumed run has to have the same.
  """

  is_binary = True

  def __init__(
    self,
    tokenizer: dict,
    problems: Sequence[Any],
    num_held_out: int,
    prompt_format: str = 'plain',
    max_prompt_tokens: int | None = None,
  ):
    """Encodes all prompts, padded to one length.

    Args:
      tokenizer: config of one of `pkpo_jax.tokenizers.TOKENIZERS`.
      problems: those to train on, then those held out.
      num_held_out: how many are held out.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, which says where completions end.
      max_prompt_tokens: problems with longer prompts are left out, and counted in a line that is
        printed; None keeps all.

    Raises:
      ValueError: if no problem to train on is left.
    """
    self.tokenizer = build('tokenizer', tokenizer, TOKENIZERS)
    self._format = make_format(prompt_format)
    ids = [encode_prompt(self.tokenizer, self.prompt_text(problem)) for problem in problems]
    limit = max_prompt_tokens or max(map(len, ids))
    kept = [len(one) <= limit for one in ids]
    num_train = len(problems) - num_held_out
    self.num_problems, self.num_held_out = sum(kept[:num_train]), sum(kept[num_train:])
    if not all(kept):
      print(
        f'Left out {num_train - self.num_problems} of {num_train} problems to train on and '
        f'{num_held_out - self.num_held_out} of {num_held_out} held out, whose prompts are longer '
        f'than task.max_prompt_tokens = {limit}.'
      )
    enough = 'as many as the shortest prompt of those to train on has'
    expect(self.num_problems > 0, 'max_prompt_tokens', enough, max_prompt_tokens)
    self._problems = tuple(itertools.compress(problems, kept))
    self._prompt_tokens = pad_prompts(itertools.compress(ids, kept))
    content = hashlib.sha256(repr(self._problems).encode() + self._prompt_tokens.tobytes())
    self.fingerprint = int.from_bytes(content.digest()[:6])

  @abc.abstractmethod
  def prompt_text(self, problem: Any) -> str:
    """Returns what the policy reads."""

  def verify_batch(self, problems: Sequence[Any], completions: Sequence[str]) -> list[Verdict]:
    """Returns the verdicts on completions that have come to their end, one for each problem."""
    return [self.verify(*each) for each in zip(problems, completions, strict=True)]

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
    hides = (masks & np.isin(tokens, (PAD_ID, self.tokenizer.bos_id))).any(axis=-1)
    is_cut = is_truncated(self.tokenizer, tokens, masks)
    texts = decode_completions(self.tokenizer, rollout)
    problems = [self._problems[i] for i in np.asarray(jax.device_get(prompts.ids))]
    verdicts, waiting = np.empty(is_cut.shape, object), []
    for p, i in np.ndindex(is_cut.shape):
      text, has_end = self._format.completion(texts[p][i])
      if is_cut[p, i] and not has_end:
        verdicts[p, i] = Verdict('overlong')
      elif hides[p, i]:
        verdicts[p, i] = Verdict('malformed')
      else:
        waiting.append(((p, i), problems[p], text))
    if waiting:
      places, *batch = zip(*waiting, strict=True)
      for place, verdict in zip(places, self.verify_batch(*batch), strict=True):
        verdicts[place] = verdict
    return verdicts.tolist()

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
  total = num_train + num_held_out
  with progress_if_slow(None, 'drawing problems', 'problems', total) as bar:
    while len(found) < total:
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
      bar.update()
  problems = list(found)
  return problems[num_held_out:] + problems[:num_held_out]


def encode_prompts(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
  """Returns `[P, T]` int32: beginning of sequence and text, padded on the left to a bucket."""
  return pad_prompts(encode_prompt(tokenizer, text) for text in texts)


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
  """Returns the ids of the beginning of sequence and of a text."""
  return [tokenizer.bos_id, *tokenizer.encode(text)]


def pad_prompts(encoded: Iterable[list[int]]) -> np.ndarray:
  """Returns ids `[P][any]` as `[P, T]` int32, padded on the left to a bucket."""
  encoded = list(encoded)
  length = bucket(max(map(len, encoded)))
  return np.asarray([[PAD_ID] * (length - len(ids)) + ids for ids in encoded], np.int32)


def is_truncated(tokenizer: Tokenizer, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Returns `[...]` bool, True where completions `[..., L]` have no stop token at their end."""
  return mask[..., -1] & ~np.isin(tokens[..., -1], tokenizer.stop_ids)


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

"""Between the text of a task and the tokens of a policy."""

import abc
import bisect
import hashlib
import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from pkpo_jax.data.pipeline import problem_ids
from pkpo_jax.errors import expect
from pkpo_jax.progress import progress_if_slow
from pkpo_jax.sampling import PAD_ID, bucket
from pkpo_jax.tasks.base import Task
from pkpo_jax.tasks.grades import Grades, Verdict, grades_of
from pkpo_jax.tasks.prompts import make_format
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class TextTask(Task):
  """A task whose prompts and completions are tokens of a tokenizer.

  Attributes:
    tokenizer: the policy's.
  """

  completions = 'text'
  grades_apart = True  # What is a right answer, the prompt says.

  def __init__(self, tokenizer: Tokenizer):
    """Takes the tokenizer that the policy has."""
    self.tokenizer = tokenizer

  def is_truncated(self, rollout: Rollout) -> np.ndarray:
    """Returns `[P, N]` bool, True where a completion has neither a stop token nor room for one."""
    tokens, mask = jax.device_get((rollout.completions, rollout.completion_mask))
    return is_truncated(self.tokenizer, tokens, mask)

  def texts(self, prompts: Prompts, rollout: Rollout) -> tuple[list[str], list[list[str]]]:
    """Returns prompts `[P]` and completions `[P][N]`, decoded."""
    rows, masks = jax.device_get((prompts.tokens, prompts.mask))
    decode = lambda row, mask: self.tokenizer.decode(row[mask].tolist())
    return list(map(decode, rows, masks)), decode_completions(self.tokenizer, rollout)


class TextProblems(TextTask):
  """A finite set of problems in text, some to train on and some held out, with a verifier.

  A subclass has `verify(problem, completion) -> Verdict`, or `verify_batch` for many at a time, and
  may have `demonstrate(problem, rng) -> str` for a supervised start.
  """

  def __init__(
    self,
    tokenizer: Tokenizer,
    problems: Sequence[Any],
    num_held_out: int,
    prompt_format: str = 'plain',
    max_prompt_tokens: int | None = None,
  ):
    """Encodes all prompts, padded to one length.

    Args:
      tokenizer: the policy's.
      problems: those to train on, then those held out.
      num_held_out: how many are held out.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, which says where completions end, or
        'chat', the tokenizer's own chat template.
      max_prompt_tokens: problems with longer prompts are left out, and counted in a line that is
        printed; None keeps all.

    Raises:
      ValueError: if no problem to train on is left.
    """
    super().__init__(tokenizer)
    self._format = make_format(prompt_format, tokenizer)
    ids = [encode_prompt(self.tokenizer, self.prompt_text(problem)) for problem in problems]
    limit = max_prompt_tokens or max(map(len, ids))
    kept = [len(row) <= limit for row in ids]
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
    self._tokens, self._mask = pad_prompts(itertools.compress(ids, kept))
    content = hashlib.sha256(repr(self._problems).encode() + self._tokens.tobytes())
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

  def prompts(self, step: int, num_prompts: int, key: Key) -> Prompts:
    """Returns the next prompts of the endless list that `key` orders; see `data.pipeline`."""
    return self.prompts_of(problem_ids(self.num_problems, step, num_prompts, key))

  def held_out(self, num_prompts: int, key: Key) -> Prompts:
    """Returns the first of the problems held out.

    Raises:
      ValueError: if there are fewer.
    """
    del key
    enough = f'at most task.num_held_out = {self.num_held_out}'
    expect(num_prompts <= self.num_held_out, 'eval.num_prompts', enough, num_prompts)
    return self.prompts_of(self.num_problems + np.arange(num_prompts))

  def prompts_of(self, ids: np.ndarray) -> Prompts:
    """Returns the problems with these ids, `[P]`."""
    return Prompts(
      ids=ids.astype(np.int32), tokens=self._tokens[ids], mask=self._mask[ids], hidden=()
    )

  def trim(self, rollout: Rollout) -> Rollout:
    """Returns the rollout without the tokens after the prompt format's stop text.

    The token that completes the stop text stays: to write it is what ends an answer.
    """
    if self._format.stop is None:
      return rollout
    tokens, mask = jax.device_get((rollout.completions, rollout.completion_mask))
    trimmed = mask.copy()
    for p, i in np.ndindex(mask.shape[:2]):
      ids = tokens[p, i][mask[p, i]].tolist()
      trimmed[p, i, num_tokens_to(self.tokenizer, ids, self._format.stop) :] = False
    if np.array_equal(trimmed, mask):
      return rollout
    old = rollout.completion_mask
    is_on_device = isinstance(old, jax.Array)
    return rollout.replace(
      completion_mask=jax.device_put(trimmed, old.sharding) if is_on_device else trimmed
    )

  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns the grades that the verdicts give."""
    del key
    return grades_of(self.verdicts(prompts, rollout))

  def verdicts(self, prompts: Prompts, rollout: Rollout) -> list[list[Verdict]]:
    """Returns the verdict on each completion, `[P][N]`.

    One that was cut off is overlong; one with tokens that its text does not show, malformed.
    """
    tokens, masks = jax.device_get((rollout.completions, rollout.completion_mask))
    hides = (masks & np.isin(tokens, self.tokenizer.silent_ids)).any(axis=-1)
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

  def demonstrations(
    self, prompts: Prompts, num_samples: int, max_new_tokens: int, key: Key
  ) -> Rollout:
    """Returns `num_samples` demonstrations of each problem; log-probabilities are left 0."""
    rng = host_rng(key)
    texts = [
      [self.demonstrate(self._problems[i], rng) for _ in range(num_samples)] for i in prompts.ids
    ]
    return encode_completions(self.tokenizer, prompts, texts, max_new_tokens)

  def check_demonstrations(self, max_new_tokens: int, key: Key) -> None:
    """Raises FieldError if a demonstration is too long, before its turn comes in a run."""
    prompts = self.prompts_of(np.arange(self.num_problems))
    self.demonstrations(prompts, 1, max_new_tokens, key)


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


def encode_prompts(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the tokens, beginning of sequence and text, and the mask that `pad_prompts` gives."""
  return pad_prompts(encode_prompt(tokenizer, text) for text in texts)


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
  """Returns the ids of the beginning of sequence, if the model has one, and of a text."""
  begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  ids = begin + tokenizer.encode(text)
  expect(bool(ids), 'prompt', 'at least one token, as no other begins a text', text)
  return ids


def pad_prompts(encoded: Iterable[list[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Returns ids `[P][any]` as `[P, T]` int32, padded on the left to a bucket, and their mask."""
  encoded = list(encoded)
  shape = (len(encoded), bucket(max(map(len, encoded))))
  tokens, mask = np.full(shape, PAD_ID, np.int32), np.zeros(shape, bool)
  for row, ids in enumerate(encoded):
    tokens[row, shape[1] - len(ids) :], mask[row, shape[1] - len(ids) :] = ids, True
  return tokens, mask


def num_tokens_to(tokenizer: Tokenizer, ids: Sequence[int], stop: str) -> int:
  """Returns how many of the first tokens it takes to write `stop`; all, if they never do."""
  if stop not in tokenizer.decode(ids):
    return len(ids)
  has_stop = lambda length: stop in tokenizer.decode(ids[:length])
  return bisect.bisect_left(range(len(ids)), True, key=has_stop)


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
  log_probs = np.zeros(shape, np.float32)
  return Rollout(prompts.tokens, prompts.mask, tokens, mask, log_probs)


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

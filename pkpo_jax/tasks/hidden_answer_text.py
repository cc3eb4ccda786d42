"""The hidden answer for language models: a string instead of an arm, with the same optimum.

The prompt shows the context, the right answer is one of the context's strings, drawn for each
problem from q(. | context). The policy's chance of a string is a product over its tokens and a stop
token, so it is known exactly, and with it pass@k.
"""

import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades, Verdict, grades_of
from pkpo_jax.tasks.hidden_answer import HiddenAnswer
from pkpo_jax.tasks.text import TextTask, encode_completions, encode_prompts, host_rng
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class HiddenAnswerText(TextTask, DrawnTask):
  """Prompt 'B=', answer 'cab' or another of B's strings; which one is right cannot be seen.

  Attributes:
    answers: `[C][A]`, the strings of each context.
    bandit: the same task with arms for strings.
    tokenizer: of prompts and completions.
  """

  def __init__(
    self,
    tokenizer: Tokenizer,
    seed: int = 0,
    num_contexts: int = 2,
    num_answers: int = 16,
    answer_length: int = 3,
    alphabet_size: int = 4,
    exponent: float = 1.0,
  ):
    """Draws the strings of each context.

    Args:
      tokenizer: the policy's.
      seed: of the strings.
      num_contexts: contexts, drawn uniformly; a capital letter each.
      num_answers: strings of a context, one of which is right; another context may share some.
      answer_length: letters of a string.
      alphabet_size: how many letters of the alphabet strings are made of; with few of them, many
        strings begin alike.
      exponent: string number r (from 0, rotated by the context) is right with chance
        ~ (r+1)^-exponent.
    """
    expect(seed >= 0, 'seed', 'at least 0', seed)
    expect(1 <= num_contexts <= 26, 'num_contexts', '1 to 26', num_contexts)
    expect(1 <= alphabet_size <= 26, 'alphabet_size', '1 to 26', alphabet_size)
    expect(1 <= answer_length <= 12, 'answer_length', '1 to 12', answer_length)
    num_strings = alphabet_size**answer_length
    expect(
      2 <= num_answers <= num_strings,
      'num_answers',
      f'2 to alphabet_size ** answer_length = {num_strings}',
      num_answers,
    )
    self.bandit = HiddenAnswer(num_contexts, num_answers, exponent)
    super().__init__(tokenizer)
    rng = np.random.default_rng(seed)
    places = alphabet_size ** np.arange(answer_length)
    self.answers = tuple(
      tuple(
        ''.join(string.ascii_lowercase[letter] for letter in number // places % alphabet_size)
        for number in rng.choice(num_strings, num_answers, replace=False)
      )
      for _ in range(num_contexts)
    )
    # The numbers of each context's strings, by their tokens.
    self._numbers = [
      {tuple(self.tokenizer.encode(answer)): number for number, answer in enumerate(answers)}
      for answers in self.answers
    ]
    contexts = string.ascii_uppercase[:num_contexts]
    self._prompts = encode_prompts(self.tokenizer, [f'{context}=' for context in contexts])

  def draw(self, num_prompts: int, key: Key) -> Prompts:
    """Returns the bandit's problems in text; `ids` are contexts, `hidden` the answers' numbers."""
    prompts = self.bandit.draw(num_prompts, key)
    tokens, mask = (jnp.asarray(x)[prompts.ids] for x in self._prompts)
    return prompts.replace(tokens=tokens, mask=mask)

  def verdicts(self, prompts: Prompts, rollout: Rollout) -> list[list[Verdict]]:
    """Returns the verdict on each completion, `[P][N]`; malformed is what is never right."""
    contexts, hidden = (np.asarray(x).tolist() for x in (prompts.ids, prompts.hidden))
    tokens, masks = jax.device_get((rollout.completions, rollout.completion_mask))
    return [
      [self._verdict(context, number, row[mask].tolist()) for row, mask in zip(*group, strict=True)]
      for context, number, *group in zip(contexts, hidden, tokens, masks, strict=True)
    ]

  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns 1 for the hidden answer and then the end, else 0."""
    del key
    return grades_of(self.verdicts(prompts, rollout))

  def demonstrations(
    self, prompts: Prompts, num_samples: int, max_new_tokens: int, key: Key
  ) -> Rollout:
    """Returns strings of the context, all equally likely: where the bandit begins."""
    rng = host_rng(key)
    contexts = jax.device_get(prompts.ids)
    texts = [rng.choice(self.answers[context], num_samples).tolist() for context in contexts]
    return encode_completions(self.tokenizer, prompts, texts, max_new_tokens)

  def answer_probs(self, policy: Any, params: Any) -> Float[jax.Array, 'C A']:
    """Returns the policy's chance of each string in each context.

    Raises:
      ValueError: if `policy.max_new_tokens` has no room for a string and its end.
    """
    tokens, mask = self._prompts
    prompts = Prompts(ids=np.arange(len(tokens)), tokens=tokens, mask=mask, hidden=())
    rollout = encode_completions(self.tokenizer, prompts, self.answers, policy.max_new_tokens)
    rollout = jax.tree.map(jnp.asarray, rollout)
    first_stop, *_ = self.tokenizer.stop_ids

    def ending_with(stop):
      completions = jnp.where(rollout.completions == first_stop, stop, rollout.completions)
      log_probs, _ = policy.log_probs_and_entropy(params, rollout.replace(completions=completions))
      return jnp.exp(jnp.sum(jnp.where(rollout.completion_mask, log_probs, 0), axis=-1))

    # Rounding may make a sum over stop tokens more than 1, of which there is no logarithm later.
    return jnp.minimum(sum(ending_with(stop) for stop in self.tokenizer.stop_ids), 1)

  def exact_objective(self, policy: Any, params: Any, ks: Sequence[int]) -> Float[jax.Array, 'K']:
    """Returns pass@k for each k, from the policy's chances of all strings."""
    return self.bandit.pass_at_k(self.answer_probs(policy, params), ks)

  def best_objective(self, policy: Any, k: int) -> float:
    """Returns the largest pass@k of any policy: the bandit's."""
    return self.bandit.best_objective(policy, k)

  def _verdict(self, context: int, hidden: int, ids: list[int]) -> Verdict:
    if not ids:
      return Verdict('empty')
    *body, last = ids
    if last not in self.tokenizer.stop_ids:
      return Verdict('overlong')
    if not body:
      return Verdict('empty')
    number = self._numbers[context].get(tuple(body))
    if number is None:
      return Verdict('malformed')
    return Verdict('right' if number == hidden else 'wrong', self.answers[context][number])

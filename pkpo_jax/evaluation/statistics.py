"""What the samples of a problem say beyond pass@k: majority votes, diversity, lengths."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from pkpo_jax.tasks.grades import KINDS, Grades, Verdict
from pkpo_jax.types import Rollout
from pkpo_jax.votes import MAX_VOTERS, answer_diversity, maj_at_k


def majority_votes(
  verdicts: list[list[Verdict]] | None, ks: Sequence[int]
) -> Float[np.ndarray, 'P K'] | None:
  """Returns maj@k of each problem; None if there are no verdicts or more than 1024 samples.

  It is NaN if a problem has fewer than k judged samples, or a proper answer without a form that
  can be compared with others (its `Verdict.answer` is None).
  """
  if verdicts is None or len(verdicts[0]) > MAX_VOTERS:
    return None
  curves = np.full((len(verdicts), len(ks)), np.nan)
  for p, group in enumerate(verdicts):
    judged = [verdict for verdict in group if verdict.is_judged]
    if any(verdict.kind in ('right', 'wrong') and verdict.answer is None for verdict in judged):
      continue
    able = [i for i, k in enumerate(ks) if k <= len(judged)]
    if able:
      is_right = np.asarray([[verdict.is_success for verdict in judged]])
      answers = [[verdict.answer for verdict in judged]]
      curves[p, able] = maj_at_k(answers, is_right, [ks[i] for i in able])[0]
  return curves


def sample_statistics(
  rollout: Rollout, grades: Grades, is_truncated: Bool[np.ndarray, 'P N'] | None
) -> dict[str, Float[np.ndarray, 'P']]:
  """Returns statistics of the samples of each problem, those that are known.

  Args:
    rollout: the samples, on the host.
    grades: of them.
    is_truncated: True where a completion was cut off; None where none can be.

  Returns:
    completion_tokens: mean length.
    truncation_share: share of the completions that were cut off; if any can be.
    answer_diversity: share of the wrong samples that is distinct, NaN if none is wrong; if samples
      are right or wrong. They are compared by their answers, and by their tokens if they have no
      answer. Samples that were not judged are left out.
    verdict_right, ...: share of each kind of verdict; if the task has a verifier.
  """
  tokens, mask = rollout.completions, rollout.completion_mask
  statistics = {'completion_tokens': np.mean(np.sum(mask, axis=-1), axis=-1)}
  if is_truncated is not None:
    statistics['truncation_share'] = np.mean(is_truncated, axis=-1)
  if grades.successes is not None:
    contents = [
      [row[is_token].tobytes() for row, is_token in zip(*group, strict=True)]
      for group in zip(tokens, mask, strict=True)
    ]
    if grades.verdicts is not None:
      contents = [
        [
          content if verdict.answer is None else verdict.answer
          for content, verdict in zip(*pair, strict=True)
        ]
        for pair in zip(contents, grades.verdicts, strict=True)
      ]
    successes = np.asarray(grades.successes)
    judged = np.ones(successes.shape, bool) if grades.where is None else np.asarray(grades.where)
    statistics['answer_diversity'] = answer_diversity(contents, (successes == 1) | ~judged)
  if grades.verdicts is not None:
    kinds = np.asarray([[verdict.kind for verdict in group] for group in grades.verdicts])
    statistics |= {f'verdict_{kind}': np.mean(kinds == kind, axis=-1) for kind in KINDS}
  return statistics

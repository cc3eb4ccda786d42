"""What a reader of a run should look at first: signs in its metrics that something is wrong."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pkpo_jax.runs import RunRecord, values_of

# Thresholds at which a sign is worth a look; none is a law.
_RATIO, _LOG_RATIO = 0.1, math.log(2)
_WITHOUT_SIGNAL, _TRUNCATED, _UNJUDGED, _ENTROPY = 0.8, 0.1, 0.01, 0.1


class Sign(NamedTuple):
  """A metric that tells of a problem.

  Attributes:
    metrics: the first of these that a run has.
    is_bad: fn(last values, first value) -> whether it does.
    text: what was seen, with {value}, and what it may mean.
  """

  metrics: Sequence[str]
  is_bad: Callable[[float, float], bool]
  text: str


_SIGNS = (
  Sign(
    ('train/ratio_mean',),
    lambda value, first: abs(value - 1) > _RATIO,
    'The mean ratio of the policy to the one that sampled is {value:.3g}, far from 1: the samples '
    'are those of another policy, or sampler and trainer do not agree.',
  ),
  Sign(
    ('train/log_ratio_max',),
    lambda value, first: value > _LOG_RATIO,
    'Single tokens have a log ratio of up to {value:.3g}: sampler and trainer may not agree, or '
    'the policy moves far in a step.',
  ),
  Sign(
    ('train/zero_advantage_share',),
    lambda value, first: value > _WITHOUT_SIGNAL,
    'A share of {value:.0%} of the prompts gives no signal: the advantages of all of their samples '
    'are 0, as where all are right, or none.',
  ),
  Sign(
    ('eval/truncation_share', 'train/verdict_overlong'),
    lambda value, first: value > _TRUNCATED,
    'A share of {value:.0%} of the completions is cut off at policy.max_new_tokens.',
  ),
  Sign(
    ('train/verdict_unjudged', 'eval/verdict_unjudged'),
    lambda value, first: value > _UNJUDGED,
    'The judge came to no verdict on {value:.1%} of the samples, which are left out.',
  ),
  Sign(
    ('train/skipped_updates',),
    lambda value, first: value > 0,
    '{value:.0f} updates were skipped, as their gradients were not finite.',
  ),
  Sign(
    ('train/entropy',),
    lambda value, first: first > 0 and value < _ENTROPY * first,
    'The entropy has fallen to {value:.3g}, below a tenth of what it was: samples are nearly all '
    'alike, and pass@k comes near to pass@1.',
  ),
)


def findings_of(record: RunRecord) -> list[str]:
  """Returns what is to be looked at in a run, in sentences; a metric counts with its last tenth."""
  found = [record.problem] if record.problem else []
  if record.state == 'stopped':
    reached = f'{record.step} of {record.num_train_steps}'
    found.append(f'The run has stopped after {reached} steps; the same command resumes it.')
  for sign in _SIGNS:
    values = next(filter(None, (values_of(record, metric) for metric in sign.metrics)), None)
    if values:
      last = [value for _, value in values[-max(1, len(values) // 10) :]]
      value = max(last) if 'max' in sign.metrics[0] else sum(last) / len(last)
      if sign.is_bad(value, values[0][1]):
        found.append(sign.text.format(value=value))
  return found

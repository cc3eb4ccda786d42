"""Advantages: rewards `[..., n]` and k in, advantages `[..., n]` for a mean-over-samples loss out.

`ADVANTAGES` maps the names that configs use to the functions. All are called as
`fn(rewards, *, k, where=None)`; some need more, as named arguments without a default, all of which
`FROM_ROLLOUT` lists: `key` (`passk_bootstrap`), `entropy` (`passk_adaptive`), `ratios`
(`max_at_k_off_policy`), `baseline_weights` (`pkpo_weighted_loo`), `answers` (`maj_at_k`).

k may also be an integer array with one for each group; `passk_adaptive`, which compares groups,
takes one for all.

The last axis is one prompt's samples. Flat rewards `[P * n]` are taken for a single group of P * n
samples: reshape them to `[P, n]`, or call `pkpo_jax.by_group`.

A group with a NaN or an infinite reward gets NaN for all its samples; other groups do not notice.
`where=jnp.isfinite(rewards)` leaves such samples out: they get 0 and their group is that of the
others.
"""

from typing import Literal, NamedTuple

from pkpo_jax.advantages.majority import maj_at_k
from pkpo_jax.advantages.order_statistics import order_statistic, pass_hat_k
from pkpo_jax.advantages.passk_training import (
  passk_adaptive,
  passk_analytical,
  passk_bootstrap,
  passk_combination,
  passk_exceeding,
  passk_full_sampling,
)
from pkpo_jax.advantages.pkpo import (
  pkpo,
  pkpo_centered,
  pkpo_loo,
  pkpo_loo_minus_one,
  pkpo_weighted_loo,
)
from pkpo_jax.advantages.relatives import (
  f_grpo,
  grpo,
  max_at_k_off_policy,
  maxrl,
  mean_centered,
  reinforce,
  rloo,
  rs_grpo,
  tailrl,
  tzsm,
)
from pkpo_jax.errors import Choices

ADVANTAGES = Choices(
  {
    'pkpo': pkpo,
    'pkpo_loo': pkpo_loo,
    'pkpo_loo_minus_one': pkpo_loo_minus_one,
    'pkpo_centered': pkpo_centered,
    'pkpo_weighted_loo': pkpo_weighted_loo,
    'passk_analytical': passk_analytical,
    'passk_bootstrap': passk_bootstrap,
    'passk_full_sampling': passk_full_sampling,
    'passk_exceeding': passk_exceeding,
    'passk_combination': passk_combination,
    'passk_adaptive': passk_adaptive,
    'tzsm': tzsm,
    'reinforce': reinforce,
    'rloo': rloo,
    'grpo': grpo,
    'mean_centered': mean_centered,
    'maxrl': maxrl,
    'tailrl': tailrl,
    'rs_grpo': rs_grpo,
    'f_grpo': f_grpo,
    'order_statistic': order_statistic,
    'pass_hat_k': pass_hat_k,
    'maj_at_k': maj_at_k,
    'max_at_k_off_policy': max_at_k_off_policy,
  }
)

# What some need beside rewards and k, and the trainer works out for them.
FROM_ROLLOUT = frozenset({'key', 'entropy', 'ratios', 'baseline_weights', 'answers'})


class Requirements(NamedTuple):
  """What an advantage needs to learn at all.

  Attributes:
    min_samples: samples per group; with fewer it is undefined or always 0.
    rewards: 'binary', 0 or 1; 'nonnegative'; or 'any'.
    one_k: whether all groups need the same k.
  """

  min_samples: int = 2
  rewards: Literal['any', 'nonnegative', 'binary'] = 'any'
  one_k: bool = False


REQUIREMENTS = dict.fromkeys(ADVANTAGES, Requirements()) | {
  # Those without a baseline learn from a single sample.
  'pkpo': Requirements(min_samples=1),
  'reinforce': Requirements(min_samples=1),
  'max_at_k_off_policy': Requirements(min_samples=1),
  'maxrl': Requirements(rewards='binary'),
  'tailrl': Requirements(rewards='nonnegative'),
  # It compares groups.
  'passk_adaptive': Requirements(one_k=True),
}

# Written out for type checkers and editors.
__all__ = [
  'ADVANTAGES',
  'FROM_ROLLOUT',
  'REQUIREMENTS',
  'Requirements',
  'f_grpo',
  'grpo',
  'maj_at_k',
  'max_at_k_off_policy',
  'maxrl',
  'mean_centered',
  'order_statistic',
  'pass_hat_k',
  'passk_adaptive',
  'passk_analytical',
  'passk_bootstrap',
  'passk_combination',
  'passk_exceeding',
  'passk_full_sampling',
  'pkpo',
  'pkpo_centered',
  'pkpo_loo',
  'pkpo_loo_minus_one',
  'pkpo_weighted_loo',
  'reinforce',
  'rloo',
  'rs_grpo',
  'tailrl',
  'tzsm',
]

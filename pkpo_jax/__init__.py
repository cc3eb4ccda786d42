"""Policy gradients for pass@k and max@k in JAX: the kernels.

Importing this package needs jax and jaxtyping alone; the trainer lives in its submodules.

Rewards are `[..., n]`: the last axis holds the n samples of one prompt. Flat rewards `[P * n]`, as
other libraries hand them over, would be taken for one group of P * n samples: reshape them, or use
`by_group(rewards, prompt_ids, fn, ...)`.
"""

from pkpo_jax import advantages, losses, schedules
from pkpo_jax.advantages import *  # noqa: F403 Every advantage, under its name.
from pkpo_jax.estimators import (
  max_at_k,
  min_at_k,
  order_statistic_at_k,
  pass_at_k,
  pass_at_k_curve,
  standard_error,
)
from pkpo_jax.groups import by_group
from pkpo_jax.intervals import (
  Interval,
  bootstrap_interval,
  few_problems,
  mean_interval,
  paired_bootstrap,
  paired_interval,
)
from pkpo_jax.ranks import STATISTICS
from pkpo_jax.reweighting import WeightCurve, weight_curve
from pkpo_jax.schedules import SCHEDULES
from pkpo_jax.weights import subset_weights

__version__ = '0.2.0'

__all__ = [
  'Interval',
  'SCHEDULES',
  'STATISTICS',
  'WeightCurve',
  'bootstrap_interval',
  'by_group',
  'few_problems',
  'losses',
  'max_at_k',
  'mean_interval',
  'min_at_k',
  'order_statistic_at_k',
  'paired_bootstrap',
  'paired_interval',
  'pass_at_k',
  'pass_at_k_curve',
  'schedules',
  'standard_error',
  'subset_weights',
  'weight_curve',
]
__all__ += advantages.__all__

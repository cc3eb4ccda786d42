"""Policy gradients for pass@k and max@k in JAX: the kernels.

Importing this package needs jax and jaxtyping alone; the trainer lives in its submodules.
"""

from pkpo_jax.advantages import (
  ADVANTAGES,
  grpo,
  max_at_k_off_policy,
  maxrl,
  mean_centered,
  passk_adaptive,
  passk_analytical,
  passk_bootstrap,
  passk_combination,
  passk_exceeding,
  passk_full_sampling,
  pkpo,
  pkpo_centered,
  pkpo_loo,
  pkpo_loo_minus_one,
  reinforce,
  rloo,
  rs_grpo,
  tailrl,
  tzsm,
)
from pkpo_jax.estimators import max_at_k, pass_at_k, pass_at_k_curve, standard_error
from pkpo_jax.intervals import (
  Interval,
  bootstrap_interval,
  few_problems,
  mean_interval,
  paired_bootstrap,
  paired_interval,
)
from pkpo_jax.weights import subset_weights

__version__ = '0.1.0'

__all__ = [
  'ADVANTAGES',
  'Interval',
  'bootstrap_interval',
  'few_problems',
  'grpo',
  'max_at_k',
  'max_at_k_off_policy',
  'maxrl',
  'mean_centered',
  'mean_interval',
  'paired_bootstrap',
  'paired_interval',
  'pass_at_k',
  'pass_at_k_curve',
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
  'reinforce',
  'rloo',
  'rs_grpo',
  'standard_error',
  'subset_weights',
  'tailrl',
  'tzsm',
]

r"""Advantages for the GRPO learner of google-tunix.

    from pkpo_jax.integrations import tunix

    name = tunix.register('pkpo_loo_minus_one', k=8)
    config = GRPOConfig(num_generations=16, advantage_estimator=name, beta=0.0)

tunix hands over flat rewards, one prompt's samples after the other's, once a micro-batch.
"""

from typing import Any

import numpy as np

from pkpo_jax.errors import MissingPackageError, expect
from pkpo_jax.integrations.flat import FlatAdvantages, as_numpy
from pkpo_jax.schedules import Schedule


def register(
  name: str, k: int | Schedule = 1, calls_per_step: int = 1, seed: int = 0, **options
) -> str:
  """Makes an advantage known to tunix, and returns the name to give as `advantage_estimator`.

  Args:
    name: a key of `pkpo_jax.ADVANTAGES`; one that takes rewards alone.
    k: an int or a schedule; see `FlatAdvantages`.
    calls_per_step: micro-batches of prompts in a step, for a schedule.
    seed: of advantages that draw.
    **options: of the advantage.

  Raises:
    FieldError: if a name or value is none.
    MissingPackageError: if tunix is not installed.
  """
  estimator = make_estimator(FlatAdvantages(name, k, calls_per_step, seed, **options))
  try:
    from tunix.rl import function_registry
  except ImportError as error:
    raise MissingPackageError(
      f'google-tunix cannot be imported: pip install google-tunix ({error}).'
    ) from error
  function_registry.register_advantage_estimator(f'pkpo_jax/{name}')(estimator)
  return f'pkpo_jax/{name}'


def make_estimator(advantages: FlatAdvantages) -> Any:
  """Returns fn(rewards `[P * N]`, num_generations) -> `[P * N]`, as tunix calls it."""

  def estimator(rewards: Any, num_generations: int, **unused: Any) -> np.ndarray:
    del unused  # Of newer versions.
    rewards = as_numpy(rewards)
    expect(
      rewards.ndim == 1 and rewards.size % num_generations == 0,
      'rewards',
      f'shape [P * N] with N = num_generations = {num_generations}',
      rewards.shape,
    )
    return advantages(rewards, np.arange(rewards.size) // num_generations)

  return estimator

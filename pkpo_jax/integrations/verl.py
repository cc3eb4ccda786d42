r"""Advantages for verl.

In a file that its trainer imports before it starts:

    from pkpo_jax.integrations import verl

    verl.register('pkpo_loo_minus_one', k=8)

and then `algorithm.adv_estimator=pkpo_loo_minus_one actor_rollout_ref.rollout.n=16`. verl calls it
once a step with all samples, each with the id of its prompt.
"""

from typing import Any

import numpy as np

from pkpo_jax.errors import FieldError, MissingPackageError
from pkpo_jax.integrations.flat import FlatAdvantages, as_numpy, like
from pkpo_jax.schedules import Schedule


def register(name: str, k: int | Schedule = 1, seed: int = 0, **options) -> None:
  """Makes an advantage known to verl, by its name here.

  Args:
    name: a key of `pkpo_jax.ADVANTAGES` that takes rewards alone, and is none of verl's own.
    k: an int or a schedule; see `FlatAdvantages`.
    seed: of advantages that draw.
    **options: of the advantage.

  Raises:
    FieldError: if a name or value is none, or verl has an estimator of this name.
    MissingPackageError: if verl is not installed.
  """
  estimator = make_estimator(FlatAdvantages(name, k, seed=seed, **options))
  try:
    from verl.trainer.ppo import core_algos
  except ImportError as error:
    raise MissingPackageError(f'verl cannot be imported: {error}.') from error
  try:
    core_algos.register_adv_est(name)(estimator)
  except ValueError as error:
    raise FieldError('name', f'expected one that verl does not have, got {name!r}.') from error


def make_estimator(advantages: FlatAdvantages) -> Any:
  """Returns fn(token_level_rewards, response_mask, index, config) as verl calls it.

  It returns advantages and returns, both `[B, L]`: the advantage of a sample at each of its tokens,
  which verl takes as both for rewards of whole samples.
  """

  def estimator(
    token_level_rewards: Any, response_mask: Any, index: Any = None, **unused: Any
  ) -> tuple[Any, Any]:
    del unused  # The config, and what other estimators take.
    if index is None:
      raise FieldError('index', 'expected the id of each prompt, which verl has as uid; got None.')
    mask = as_numpy(response_mask)
    rewards = as_numpy(token_level_rewards).sum(axis=-1)
    by_token = advantages(rewards, np.asarray(index))[:, None] * mask.astype(np.float32)
    result = like(by_token, token_level_rewards)
    return result, result

  return estimator

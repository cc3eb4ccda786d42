r"""Advantages for the GRPOTrainer of TRL.

    from pkpo_jax.integrations import FlatAdvantages, trl
    from trl import GRPOConfig, GRPOTrainer

    Trainer = trl.with_advantages(GRPOTrainer, FlatAdvantages('pkpo_loo_minus_one', k=8))
    trainer = Trainer(model, reward_funcs=..., args=GRPOConfig(num_generations=16, beta=0.0), ...)

To return advantages from a reward function would not do: TRL takes the mean of a group off, and of
most advantages here that changes the gradient's expectation.
"""

from typing import Any

import numpy as np

from pkpo_jax.errors import FieldTypeError, expect
from pkpo_jax.integrations.flat import FlatAdvantages, as_numpy, like

_METHODS = ('_calculate_rewards', '_generate_and_score_completions')


def with_advantages(trainer: type, advantages: FlatAdvantages) -> type:
  """Returns a subclass of GRPOTrainer, or of one of its kind, that trains with other advantages.

  The rewards of several reward functions are added up with TRL's weights. A sample for which all
  returned None was not judged. The samples of a prompt stand one after the other, in all processes
  together, as TRL's sampler lays them out. Evaluations are as TRL makes them; so are its logs,
  but for what it has trained with.

  Args:
    trainer: the class.
    advantages: of flat rewards.

  Raises:
    FieldTypeError: if the class does not work as GRPOTrainer does.
  """
  for method in _METHODS:
    if not hasattr(trainer, method):
      raise FieldTypeError('trainer', f'expected a GRPOTrainer, but {trainer} has no {method}.')

  class WithAdvantages(trainer):
    """Trains with `FlatAdvantages`."""

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
      self._rewards_per_func = super()._calculate_rewards(*args, **kwargs)
      return self._rewards_per_func

    def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
      output = super()._generate_and_score_completions(*args, **kwargs)
      if self.model.training:
        weights = as_numpy(self.reward_weights)
        all_of_them = flat_advantages(
          advantages, as_numpy(self._rewards_per_func), weights, self.num_generations
        )
        old = output['advantages']
        first = self.accelerator.process_index * len(old)
        output['advantages'] = like(all_of_them[first : first + len(old)], old)
      return output

  WithAdvantages.__name__ = WithAdvantages.__qualname__ = f'{trainer.__name__}WithAdvantages'
  return WithAdvantages


def flat_advantages(
  advantages: FlatAdvantages, rewards_per_func: np.ndarray, weights: np.ndarray, num_samples: int
) -> np.ndarray:
  """Returns `[S]` the advantages of weighted sums of rewards `[S, F]`, NaN where there is none."""
  expect(
    len(rewards_per_func) % num_samples == 0,
    'rewards',
    f'a multiple of num_generations = {num_samples} samples',
    len(rewards_per_func),
  )
  rewards = np.nansum(rewards_per_func * weights, axis=1)
  rewards[np.isnan(rewards_per_func).all(axis=1)] = np.nan
  return advantages(rewards, np.arange(len(rewards)) // num_samples)

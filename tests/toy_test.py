"""Trainings of toy problems in lanes, and the baselines that only experiments have."""

import math

import numpy as np
import pytest

from configs import bandit
from experiments import toy
from experiments.head_to_head.sweep import maxrl_pkpo
from pkpo_jax.run import make_run


def _config(**fields):
  config = bandit.get_config('hidden_answer')
  small = {'num_train_steps': 4, 'rollout.num_prompts': 8, 'rollout.num_samples': 4}
  small |= {'advantage.k': 2, 'eval.ks': (1, 2), 'optimizer.name': 'sgd'}
  config.update_from_flattened_dict(small | fields)
  return config


def test_a_lane_has_its_own_seed_and_learning_rate():
  run = make_run(_config(**{'optimizer.learning_rate': 1.0}))
  found = toy.train_run(run, [3, 0], [0.5, 2.0], log_every=2)
  assert found.objective.shape == (2, 3, 2) and found.zero_advantage_share.shape == (2, 2)
  for lane, (seed, rate) in enumerate([(3, 0.5), (0, 2.0)]):
    config = _config(**{'optimizer.learning_rate': rate})
    _, expected = toy.train_seeds(config, [seed], log_every=2)
    np.testing.assert_allclose(found.objective[lane], expected[0], rtol=1e-5)
  assert np.all((found.zero_advantage_share > 0) & (found.zero_advantage_share < 1))


def test_rows_of_the_end_name_the_first_record_near_the_optimum():
  run = make_run(_config())
  best = run.task.best_objective(run.policy, 1)
  objective = np.zeros((2, 3, 2))
  objective[:, :, 0] = best * np.array([[0.1, 0.94, 1.0], [0.1, 0.98, 1.0]])
  curves = toy.Curves(np.array([0, 2, 4]), objective, np.full((2, 2), 0.25))
  first, second = toy.end_rows(run, curves)
  assert first['steps_to_95_percent'] == 2 and second['steps_to_95_percent'] is None
  assert first['pass_at_k'] == pytest.approx(best) and first['zero_advantage_share'] == 0.25


def test_noise_of_the_gradient_falls_with_the_root_of_the_batch():
  noise = [
    toy.gradient_noise(make_run(_config(**{'rollout.num_prompts': count})), 1024)['noise_at_start']
    for count in (64, 256)
  ]
  assert noise[0] / noise[1] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize('n, k', [(4, 2), (8, 8), (16, 8)])
@pytest.mark.parametrize('p', [0.1, 0.5])
def test_what_maxrl_calls_pkpo_has_another_objective(n, k, p):
  counts = np.arange(n + 1)
  rewards = np.tri(n + 1, n, -1, dtype=np.float32)
  chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in counts]
  found = (np.asarray(maxrl_pkpo(rewards, k)) * (rewards - p)).mean(axis=-1) @ chances
  slope = lambda k: k * (1 - p) ** (k - 1) * p * (1 - p)  # Of pass@k in the logit.
  expected = n / ((n - 1) * k) * ((1 - k / n) * slope(k) + k / n * slope(k - 1))
  assert found == pytest.approx(expected, rel=1e-5)

"""The noise of a gradient from products of scores is that of the gradients themselves."""

import numpy as np
import pytest

from experiments.gradient_noise import sweep
from pkpo_jax import pkpo_centered, pkpo_loo_minus_one


@pytest.mark.parametrize('k', [1, 4])
def test_noise_is_the_variance_of_gradients(k):
  rng = np.random.default_rng(0)
  count, n = 512, 8
  rewards = (rng.random(count) < 0.2).astype(np.float32)
  scores = rng.normal(size=(count, 5)) + rewards[:, None]
  gram = scores @ scores.T
  pool = {'gram': gram, 'norm': np.diag(gram), 'surprise': np.ones(count), 'length': np.ones(count)}
  config = {'num_samples': n, 'num_groups': 4096, 'pool': count}
  found = sweep.noise_of(pool, rewards, k, config)
  assert found.keys() == sweep.WEIGHTS.keys()
  groups = np.array([rng.choice(count, n, replace=False) for _ in range(4096)])
  for name, fn in (('loo_minus_one', pkpo_loo_minus_one), ('centered', pkpo_centered)):
    gradients = np.einsum('gi,gid->gd', np.asarray(fn(rewards[groups], k=k)), scores[groups]) / n
    expected = gradients.var(axis=0).sum()
    assert found[name] == pytest.approx(expected, rel=0.1), name
  # Weights that are all alike.
  for name in ('weighted by surprise', 'weighted by length'):
    assert found[name] == pytest.approx(found['weighted alike'], rel=1e-6)

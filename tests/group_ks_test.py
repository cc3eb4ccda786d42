"""An own k for each group: what each group gets alone, in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from advantage_cases import USES_K, extra_arguments

from pkpo_jax import (
  ADVANTAGES,
  REQUIREMENTS,
  max_at_k,
  min_at_k,
  order_statistic_at_k,
  pkpo_loo_minus_one,
)
from pkpo_jax.errors import FieldError, FieldTypeError

KS = np.array([[1, 2, 5], [3, 4, 2]])
NAMES = sorted(name for name in USES_K if not REQUIREMENTS[name].one_k)


def rewards_of(shape):
  return np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)


def where_of(shape):
  return np.random.default_rng(1).random(shape) < 0.9


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('masked', [False, True])
def test_each_group_gets_what_it_gets_alone(name, masked):
  rewards = rewards_of((2, 3, 6))
  where = where_of(rewards.shape) if masked else None
  extra = extra_arguments(name, rewards)
  keys = jax.random.split(extra['key'], 6).reshape(2, 3) if 'key' in extra else None
  actual = ADVANTAGES[name](rewards, k=jnp.asarray(KS), where=where, **extra)
  assert actual.shape == rewards.shape
  for at in np.ndindex(KS.shape):
    own = {x: keys[at] if x == 'key' else value[at] for x, value in extra.items()}
    mask = None if where is None else where[at]
    expected = ADVANTAGES[name](rewards[at], k=jnp.int32(KS[at]), where=mask, **own)
    np.testing.assert_allclose(actual[at], expected, rtol=1e-5, atol=1e-5)


def test_one_k_is_asked_for_by_those_that_compare_prompts():
  assert {name for name, needs in REQUIREMENTS.items() if needs.one_k} == {'passk_adaptive'}


@pytest.mark.parametrize('name', sorted(set(ADVANTAGES) - USES_K))
def test_those_without_a_k_take_any(name):
  rewards = rewards_of((2, 3, 6)) // 2  # Some of them take 0 and 1 alone.
  with_ks = ADVANTAGES[name](rewards, k=jnp.asarray(KS))
  np.testing.assert_array_equal(with_ks, ADVANTAGES[name](rewards))


@pytest.mark.parametrize('estimate', [max_at_k, min_at_k, order_statistic_at_k])
def test_estimates(estimate):
  rewards = rewards_of((2, 3, 6))
  expected = [[estimate(rewards[i, j], int(KS[i, j])) for j in range(3)] for i in range(2)]
  np.testing.assert_allclose(estimate(rewards, KS), expected, rtol=1e-6, atol=1e-6)


def test_one_program_serves_all_ks():
  num_traces = 0

  @jax.jit
  def advantages(rewards, k):
    nonlocal num_traces
    num_traces += 1
    return pkpo_loo_minus_one(rewards, k=k)

  rewards = rewards_of((4, 6))
  for k in ([1, 2, 3, 4], [6, 6, 1, 2], [0, 7, 2, 2]):
    found = advantages(rewards, jnp.array(k))
    for row, own in enumerate(k):
      expected = pkpo_loo_minus_one(rewards[row], k=own) if 1 <= own <= 6 else np.zeros(6)
      np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)
  assert num_traces == 1


def test_wrong_ks(no_type_checker):
  del no_type_checker
  rewards = rewards_of((4, 6))
  with pytest.raises(FieldError, match=r'k: expected an integer, or one for each group, shape'):
    pkpo_loo_minus_one(rewards, k=np.array([1, 2]))
  with pytest.raises(FieldTypeError, match='k: expected integers, got dtype float'):
    pkpo_loo_minus_one(rewards, k=np.ones(4))
  with pytest.raises(FieldError, match='k: expected 1 <= k <= n = 6, got 7'):
    pkpo_loo_minus_one(rewards, k=np.array([1, 7, 2, 0]))
  with pytest.raises(FieldTypeError, match=r'k: expected an integer scalar, got .* shape \(4,\)'):
    ADVANTAGES['passk_adaptive'](rewards, k=jnp.ones(4, jnp.int32), entropy=np.zeros(4, np.float32))

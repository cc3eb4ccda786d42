"""What the tests need to call every advantage alike, and where each is defined."""

import collections
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from pkpo_jax import ADVANTAGES, REQUIREMENTS, groups

# More samples than are ranked by counting pairs: the sorting path.
LARGE_N = groups.COUNTING_MAX_N + 1
# Undefined at k = n: a Python int raises, a traced one gives 0.
BELOW_N = {'pkpo_loo', 'pkpo_centered', 'order_statistic', 'pass_hat_k', 'maj_at_k'}
# Undefined for n = 1: nothing is left once a sample is left out.
NEEDS_OTHERS = BELOW_N | {'pkpo_loo_minus_one', 'pkpo_weighted_loo', 'rloo', 'tzsm'}
USES_K = {
  name
  for name, fn in ADVANTAGES.items()
  if inspect.signature(fn).parameters['k'].default is inspect.Parameter.empty
}


def extra_arguments(name, rewards, *, neutral=False):
  """Returns the arguments beside rewards, k and where that an advantage asks for.

  Args:
    name: key of ADVANTAGES.
    rewards: `[..., n]`, gives shapes.
    neutral: whether to ask for values that single out no sample and no prompt.
  """
  rewards = np.asarray(rewards)
  rng = np.random.default_rng(rewards.size)
  parameters = inspect.signature(ADVANTAGES[name]).parameters
  extra = {}
  if 'key' in parameters:
    extra['key'] = jax.random.key(3)
  if 'entropy' in parameters:
    entropy = rng.permutation(rewards[..., 0].size).reshape(rewards.shape[:-1])
    extra['entropy'] = jnp.asarray(entropy, jnp.float32)
  if 'ratios' in parameters:
    ratios = np.ones(rewards.shape) if neutral else rng.uniform(0.5, 1.5, rewards.shape)
    extra['ratios'] = jnp.asarray(ratios, jnp.float32)
  if 'baseline_weights' in parameters:
    # Eighths, so that sums are exact; without a zero, as then another advantage is taken.
    weights = np.ones(rewards.shape) if neutral else rng.integers(1, 9, rewards.shape) / 8
    extra['baseline_weights'] = jnp.asarray(weights, jnp.float32)
  if 'answers' in parameters:
    numbers = rng.integers(-1, 3, rewards.shape)
    alike = np.broadcast_to(np.arange(rewards.shape[-1]), rewards.shape)
    extra['answers'] = jnp.asarray(alike if neutral else numbers, jnp.int32)
  return extra


def bind(name, rewards, **kwargs):
  """Returns the advantage as a function of (rewards, k, where), its extra arguments bound."""
  fn = functools.partial(ADVANTAGES[name], **extra_arguments(name, rewards, **kwargs))
  return lambda rewards, k, where=None: fn(rewards, k=k, where=where)


# How often each advantage was traced by `compiled`.
num_traces = collections.Counter()


@functools.cache
def compiled(name):
  """Returns the advantage as one jitted function of (rewards, k, where, extra) for all tests."""

  def traced(rewards, k, where, extra):
    num_traces[name] += 1
    return ADVANTAGES[name](rewards, k=k, where=where, **extra)

  return jax.jit(traced)


def bind_compiled(name, rewards, **kwargs):
  """Returns `bind` of the advantage that is compiled once for all tests; k is traced."""
  extra = extra_arguments(name, rewards, **kwargs)
  return lambda rewards, k, where=None: compiled(name)(rewards, k, where, extra)


def allowed_ks(name, n):
  """Returns the k in 1..n for which the advantage is defined."""
  return range(1, n) if name in BELOW_N else range(1, n + 1)


def suited(name, rewards):
  """Returns rewards in the domain of an advantage, made from any."""
  domain = REQUIREMENTS[name].rewards
  if domain == 'binary':
    return (rewards >= 1).astype(rewards.dtype)
  return np.abs(rewards) if domain == 'nonnegative' else rewards


def groups_of(n, *, nonnegative=False):
  """Returns `[B, n]` float64: groups of rewards, distinct and tied, of both signs, binary, equal.

  All are multiples of 1/64, so that float32 holds them exactly.
  """
  rng = np.random.default_rng(n)
  rows = [
    rng.normal(size=n),
    10 * rng.normal(size=n) - 30,
    rng.integers(-2, 3, n),
    rng.integers(0, 2, n),
    np.arange(n) == n // 2,
    np.arange(n) != n // 2,
    np.arange(n, 0, -1) / 2,
    np.zeros(n),
    np.full(n, -1.25),
  ]
  rewards = np.round(np.array(rows, np.float64) * 64) / 64
  return np.abs(rewards) if nonnegative else rewards

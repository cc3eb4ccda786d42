"""The kernels in a loop of one's own, with types: a softmax bandit that learns for pass@4.

python examples/own_loop.py
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import pkpo_jax
from pkpo_jax import schedules

NUM_ARMS, NUM_SAMPLES, NUM_STEPS = 16, 8, 200
RIGHT = jnp.arange(NUM_ARMS) == 3

Advantage = Callable[..., jax.Array]


def loss(
  logits: jax.Array, arms: jax.Array, rewards: jax.Array, k: jax.Array, fn: Advantage
) -> jax.Array:
  """Returns the policy-gradient loss of one group of samples."""
  log_probs = jax.nn.log_softmax(logits)[arms]
  return -jnp.mean(fn(rewards, k=k) * log_probs)


@jax.jit
def step(logits: jax.Array, key: jax.Array, k: jax.Array) -> jax.Array:
  """Returns the logits after a step of gradient descent; k is traced, so it may change."""
  arms = jax.random.categorical(key, logits, shape=(NUM_SAMPLES,))
  rewards = RIGHT[arms].astype(jnp.float32)
  gradient: jax.Array = jax.grad(loss)(logits, arms, rewards, k, pkpo_jax.pkpo_loo_minus_one)
  return logits - gradient


def main() -> None:
  """Trains with a k that falls from 4 to 1, and prints pass@k with its interval."""
  schedule: schedules.Schedule = schedules.linear(4, final_k=1, end=NUM_STEPS)
  logits, key = jnp.zeros(NUM_ARMS), jax.random.key(0)
  for i in range(NUM_STEPS):
    logits = step(logits, jax.random.fold_in(key, i), schedule(i))
  arms = jax.random.categorical(jax.random.key(1), logits, shape=(64, NUM_SAMPLES))
  solved: jax.Array = pkpo_jax.pass_at_k_curve(RIGHT[arms], [1, 4])
  interval: pkpo_jax.Interval = pkpo_jax.mean_interval(solved, jax.random.key(2))
  for j, k in enumerate((1, 4)):
    low, high = float(interval.low[j]), float(interval.high[j])
    print(f'pass@{k}: {float(interval.mean[j]):.3f}, 95 % interval [{low:.3f}, {high:.3f}]')


if __name__ == '__main__':
  main()

"""The hidden answer: hedging under uncertainty, the mechanism behind pass@k, with a known optimum.

Each problem draws its right arm h from q(. | context), which the policy cannot see, and all n
samples of the problem share h. Then pass@k(pi) = sum_h q_h (1 - (1 - pi_h)^k): for k = 1 the best
policy puts all its mass on the mode of q, for larger k it spreads.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pkpo_jax.errors import expect
from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class HiddenAnswer(DrawnTask):
  """A bandit with 0/1 rewards whose right arm is hidden and drawn anew for each problem."""

  completions = 'arms'

  def __init__(self, num_contexts: int = 4, num_arms: int = 16, exponent: float = 1.0):
    """Lets arm number r (from 0, rotated by the context) be right with chance ~ (r+1)^-exponent.

    Args:
      num_contexts: contexts, drawn uniformly; each has its own order of the arms.
      num_arms: arms V.
      exponent: how uneven q is; 0 is uniform.
    """
    expect(num_contexts >= 1, 'num_contexts', 'at least 1', num_contexts)
    expect(num_arms >= 2, 'num_arms', 'at least 2', num_arms)
    expect(exponent >= 0, 'exponent', 'a number >= 0', exponent)
    self.num_contexts = num_contexts
    self.num_arms = num_arms
    by_rank = np.arange(1, num_arms + 1, dtype=np.float64) ** -exponent
    by_rank /= by_rank.sum()
    # q[c, h]: the chance that arm h is right in context c.
    self.answer_probs = np.stack([np.roll(by_rank, context) for context in range(num_contexts)])

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def draw(self, num_prompts: int, key: Key) -> Prompts:
    """Returns problems with a context to see and a right arm to guess."""
    context_key, answer_key = jax.random.split(key)
    contexts = jax.random.randint(context_key, (num_prompts,), 0, self.num_contexts)
    log_q = jnp.log(jnp.asarray(self.answer_probs, jnp.float32))
    answers = jax.random.categorical(answer_key, log_q[contexts])
    tokens = contexts[:, None]
    mask = jnp.ones(tokens.shape, bool)
    return Prompts(ids=contexts, tokens=tokens, mask=mask, hidden=answers)

  @functools.partial(jax.jit, static_argnums=0)
  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns 1 for the hidden arm, 0 for the others."""
    del key
    is_right = (rollout.completions[..., 0] == prompts.hidden[:, None]).astype(jnp.float32)
    return Grades(rewards=is_right, successes=is_right)

  def exact_objective(self, policy: Any, params: Any, ks: Sequence[int]) -> Float[jax.Array, 'K']:
    """Returns pass@k of the policy for each k."""
    return self.pass_at_k(policy.action_probs(params), ks)

  def pass_at_k(self, probs: Float[jax.Array, 'C V'], ks: Sequence[int]) -> Float[jax.Array, 'K']:
    """Returns pass@k = mean over contexts of sum_h q_h (1 - (1 - pi_h)^k) for each k.

    Args:
      probs: `[C, V]`, pi: the chance of each arm in each context.
      ks: of the best of how many samples.
    """
    log_miss = jnp.log1p(-probs)
    q = jnp.asarray(self.answer_probs, jnp.float32)
    return jnp.stack([jnp.mean(jnp.sum(-q * jnp.expm1(k * log_miss), axis=-1)) for k in ks])

  def best_action_probs(self, k: int) -> np.ndarray:
    """Returns `[C, V]`: the policy with the largest pass@k.

    For k = 1 all mass on the mode; otherwise q_h k (1 - pi_h)^(k-1) is one number, lambda, where
    pi_h > 0, and at most lambda elsewhere, so pi_h = max(0, 1 - (lambda / (k q_h))^(1/(k-1))).
    """
    if k == 1:
      return np.eye(self.num_arms)[self.answer_probs.argmax(-1)]
    mass = lambda level: np.maximum(0, 1 - (level / self.answer_probs) ** (1 / (k - 1)))
    low = np.zeros((self.num_contexts, 1))
    high = self.answer_probs.max(axis=-1, keepdims=True)
    for _ in range(200):  # Bisection on lambda / k to the last bit.
      middle = (low + high) / 2
      is_too_much = mass(middle).sum(-1, keepdims=True) > 1
      low, high = np.where(is_too_much, middle, low), np.where(is_too_much, high, middle)
    return mass(high) / mass(high).sum(-1, keepdims=True)

  def best_objective(self, policy: Any, k: int) -> float:
    """Returns the largest pass@k that any policy can reach."""
    del policy
    probs = self.best_action_probs(k)
    return float(np.mean(np.sum(self.answer_probs * (1 - (1 - probs) ** k), axis=-1)))

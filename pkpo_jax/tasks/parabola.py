"""The reward of PKPO's toy section: g(x) = x^2 on [0, 1], else 0."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import special

from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key

# Nodes and weights on [0, 1]: F(u)^k is smooth at the scale of the policy's sd = 0.1 / k.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_U, _DU = (_NODES + 1) / 2, _WEIGHTS / 2


class Parabola(DrawnTask):
  """g(x) = x^2 on [0, 1], else 0: the best policy sits close to a cliff (arXiv 2505.15201)."""

  completions = 'numbers'
  objectives = ('max@k',)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def draw(self, num_prompts: int, key: Key) -> Prompts:
    """Returns the one prompt there is, `num_prompts` times."""
    del key
    ids = jnp.zeros(num_prompts, jnp.int32)
    tokens = ids[:, None]
    return Prompts(ids=ids, tokens=tokens, mask=jnp.ones(tokens.shape, bool), hidden=())

  @functools.partial(jax.jit, static_argnums=0)
  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns x^2 on [0, 1], else 0."""
    del prompts, key
    x = rollout.completions[..., 0]
    return Grades(jnp.where((x >= 0) & (x <= 1), x**2, 0))

  def exact_objective(self, policy: Any, params: Any, ks: Sequence[int]) -> Float[jax.Array, 'K']:
    """Returns max@k = int_0^1 2u (1 - F(u)^k) du, F(u) = P(x is not in (u, 1])."""
    cdf = jax.scipy.stats.norm.cdf
    theta = params['theta']
    not_above = 1 - (cdf((1 - theta) / policy.sd) - cdf((_U - theta) / policy.sd))
    return jnp.stack([jnp.sum(2 * _U * (1 - not_above**k) * _DU) for k in ks])

  def best_objective(self, policy: Any, k: int) -> float:
    """Returns the largest max@k over theta, to 1e-9."""
    from scipy import optimize  # A tenth of what it takes to start, and needed here alone.

    def loss(theta):
      cdf = lambda x: special.ndtr((x - theta) / policy.sd)
      return -float(np.sum(2 * _U * (1 - (1 - (cdf(1.0) - cdf(_U))) ** k) * _DU))

    grid = np.linspace(0, 1.5, 301)
    start = grid[np.argmin([loss(theta) for theta in grid])]
    solution = optimize.minimize_scalar(
      loss, bounds=(start - 0.01, start + 0.01), method='bounded', options={'xatol': 1e-9}
    )
    return -float(solution.fun)

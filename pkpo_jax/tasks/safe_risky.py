"""Safe and risky arms: continuous rewards of which the mean and the maximum disagree."""

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


class SafeRisky(DrawnTask):
  """A bandit whose arm a pays a high prize with chance win_probs[a], else next to nothing.

  The prize is uniform on prizes[a] +- noise, the rest uniform on [0, 2 noise]. An arm that wins
  rarely but high has a low mean and a high maximum of k.
  """

  completions = 'arms'
  objectives = ('max@k',)

  def __init__(
    self,
    num_contexts: int = 4,
    win_probs: tuple[float, ...] = (1.0, 0.5, 0.2, 0.08),
    prizes: tuple[float, ...] = (0.4, 0.6, 0.8, 0.95),
    noise: float = 0.05,
  ):
    """Takes chances in [0, 1], prizes in reward units, and the half-width of both uniforms."""
    expect(num_contexts >= 1, 'num_contexts', 'at least 1', num_contexts)
    expect(len(win_probs) >= 2, 'win_probs', 'at least 2 arms', win_probs)
    expect(all(0 <= p <= 1 for p in win_probs), 'win_probs', 'chances in [0, 1]', win_probs)
    expect(
      len(prizes) == len(win_probs), 'prizes', f'one an arm ({len(win_probs)} win_probs)', prizes
    )
    expect(noise > 0, 'noise', 'a number > 0', noise)
    expect(min(prizes) >= noise, 'prizes', f'numbers >= noise = {noise}', prizes)
    self.reward_range = (0.0, max(prizes) + noise)
    self.num_contexts = num_contexts
    self.num_arms = len(prizes)
    # In context c the arms are rotated by c places.
    rotate = lambda arms: np.stack([np.roll(arms, c) for c in range(num_contexts)])
    self._win_probs, self._prizes, self._noise = rotate(win_probs), rotate(prizes), noise

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def draw(self, num_prompts: int, key: Key) -> Prompts:
    """Returns contexts, drawn uniformly."""
    contexts = jax.random.randint(key, (num_prompts,), 0, self.num_contexts)
    tokens = contexts[:, None]
    return Prompts(ids=contexts, tokens=tokens, mask=jnp.ones(tokens.shape, bool), hidden=())

  @functools.partial(jax.jit, static_argnums=0)
  def grade(self, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
    """Returns the payment of each arm drawn."""
    arms = rollout.completions[..., 0]
    contexts = prompts.tokens
    win_key, noise_key = jax.random.split(key)
    has_won = jax.random.uniform(win_key, arms.shape) < self._at(self._win_probs, contexts, arms)
    middle = jnp.where(has_won, self._at(self._prizes, contexts, arms), self._noise)
    noise = jax.random.uniform(noise_key, arms.shape, minval=-1, maxval=1)
    return Grades(middle + self._noise * noise)

  def exact_objective(self, policy: Any, params: Any, ks: Sequence[int]) -> Float[jax.Array, 'K']:
    """Returns max@k = mean over contexts of integral of 1 - F(u)^k du, F the mixture's CDF."""
    probs = policy.action_probs(params)
    u, du = self._quadrature(max(ks))
    cdf = jnp.sum(probs[..., None] * jnp.asarray(self._arm_cdfs(u), jnp.float32), axis=-2)
    return jnp.stack([jnp.mean(jnp.sum((1 - cdf**k) * jnp.asarray(du), axis=-1)) for k in ks])

  def best_objective(self, policy: Any, k: int) -> float:
    """Returns the largest max@k: a concave problem in the arms' chances, solved per context.

    Raises:
      RuntimeError: if the solver misses the optimum by more than 1e-6 (by its duality gap).
    """
    from scipy import optimize  # As in `Parabola`.

    del policy
    u, du = self._quadrature(k)
    # Contexts are rotations of one another and share the optimum.
    cdfs = self._arm_cdfs(u)[0]
    value = lambda probs: float(np.sum((1 - (probs @ cdfs) ** k) * du))
    slope = lambda probs: -k * cdfs @ ((probs @ cdfs) ** (k - 1) * du)
    solution = optimize.minimize(
      lambda probs: -value(probs),
      np.full(self.num_arms, 1 / self.num_arms),
      jac=lambda probs: -slope(probs),
      bounds=[(0, 1)] * self.num_arms,
      constraints={'type': 'eq', 'fun': lambda probs: probs.sum() - 1},
      options={'ftol': 1e-14, 'maxiter': 1000},
    )
    probs = np.maximum(solution.x, 0) / np.maximum(solution.x, 0).sum()
    gap = slope(probs).max() - slope(probs) @ probs
    if gap > 1e-6:
      raise RuntimeError(f'safe_risky: the optimum of max@{k} is uncertain by {gap:.2g}.')
    return value(probs)

  def _at(self, table: np.ndarray, contexts: jax.Array, arms: jax.Array) -> jax.Array:
    return jnp.asarray(table, jnp.float32)[contexts, arms]

  def _quadrature(self, max_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes and weights on [0, largest reward], exact for F^k with k <= max_k.

    Between the ends of the uniforms F is linear, so Gauss-Legendre on each piece is exact.
    """
    ends = [
      0.0,
      2 * self._noise,
      *(self._prizes[0] - self._noise),
      *(self._prizes[0] + self._noise),
    ]
    ends = np.unique(ends)
    nodes, weights = np.polynomial.legendre.leggauss(max_k // 2 + 1)
    half_widths = np.diff(ends)[:, None] / 2
    u = (ends[:-1, None] + ends[1:, None]) / 2 + half_widths * nodes
    return u.ravel(), (half_widths * weights).ravel()

  def _arm_cdfs(self, u: np.ndarray) -> np.ndarray:
    """Returns `[C, V, len(u)]`: the chance that an arm pays at most u."""
    uniform = lambda middle: np.clip((u - (middle - self._noise)) / (2 * self._noise), 0, 1)
    win_probs = self._win_probs[..., None]
    return win_probs * uniform(self._prizes[..., None]) + (1 - win_probs) * uniform(self._noise)

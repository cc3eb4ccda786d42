"""Curves over k: estimates of pass@k, max@k and pass^k, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from pkpo_jax.estimators import max_at_k, min_at_k


def estimated(objectives: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of what an evaluation estimates: a task's objectives, pass^k with pass@k.

  >>> estimated(('pass@k', 'max@k'))
  ('pass@k', 'max@k', 'pass^k')
  """
  return (*objectives, *(['pass^k'] if 'pass@k' in objectives else []))


def estimates(
  outcomes: Mapping[str, Float[Any, 'P N']],
  ks: Sequence[int],
  where: Bool[Any, 'P N'] | None = None,
) -> dict[str, Float[jax.Array, 'P K']]:
  """Returns the curve of each that is `estimated`; arguments as in `curve`, outcomes by name."""
  curves = {name: curve(values, ks, where) for name, values in outcomes.items()}
  if 'pass@k' in outcomes:
    curves['pass^k'] = curve(outcomes['pass@k'], ks, where, min_at_k)
  return curves


def curve(
  outcomes: Float[Any, 'P N'],
  ks: Sequence[int],
  where: Bool[Any, 'P N'] | None = None,
  estimate: Callable[..., jax.Array] = max_at_k,
) -> Float[jax.Array, 'P K']:
  """Returns each problem's estimates of max@k (pass@k of 0/1 outcomes) for several k.

  Args:
    outcomes: `[P, N]` successes or rewards.
    ks: the values of k, each in [1, N].
    where: `[P, N]` True where a sample was judged; None means everywhere.
    estimate: what to estimate, such as `min_at_k` for pass^k.

  Returns:
    `[P, K]` float32; NaN where a problem has fewer than k judged samples.
  """
  columns = []
  for k in ks:
    values = estimate(outcomes, k, where=where)
    if where is not None:
      values = jnp.where(jnp.sum(where, axis=-1) >= k, values, jnp.nan)
    columns.append(values)
  return jnp.stack(columns, axis=-1)


def metric_name(name: str, k: int) -> str:
  """Returns a curve's name at a k.

  >>> metric_name('pass@k', 8)
  'pass@8'
  """
  return f'{name.removesuffix("k")}{k}'


def group_metrics(
  outcomes: Mapping[str, Float[Any, 'P N']],
  rewards: Float[Any, 'P N'],
  where: Bool[Any, 'P N'] | None,
  k: Int[Any, ''] | Int[Any, 'P'],
  ks: Sequence[int],
) -> dict[str, jax.Array]:
  """Returns the metrics of a step's groups, each a mean over its prompts.

  Args:
    outcomes: of the task's objectives, from `outcomes_of`.
    rewards: what is trained on.
    where: True where a sample was judged; None means everywhere.
    k: of the step, or of each prompt.
    ks: the values of k to estimate the objectives for; those above N are left out.

  Returns:
    reward_mean, k, pass@k or max@k for each of `ks` (NaN if no prompt has k judged samples), and
    masked_group_share, the prompts some of whose samples were not judged.
  """
  judged = jnp.ones(rewards.shape, bool) if where is None else where
  metrics = {
    'reward_mean': jnp.mean(rewards, where=judged),
    'k': jnp.mean(k),
    'masked_group_share': jnp.mean(~jnp.all(judged, axis=-1)),
  }
  ks = [k for k in ks if k <= rewards.shape[-1]]
  for name, values in outcomes.items():
    for k, mean in zip(ks, jnp.nanmean(curve(values, ks, where), axis=0), strict=True):
      metrics[metric_name(name, k)] = mean
  return metrics

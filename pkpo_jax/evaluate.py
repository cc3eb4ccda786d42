"""Measures a policy: pass@k (max@k) on fresh samples, and exactly where the task can."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from pkpo_jax.estimators import pass_at_k_curve, standard_error
from pkpo_jax.policies import Policy
from pkpo_jax.settings import EvalSettings
from pkpo_jax.tasks import Task
from pkpo_jax.train_step import objective_name
from pkpo_jax.typing import Key


class Evaluation(NamedTuple):
  """What one evaluation found.

  Attributes:
    values: `[P, K]` estimate of pass@k (max@k) of each problem for each k in config.eval.ks.
    exact: `[K]` the same mean over all problems, exactly; None where the task cannot tell.
  """

  values: Float[jax.Array, 'P K']
  exact: Float[jax.Array, 'K'] | None


def make_evaluate(
  policy: Policy, task: Task, settings: EvalSettings
) -> Callable[[Any, int, Key], Evaluation]:
  """Returns fn(params, step, key) -> Evaluation, from config.eval's prompts and samples."""
  sample = jax.jit(policy.sample, static_argnums=2)
  exact_fn = make_exact(policy, task, settings)
  curve = jax.jit(lambda rewards: pass_at_k_curve(rewards, settings.ks))

  def evaluate(params, step, key):
    prompt_key, sample_key, reward_key = jax.random.split(key, 3)
    prompts = task.prompts(step, settings.num_prompts, prompt_key)
    rollout = sample(params, prompts, settings.num_samples, sample_key)
    rewards = task.rewards(prompts, rollout, reward_key)
    return Evaluation(curve(rewards), exact_fn(params) if exact_fn else None)

  return evaluate


def make_exact(policy: Policy, task: Task, settings: EvalSettings) -> Callable | None:
  """Returns fn(params) -> exact objective `[K]` for config.eval.ks, or None."""
  if not hasattr(task, 'exact_max_at_k'):
    return None
  return jax.jit(lambda params: task.exact_max_at_k(policy, params, settings.ks))


def evaluation_metrics(
  evaluation: Evaluation, settings: EvalSettings, is_binary: bool
) -> dict[str, jax.Array]:
  """Returns eval/pass@k, its standard error over problems, and eval/pass@k_exact."""
  means, errors = jnp.mean(evaluation.values, axis=0), standard_error(evaluation.values)
  metrics = {}
  for i, k in enumerate(settings.ks):
    name = objective_name(k, is_binary)
    metrics[f'eval/{name}'] = means[i]
    metrics[f'eval/{name}_se'] = errors[i]
    if evaluation.exact is not None:
      metrics[f'eval/{name}_exact'] = evaluation.exact[i]
  return metrics

"""Measures a policy: pass@k (max@k) on fresh samples, and exactly where the task can."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float

from pkpo_jax.data import held_out_prompts
from pkpo_jax.estimators import pass_at_k_curve, standard_error
from pkpo_jax.policies import Policy
from pkpo_jax.settings import EvalSettings
from pkpo_jax.tasks import FiniteTask, Rewarder, Task
from pkpo_jax.tasks.verifiers import KINDS, Verdict
from pkpo_jax.train_step import objective_name
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Evaluation(NamedTuple):
  """What one evaluation found.

  Attributes:
    values: `[P, K]` estimate of pass@k (max@k) of each problem for each k in config.eval.ks.
    exact: `[K]` the same mean over all problems, exactly; None where the task cannot tell.
  """

  values: Float[jax.Array, 'P K']
  exact: Float[jax.Array, 'K'] | None


def grade(
  task: Rewarder, prompts: Prompts, rollout: Rollout, key: Key
) -> tuple[Any, list[list[Verdict]] | None]:
  """Returns the rewards `[P, N]` and, from a task with a verifier, the verdicts `[P][N]`."""
  if not hasattr(task, 'verdicts'):
    return task.rewards(prompts, rollout, key), None
  verdicts = task.verdicts(prompts, rollout)
  rewards = [[verdict.reward for verdict in group] for group in verdicts]
  return np.asarray(rewards, np.float32), verdicts


def verdict_metrics(verdicts: list[list[Verdict]] | None) -> dict[str, float]:
  """Returns verdict_right, verdict_malformed, ...: the share of the completions of each kind."""
  if verdicts is None:
    return {}
  counts = Counter(verdict.kind for group in verdicts for verdict in group)
  return {f'verdict_{kind}': counts[kind] / counts.total() for kind in KINDS}


def make_evaluate(
  policy: Policy,
  task: Task | FiniteTask,
  settings: EvalSettings,
  over_prompts: NamedSharding | None = None,
) -> Callable[[Any, int, Key], Evaluation]:
  """Returns fn(params, step, key) -> Evaluation, from config.eval's prompts and samples.

  Prompts are split over devices as `over_prompts` says; None is one device.
  """
  sample = jax.jit(policy.sample, static_argnums=2, out_shardings=over_prompts)
  exact_fn = make_exact(policy, task, settings)
  curve = jax.jit(lambda rewards: pass_at_k_curve(rewards, settings.ks))

  def evaluate(params, step, key):
    prompt_key, sample_key, reward_key = jax.random.split(key, 3)
    prompts = held_out_prompts(task, step, settings.num_prompts, prompt_key)
    prompts = jax.device_put(prompts, over_prompts)
    rollout = sample(params, prompts, settings.num_samples, sample_key)
    rewards = task.rewards(prompts, rollout, reward_key)
    return Evaluation(curve(rewards), exact_fn(params) if exact_fn else None)

  return evaluate


def make_exact(policy: Policy, task: Rewarder, settings: EvalSettings) -> Callable | None:
  """Returns fn(params) -> exact objective `[K]` for config.eval.ks, or None."""
  if not hasattr(task, 'exact_max_at_k'):
    return None
  return jax.jit(lambda params: task.exact_max_at_k(policy, params, settings.ks))


def exact_metrics(
  exact: Float[jax.Array, 'K'] | None, settings: EvalSettings, is_binary: bool
) -> dict[str, jax.Array]:
  """Returns pass@k_exact (max@k_exact) for config.eval.ks; nothing where `exact` is None."""
  if exact is None:
    return {}
  names = [f'{objective_name(k, is_binary)}_exact' for k in settings.ks]
  return dict(zip(names, exact, strict=True))


def evaluation_metrics(
  evaluation: Evaluation, settings: EvalSettings, is_binary: bool
) -> dict[str, jax.Array]:
  """Returns eval/pass@k, eval/pass@k_se (standard error over problems), eval/pass@k_exact."""
  means, errors = jnp.mean(evaluation.values, axis=0), standard_error(evaluation.values)
  metrics = exact_metrics(evaluation.exact, settings, is_binary)
  for k, mean, error in zip(settings.ks, means, errors, strict=True):
    name = objective_name(k, is_binary)
    metrics |= {name: mean, f'{name}_se': error}
  return {f'eval/{name}': value for name, value in metrics.items()}

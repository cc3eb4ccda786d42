"""Measures a policy on held-out problems."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Float, Int

from pkpo_jax import sharding
from pkpo_jax.data.pipeline import held_out_prompts
from pkpo_jax.estimators import pass_at_k_curve, standard_error
from pkpo_jax.evaluation.statistics import majority_votes, sample_statistics
from pkpo_jax.policies import Policy
from pkpo_jax.run import Run
from pkpo_jax.settings import EvalSettings
from pkpo_jax.tasks import Rewarder
from pkpo_jax.tasks.grades import KINDS, Verdict, rewards_of, successes_of
from pkpo_jax.train_step import check_rewards, join_prompts, objective_name, split_prompts
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


class Evaluation(NamedTuple):
  """What one evaluation found; all but `exact` for each problem.

  Attributes:
    ids: `[P]` the problems.
    values: `[P, K]` estimate of pass@k (max@k) for each k in config.eval.ks.
    shaped: `[P, K]` of max@k of shaped rewards, where values are pass@k; None where there are none.
    majority: `[P, K]` maj@k for the same k; None where answers cannot be compared, or N > 1024.
    statistics: means over the problem's samples, `[P]` each, NaN where there is nothing to take
      the mean of; see `answers.sample_statistics`.
    exact: `[K]` pass@k (max@k) over all problems there are, exactly; None where the task cannot
      tell.
  """

  ids: Int[np.ndarray, 'P']
  values: Float[np.ndarray, 'P K']
  shaped: Float[np.ndarray, 'P K'] | None
  majority: Float[np.ndarray, 'P K'] | None
  statistics: dict[str, Float[np.ndarray, 'P']]
  exact: Float[jax.Array, 'K'] | None


def make_evaluate(run: Run, over_prompts: NamedSharding | None = None) -> Callable[..., Evaluation]:
  """Returns fn(params, step, key, num_pieces=1, after_piece=None) -> Evaluation, by config.eval.

  The prompts are sampled in num_pieces equal pieces, to save memory; after_piece() is called after
  each. Other pieces have other random numbers.

  Args:
    run: the parts of the run.
    over_prompts: how prompts are split over devices; None is one device.
  """
  task, settings = run.task, run.settings.eval
  sample = jax.jit(run.eval_policy.sample, static_argnums=2, out_shardings=over_prompts)
  mean_entropy = jax.jit(make_mean_entropy(run, over_prompts), out_shardings=over_prompts)
  curve = jax.jit(lambda rewards: pass_at_k_curve(rewards, settings.ks))
  # What is known exactly is of the policy's own distribution.
  samples_exactly = run.eval_policy.samples_exactly
  exact_fn = make_exact(run.eval_policy, task, settings) if samples_exactly else None

  def measure(params, step, prompts, sample_key, reward_key):
    prompts = jax.device_put(prompts, over_prompts)
    rollout = sample(params, prompts, settings.num_samples, sample_key)
    rewards, successes, verdicts = grade(task, prompts, rollout, reward_key)
    check_rewards(rewards, prompts.ids, step)
    entropy = np.asarray(mean_entropy(params, rollout))
    values, shaped = np.asarray(curve(rewards)), None
    if successes is not None:
      values, shaped = np.asarray(curve(successes)), values
    outcomes = np.asarray(rewards if successes is None else successes)
    statistics = sample_statistics(task, jax.device_get(rollout), outcomes, verdicts)
    return Evaluation(
      ids=np.asarray(prompts.ids),
      values=values,
      shaped=shaped,
      majority=majority_votes(verdicts, settings.ks),
      statistics={'entropy': entropy, **statistics},
      exact=None,
    )

  def evaluate(params, step, key, num_pieces=1, after_piece=None):
    prompt_key, sample_key, reward_key = jax.random.split(key, 3)
    prompts = held_out_prompts(task, step, settings.num_prompts, prompt_key)
    size, found = settings.num_prompts // num_pieces, []
    for i in range(num_pieces):
      piece = jax.tree.map(lambda x, i=i: x[i * size : (i + 1) * size], prompts)
      keys = sample_key, reward_key
      if num_pieces > 1:
        keys = (jax.random.fold_in(one, i) for one in keys)
      found.append(measure(params, step, piece, *keys))
      if after_piece is not None:
        after_piece()
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    if whole.majority is not None and np.isnan(whole.majority).any():
      whole = whole._replace(majority=None)
    return whole._replace(exact=exact_fn(params) if exact_fn else None)

  return evaluate


class Grades(NamedTuple):
  """What a task says of samples.

  Attributes:
    rewards: `[P, N]` what is trained on.
    successes: `[P, N]` 1 where a sample is right, beside shaped rewards; None where the rewards
      say it, or nothing does.
    verdicts: `[P][N]` from a task with a verifier, else None.
  """

  rewards: Any
  successes: Any
  verdicts: list[list[Verdict]] | None


def grade(task: Rewarder, prompts: Prompts, rollout: Rollout, key: Key) -> Grades:
  """Returns the task's grades of the samples of each prompt; waits for the rollout."""
  if not hasattr(task, 'verdicts'):
    return Grades(task.rewards(prompts, rollout, key), None, None)
  verdicts = task.verdicts(prompts, rollout)
  return Grades(rewards_of(verdicts), None if task.is_binary else successes_of(verdicts), verdicts)


def verdict_metrics(verdicts: list[list[Verdict]] | None) -> dict[str, float]:
  """Returns verdict_right, verdict_malformed, ...: the share of the completions of each kind."""
  if verdicts is None:
    return {}
  counts = Counter(verdict.kind for group in verdicts for verdict in group)
  return {f'verdict_{kind}': counts[kind] / counts.total() for kind in KINDS}


def make_mean_entropy(
  run: Run, over_prompts: NamedSharding | None = None
) -> Callable[[Any, Rollout], Float[jax.Array, 'P']]:
  """Returns fn(params, rollout) -> the mean entropy of each problem's tokens, nats.

  Of the policy that is trained, at its own temperature, whatever drew the tokens. In pieces of no
  more completions than an update has, which fit into memory even with their gradients.
  """
  settings = run.settings
  updates = settings.loss.num_minibatches * settings.loss.num_microbatches
  max_completions = settings.rollout.num_prompts * settings.rollout.num_samples // updates
  num_shards = sharding.num_prompt_shards(over_prompts.mesh) if over_prompts else 1

  def mean_entropy(params, rollout):
    def of_piece(piece):
      _, entropy = run.policy.log_probs_and_entropy(params, piece)
      mask = piece.completion_mask
      num_tokens = jnp.sum(mask, axis=(1, 2))
      return jnp.sum(jnp.where(mask, entropy, 0), axis=(1, 2)) / jnp.maximum(num_tokens, 1)

    num_prompts, num_samples, _ = rollout.completions.shape
    num_pieces = count_pieces(num_prompts, num_samples, max_completions, num_shards)
    return join_prompts(lax.map(of_piece, split_prompts(rollout, num_pieces)))

  return mean_entropy


def count_pieces(num_prompts: int, num_samples: int, max_completions: int, num_shards: int) -> int:
  """Returns the least number of equal pieces with at most `max_completions` completions each.

  If even one prompt on each of the `num_shards` devices has more, a piece is just that.

  >>> count_pieces(num_prompts=12, num_samples=8, max_completions=40, num_shards=1)
  3
  """
  most = num_prompts // num_shards
  is_small = lambda pieces: num_prompts // pieces * num_samples <= max_completions
  return next((m for m in range(1, most) if most % m == 0 and is_small(m)), most)


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
) -> dict[str, Any]:
  """Returns the means over problems, named eval/...; `is_binary`: its values are pass@k.

  pass@k, pass@k_se (standard error over problems), pass@k_exact, maj@k and the statistics of
  `answers.sample_statistics`, each where it is known.
  """
  means, errors = jnp.mean(evaluation.values, axis=0), standard_error(evaluation.values)
  metrics = exact_metrics(evaluation.exact, settings, is_binary)
  for k, mean, error in zip(settings.ks, means, errors, strict=True):
    name = objective_name(k, is_binary)
    metrics |= {name: mean, f'{name}_se': error}
  if evaluation.shaped is not None:
    for k, mean in zip(settings.ks, np.mean(evaluation.shaped, axis=0), strict=True):
      metrics[objective_name(k, is_binary=False)] = mean
  if evaluation.majority is not None:
    shares = np.mean(evaluation.majority, axis=0)
    metrics |= {f'maj@{k}': share for k, share in zip(settings.ks, shares, strict=True)}
  for name, values in evaluation.statistics.items():
    if not np.isnan(values).all():
      metrics[name] = np.nanmean(values)
  return {f'eval/{name}': value for name, value in metrics.items()}

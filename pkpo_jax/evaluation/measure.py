"""Measures a policy on held-out problems."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Float

from pkpo_jax import processes, sharding
from pkpo_jax.curves import estimated, estimates, metric_name
from pkpo_jax.estimators import standard_error
from pkpo_jax.evaluation.statistics import majority_votes, sample_statistics
from pkpo_jax.evaluation.summary import Evaluation
from pkpo_jax.grading import trim_and_grade
from pkpo_jax.keys import eval_keys, piece_key
from pkpo_jax.pieces import join_prompts, split_prompts
from pkpo_jax.policies import Policy
from pkpo_jax.run import Run, make_sampling_layout
from pkpo_jax.tasks import Task
from pkpo_jax.tasks.grades import KINDS, Grades, Verdict, check_finite, outcomes_of
from pkpo_jax.types import Prompts, Rollout

# Called after each piece of an evaluation, with its samples and their grades.
AfterPiece = Callable[[Prompts, Rollout, Grades], None]


def make_evaluate(run: Run, over_prompts: NamedSharding | None = None) -> Callable[..., Evaluation]:
  """Returns fn(params, step, key, num_pieces=1, after_piece=None) -> Evaluation, by config.eval.

  The prompts are sampled in num_pieces equal pieces, to save memory. after_piece(prompts, rollout,
  grades) is called after each piece. Another number of pieces draws other random numbers.

  Args:
    run: the parts of the run.
    over_prompts: how prompts are split over devices; None is one device.
  """
  task, settings = run.task, run.settings.eval
  layout = make_sampling_layout(run, over_prompts.mesh) if over_prompts else lambda params: params
  sample = jax.jit(run.eval_policy.sample, static_argnums=2, out_shardings=over_prompts)
  mean_entropy = jax.jit(make_mean_entropy(run, over_prompts), out_shardings=over_prompts)
  estimate = jax.jit(lambda outcomes, where: estimates(outcomes, settings.ks, where))
  # Exact values are those of the policy's own distribution.
  samples_exactly = run.eval_policy.samples_exactly
  exact_fn = make_exact(run.eval_policy, task, settings.ks) if samples_exactly else lambda _: {}

  def measure(params, for_sampling, step, prompts, sample_key, grade_key):
    on_devices = processes.put(prompts, over_prompts)
    rollout = sample(for_sampling, on_devices, settings.num_samples, sample_key)
    rollout, grades = trim_and_grade(task, on_devices, rollout, grade_key, over_prompts)
    check_finite(grades, prompts.ids, step)
    entropy = processes.to_host(mean_entropy(params, rollout))
    rollout = processes.to_host(rollout)
    outcomes = outcomes_of(grades, task.objectives)
    curves = jax.tree.map(np.asarray, estimate(outcomes, grades.where))
    majority = majority_votes(grades.verdicts, settings.ks)
    if majority is not None:
      curves['maj@k'] = majority
    statistics = sample_statistics(rollout, grades, task.is_truncated(rollout))
    statistics = {'entropy': entropy, **statistics}
    return Evaluation(np.asarray(prompts.ids), curves, statistics, {}, {}), (
      prompts,
      rollout,
      grades,
    )

  def evaluate(params, step, key, num_pieces=1, after_piece=None):
    keys = eval_keys(key)
    prompts = task.held_out(settings.num_prompts, keys.prompts)
    size, pieces, for_sampling = settings.num_prompts // num_pieces, [], layout(params)
    for i in range(num_pieces):
      piece = jax.tree.map(lambda x, i=i: x[i * size : (i + 1) * size], prompts)
      piece_keys = (piece_key(each, i, num_pieces) for each in (keys.sample, keys.grade))
      measured, samples = measure(params, for_sampling, step, piece, *piece_keys)
      pieces.append(measured)
      if after_piece is not None:
        after_piece(*samples)
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)
    # In this order, the objective first: trees have theirs by the alphabet.
    curves = {name: whole.curves[name] for name in estimated(task.objectives)}
    # If the answers of one problem cannot be compared, there is no maj@k over all problems.
    majority = whole.curves.get('maj@k')
    if majority is not None and _is_known(majority, curves[task.objectives[0]]):
      curves['maj@k'] = majority
    bounds = {name: task.reward_range if name == 'max@k' else (0.0, 1.0) for name in curves}
    return whole._replace(curves=curves, exact=exact_fn(params), bounds=bounds)

  return evaluate


def _is_known(majority: Float[np.ndarray, 'P K'], objective: Float[np.ndarray, 'P K']) -> bool:
  """Returns whether maj@k is known wherever the objective is."""
  return not np.isnan(majority[~np.isnan(objective)]).any()


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

  The entropy is that of the policy that is trained, at its own temperature, whichever policy drew
  the tokens. It is computed in pieces that hold no more completions than an update does: these fit
  into memory even with their gradients.
  """
  settings = run.settings
  num_pieces = settings.loss.num_minibatches * settings.loss.num_pieces
  max_completions = settings.rollout.num_prompts * settings.rollout.num_samples // num_pieces
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

  A piece has at least one prompt on each of the `num_shards` devices, even if that is more.

  >>> count_pieces(num_prompts=12, num_samples=8, max_completions=40, num_shards=1)
  3
  """
  most = num_prompts // num_shards
  is_small = lambda pieces: num_prompts // pieces * num_samples <= max_completions
  return next((m for m in range(1, most) if most % m == 0 and is_small(m)), most)


def make_exact(
  policy: Policy, task: Task, ks: Sequence[int]
) -> Callable[[Any], dict[str, Float[np.ndarray, 'K']]]:
  """Returns fn(params) -> the exact values `[K]` of the task's first objective, by its name.

  They are `{}` where the task cannot tell.
  """
  name = task.objectives[0]

  exact = jax.jit(lambda params: task.exact_objective(policy, params, ks))

  def exact_fn(params):
    values = exact(params)
    return {} if values is None else {name: processes.to_host(values)}

  return exact_fn


def exact_metrics(exact: dict[str, Any], ks: Sequence[int]) -> dict[str, Any]:
  """Returns pass@k_exact (max@k_exact) for each k."""
  return {
    f'{metric_name(name, k)}_exact': value
    for name, values in exact.items()
    for k, value in zip(ks, values, strict=True)
  }


def evaluation_metrics(evaluation: Evaluation, ks: Sequence[int]) -> dict[str, Any]:
  """Returns the means over problems, named eval/...

  They are pass@k, max@k, pass^k and maj@k, each with its standard error over problems (pass@k_se),
  pass@k_exact and the statistics of `statistics.sample_statistics`, each where it is
  known. Problems with fewer than k judged samples are left out of the mean for k.
  """
  metrics = exact_metrics(evaluation.exact, ks)
  for name, values in evaluation.curves.items():
    for k, column in zip(ks, values.T, strict=True):
      known = column[~np.isnan(column)]
      if known.size:
        metrics[metric_name(name, k)] = np.mean(known)
      if known.size > 1:
        metrics[f'{metric_name(name, k)}_se'] = standard_error(known)
  for name, values in evaluation.statistics.items():
    if not np.isnan(values).all():
      metrics[name] = np.nanmean(values)
  return {f'eval/{name}': value for name, value in metrics.items()}

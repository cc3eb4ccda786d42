"""One step of training: rewards to advantages, advantages to an update. Pure functions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Float

from pkpo_jax import losses, pieces, sharding
from pkpo_jax.advantages import ADVANTAGES, FROM_ROLLOUT
from pkpo_jax.errors import FieldError
from pkpo_jax.optimizer import skipped_updates
from pkpo_jax.policies import Policy
from pkpo_jax.settings import AdvantageSettings, LossSettings, check_kwargs, lookup
from pkpo_jax.types import Rollout, TrainState
from pkpo_jax.typing import Key

Forward = Callable[[Any, Rollout], tuple[jax.Array, jax.Array]]
AdvantageFn = Callable[..., jax.Array]
GradientFn = Callable[
  [Any, dict[str, Any], Rollout, Float[jax.Array, 'P N']], tuple[Any, losses.LossMetrics]
]
TrainStep = Callable[
  [TrainState, dict[str, Any], Rollout, Float[jax.Array, 'P N'], Key],
  tuple[TrainState, dict[str, jax.Array]],
]


def make_advantage_fn(
  settings: AdvantageSettings, forward: Forward, ks: np.ndarray, num_samples: int
) -> AdvantageFn:
  """Returns fn(params, rollout, rewards, where, k, key, answers=None) -> advantages `[P, N]`.

  `where` is None or `[P, N]` bool: a sample that was not judged is no member of its group and has
  advantage 0. A prompt with m judged samples of N so counts with m / N of the weight of others.

  `answers` is `[P, N]` int32 for an advantage that compares answers, which `takes_answers` tells;
  without it, it compares completions.

  An advantage asks for what it needs by the names of its arguments: its options among the fields
  of config.advantage, and those in FROM_ROLLOUT, which are worked out for it.

  Args:
    settings: config.advantage.
    forward: gives log-probabilities and entropies; from `make_forward`.
    ks: every k that the schedule will ask for, to be checked now.
    num_samples: samples per group.

  Raises:
    ValueError: if the name is unknown, or the advantage is not defined for one of `ks`.
  """
  function = lookup('advantage.name', settings.name, ADVANTAGES)
  arguments = inspect.signature(function).parameters
  context = {'rewards', 'k', 'where'} | FROM_ROLLOUT
  options = check_kwargs('advantage', function, settings.options, context & set(arguments))

  def inputs(params, rollout, key, answers):
    wanted = {'key': key} if 'key' in arguments else {}
    if 'answers' in arguments:
      wanted['answers'] = _completion_ids(rollout) if answers is None else answers
    if 'baseline_weights' in arguments:
      surprise = (1 - jnp.exp(rollout.sampling_log_probs)) ** 2
      mask = rollout.completion_mask
      wanted['baseline_weights'] = jnp.sum(jnp.where(mask, surprise, 0), axis=-1)
    if not {'entropy', 'ratios'} & set(arguments):
      return wanted
    mask = rollout.completion_mask
    log_probs, entropy = forward(params, rollout)
    if 'entropy' in arguments:
      total = jnp.sum(jnp.where(mask, entropy, 0), axis=(1, 2))
      wanted['entropy'] = total / jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1)
    if 'ratios' in arguments:
      wanted['ratios'] = sequence_ratios(log_probs, rollout)
    return wanted

  def advantage_fn(params, rollout, rewards, where, k, key, answers=None):
    extra = inputs(params, rollout, key, answers)
    return function(rewards, k=k, where=where, **options, **extra)

  _try_every_k(function, arguments, options, ks, num_samples)
  return advantage_fn


def sequence_ratios(
  log_probs: Float[jax.Array, 'P N L'], rollout: Rollout
) -> Float[jax.Array, 'P N']:
  """Returns p / p_sampling of each sample, `[P, N]`: the product of its tokens', kept finite."""
  bounded = losses.bounded_log_probs
  log_ratios = bounded(log_probs) - bounded(rollout.sampling_log_probs)
  in_sample = jnp.where(rollout.completion_mask, log_ratios, 0)
  return losses.exp_bounded(jnp.sum(in_sample, axis=-1))


def takes_answers(settings: AdvantageSettings) -> bool:
  """Returns whether an advantage compares the answers of samples."""
  function = lookup('advantage.name', settings.name, ADVANTAGES)
  return 'answers' in inspect.signature(function).parameters


class Batch(NamedTuple):
  """What one update is made from; every array has the leading axis P.

  Attributes:
    rollout: the samples.
    advantages: `[P, N, 1]`, reward units.
    weights: `[P, N, L]`, each token's share in the loss.
    mean_weights: `[P, N, L]`, each token's share in a mean over tokens.
  """

  rollout: Rollout
  advantages: jax.Array
  weights: jax.Array
  mean_weights: jax.Array


def make_gradient_fn(
  policy: Policy, settings: LossSettings, over_prompts: NamedSharding | None = None
) -> GradientFn:
  """Returns fn(params, frozen, rollout, advantages) -> (gradients, metrics): those of one update.

  Arguments are those of `make_train_step`, which says what is made in pieces and left out.
  """
  mesh = over_prompts.mesh if over_prompts else None
  # See `sum_over_data`.
  is_by_data = mesh is not None and mesh.shape['data'] > 1 and mesh.shape['tensor'] == 1
  num_shards = sharding.num_prompt_shards(mesh) if mesh else 1
  if is_by_data:
    num_shards //= mesh.shape['data']

  def loss_fn(params, frozen, batch):
    rollout = batch.rollout
    log_probs, entropy = policy.log_probs_and_entropy(frozen | params, rollout)
    return losses.policy_gradient_loss(
      log_probs,
      entropy,
      advantages=batch.advantages[..., 0],
      completion_mask=rollout.completion_mask,
      sampling_log_probs=rollout.sampling_log_probs,
      ref_log_probs=rollout.ref_log_probs,
      weights=batch.weights,
      mean_weights=batch.mean_weights,
      **settings.terms,
    )

  def in_pieces(params, frozen, batch):
    grad_fn = jax.grad(loss_fn, has_aux=True)
    lengths = pieces.halved(batch.weights.shape[-1], settings.num_lengths)
    if settings.skip_without_signal:
      lengths = (0, *lengths)
    if settings.num_pieces == len(lengths) == 1:
      return grad_fn(params, frozen, batch)

    def add(length, total, piece):
      if length == 0:
        _, shapes = jax.eval_shape(grad_fn, params, frozen, piece)
        return total, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
      grads, metrics = grad_fn(params, frozen, pieces.cut(piece, length))
      return jax.tree.map(jnp.add, total, grads), metrics

    def accumulate(total, piece):
      return pieces.at_length(add, lengths, piece.rollout.completion_mask, total, piece)

    if len(lengths) > 1:
      num_tokens = pieces.num_tokens(batch.rollout.completion_mask)
      batch, _ = pieces.sort_samples(batch, num_tokens)
      batch = pieces.sort_prompts(batch, num_tokens, settings.num_microbatches, num_shards)
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    split = pieces.split(batch, settings.num_microbatches, settings.num_sample_blocks)
    grads, metrics = lax.scan(accumulate, zeros, split)
    return grads, losses.LossMetrics(*map(_over_pieces, metrics))

  def apart(params_and_frozen, batch):
    grads, metrics = in_pieces(*params_and_frozen, batch)
    return (grads, *(each.sums for each in metrics)), [each.maxima for each in metrics]

  def gradient_fn(params, frozen, rollout, advantages):
    weights = losses.token_weights(rollout.completion_mask, settings.normalization)
    if settings.skip_without_signal:
      # To have no signal is to have no tokens; in `weights` they stay.
      has_signal = jnp.any(advantages != 0, axis=1)[:, None, None]
      rollout = rollout.replace(completion_mask=rollout.completion_mask & has_signal)
    mean_weights = losses.token_weights(rollout.completion_mask, 'token')
    batch = Batch(rollout, advantages[..., None], weights, mean_weights)
    if not is_by_data:
      return in_pieces(params, frozen, batch)
    (grads, *sums), maxima = sharding.sum_over_data(apart, mesh, (params, frozen), batch)
    return grads, losses.LossMetrics(*map(losses.Totals, sums, maxima))

  return gradient_fn


def make_train_step(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  settings: LossSettings,
  over_prompts: NamedSharding | None = None,
) -> TrainStep:
  """Returns fn(state, frozen, rollout, advantages, key) -> (state, metrics): one training step.

  A step makes num_epochs * num_minibatches updates; `key` shuffles the prompts of an epoch where
  it has several minibatches.

  A sample that was not judged has advantage 0. It has no surrogate but stays in every denominator,
  and in the KL and entropy terms and the means over tokens, which need no reward.

  An update is made in pieces, by num_microbatches and num_sample_blocks; their gradients add up.
  With num_lengths > 1 each has samples and prompts of similar lengths, and is cut to these. Every
  part of 'data' does so with its own prompts, where 'tensor' is 1.

  With skip_without_signal, a prompt whose advantages are all 0 costs no time where a piece has none
  but such. It stays in the denominators of the loss, so the gradient is the same, but not in the
  means over tokens (entropy, clip_share, bounded_share, ratio_mean) and not in log_ratio_max: these
  are of the other prompts, and 0 where there are none.

  Metrics are scalars: of `losses.policy_gradient_loss` those of the update, as means over the
  updates, and the agreement before the first of them; grad_norm, before clipping. And of the
  rollout: zero_advantage_share (of the prompts, those whose samples all have advantage 0; see
  `losses`), completion_tokens (mean length).

  Args:
    policy: gives log-probabilities and entropies.
    optimizer: makes the updates.
    settings: config.loss.
    over_prompts: where the prompts of a minibatch go; None leaves that to the compiler.
  """
  num_updates = settings.num_epochs * settings.num_minibatches
  gradient_fn = make_gradient_fn(policy, settings, over_prompts)

  def update(state, frozen, rollout, advantages):
    grads, metrics = gradient_fn(state.params, frozen, rollout, advantages)
    grad_norm = optax.tree.norm(optax.tree.cast(grads, jnp.float32))
    of_update = {**metrics.update.sums, **metrics.update.maxima, 'grad_norm': grad_norm}
    agreement = metrics.agreement.sums | metrics.agreement.maxima
    return state.apply_gradients(grads, optimizer), (of_update, agreement)

  def updates(state, frozen, rollout, advantages, key):
    def update_once(state, order):
      minibatch = rollout, advantages
      if order is not None:
        minibatch = jax.tree.map(lambda x: x[order], minibatch)
        if over_prompts is not None:
          minibatch = lax.with_sharding_constraint(minibatch, over_prompts)
      return update(state, frozen, *minibatch)

    orders = None
    if settings.num_minibatches > 1:
      shuffle = lambda key: jax.random.permutation(key, advantages.shape[0])
      orders = jax.vmap(shuffle)(jax.random.split(key, settings.num_epochs))
      orders = orders.reshape(num_updates, -1)
    state, (of_updates, agreement) = lax.scan(update_once, state, orders, length=num_updates)
    # The policy agrees with the sampler before the first update, and is meant to leave it later.
    first = jax.tree.map(lambda values: values[0], agreement)
    return state, (jax.tree.map(jnp.mean, of_updates), first)

  def train_step(state, frozen, rollout, advantages, key):
    if num_updates == 1:
      state, (metrics, agreement) = update(state, frozen, rollout, advantages)
    else:
      state, (metrics, agreement) = updates(state, frozen, rollout, advantages, key)
    metrics |= agreement | {
      'skipped_updates': skipped_updates(state.opt_state),
      'zero_advantage_share': jnp.mean(jnp.all(advantages == 0, axis=-1)),
      'completion_tokens': jnp.mean(jnp.sum(rollout.completion_mask, axis=-1)),
    }
    return state.replace(step=state.step + 1), metrics

  return train_step


def _over_pieces(totals: losses.Totals) -> losses.Totals:
  """Returns the totals of an update from those of its pieces, stacked."""
  return losses.Totals(jax.tree.map(jnp.sum, totals.sums), jax.tree.map(jnp.max, totals.maxima))


def make_forward(policy: Policy, settings: LossSettings) -> Forward:
  """Returns `policy.log_probs_and_entropy`, without gradient, in pieces of the updates' size.

  Samples are sorted by length, each piece is cut to that of its longest, and beyond are zeros.
  Prompts stay in their order, as nothing is known here of devices.
  """
  if settings.num_minibatches * settings.num_pieces == settings.num_lengths == 1:
    return policy.log_probs_and_entropy
  num_blocks = settings.num_minibatches * settings.num_microbatches, settings.num_sample_blocks

  def forward(params, rollout):
    max_length = rollout.completions.shape[-1]
    lengths = pieces.halved(max_length, settings.num_lengths)

    def of_length(length, piece):
      results = policy.log_probs_and_entropy(params, pieces.cut(piece, length))
      rest = [(0, 0), (0, 0), (0, max_length - length)]
      return jax.tree.map(lambda x: jnp.pad(x, rest), results)

    of_piece = lambda piece: pieces.at_length(of_length, lengths, piece.completion_mask, piece)
    in_order, back = pieces.sort_samples(rollout, pieces.num_tokens(rollout.completion_mask))
    results = lax.map(of_piece, pieces.split(in_order, *num_blocks))
    join = lambda x: pieces.take(pieces.join(x, settings.num_sample_blocks), back)
    return jax.tree.map(join, results)

  return forward


def init_state(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  key: Key,
  pretrained: Mapping[str, Any] | None = None,
) -> tuple[TrainState, dict[str, Any]]:
  """Returns the state before the first step, and the parameters that are not trained.

  Args:
    policy: gives the initial parameters.
    optimizer: gives its state.
    key: of the initial parameters.
    pretrained: top-level parameters to use in place of the initial ones; None has none.
  """
  params = policy.init(key) | (pretrained or {})
  frozen = {name: params.pop(name) for name in policy.frozen}
  state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
  return state, frozen


def _completion_ids(rollout: Rollout) -> jax.Array:
  """Returns `[P, N]` int32: for each sample the first of its group with the same tokens."""
  mask = rollout.completion_mask
  tokens = jnp.where(mask, rollout.completions, 0)
  is_same = lambda x: jnp.all(x[:, :, None] == x[:, None], axis=-1)
  return jnp.argmax(is_same(tokens) & is_same(mask), axis=-1).astype(jnp.int32)


def _try_every_k(function, arguments, options, ks, num_samples) -> None:
  """Raises ValueError if the advantage rejects a k: the kernels check a k that they know."""
  stand_ins = {
    'key': jax.random.key(0),
    'entropy': jnp.zeros(1),
    'ratios': jnp.ones((1, num_samples)),
    'baseline_weights': jnp.ones((1, num_samples)),
    'answers': jnp.zeros((1, num_samples), jnp.int32),
  }
  wanted = {name: value for name, value in stand_ins.items() if name in arguments}
  for k in np.unique(ks):
    try:
      function(jnp.zeros((1, num_samples)), k=int(k), **options, **wanted)
    except FieldError as error:
      # Rewards of 0 are in every domain: what can be wrong with them is how many there are.
      of_rewards = error.field == 'rewards'
      field = 'rollout.num_samples' if of_rewards else f'advantage.{error.field}'
      raise FieldError(field, f'{error.problem} (n is rollout.num_samples)') from error

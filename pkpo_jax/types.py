"""What flows through the training loop: Prompts, Rollout, TrainState, and what is saved of it."""

from typing import Any

import flax.struct
import optax

# A jax.Array, or what a tree map puts in its place.
Leaf = Any


@flax.struct.dataclass
class Prompts:
  """The prompts of one step.

  Attributes:
    ids: `[P]` int32, which problem each prompt is; names the problem in messages and statistics.
    tokens: `[P, T]` int32, what the policy sees; for a bandit one token, the context.
    mask: `[P, T]` bool, True where a prompt has a token; text is padded on the left.
    hidden: arrays with leading axis P that only the task sees, such as the right answer.
  """

  ids: Leaf
  tokens: Leaf
  mask: Leaf
  hidden: Any


@flax.struct.dataclass
class Rollout:
  """The N samples of each prompt.

  Attributes:
    prompt_tokens: `[P, T]` int32, as in Prompts.
    prompt_mask: `[P, T]` bool, as in Prompts.
    completions: `[P, N, L]`, int32 tokens or arms, or float32 for a continuous policy.
    completion_mask: `[P, N, L]` bool, True where a completion has a token.
    sampling_log_probs: `[P, N, L]` float32, nats, under the policy that sampled.
    ref_log_probs: `[P, N, L]` float32, nats, under the reference policy; None without a KL penalty.
  """

  prompt_tokens: Leaf
  prompt_mask: Leaf
  completions: Leaf
  completion_mask: Leaf
  sampling_log_probs: Leaf
  ref_log_probs: Leaf | None = None


@flax.struct.dataclass
class TrainState:
  """What a training step changes.

  Attributes:
    step: `[]` int32, training steps (rollouts) so far; each makes one update or more.
    params: the policy's parameters that are trained; those in `policy.frozen` are kept beside.
    opt_state: the optimizer's state.
  """

  step: Leaf
  params: Any
  opt_state: optax.OptState

  def apply_gradients(self, grads: Any, optimizer: optax.GradientTransformation) -> 'TrainState':
    """Returns the state after one update by `optimizer`, in the same step."""
    updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
    params = optax.apply_updates(self.params, updates)
    return self.replace(params=params, opt_state=opt_state)


@flax.struct.dataclass
class Snapshot:
  """All that a run needs to go on as if it had never stopped.

  Attributes:
    state: the training state.
    key: PRNG key of the run, from which every step's keys come.
    tally: host arrays, what the run has seen so far; see `pkpo_jax.tally`.
    ahead: rollouts of the next step that are sampled already, a list of pieces; None without
      rollout.steps_ahead.
    position: where the run is, as the config has it: 'step', training steps so far; 'data',
      prompts drawn so far; 'k' of the next step, the largest where prompts have their own;
      'problems', a fingerprint of a finite task's.
  """

  state: TrainState
  key: Leaf
  tally: Any
  position: dict[str, int]
  ahead: Any = None

"""A tiny language model and a task for it: ragged completions, parameters to split."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from configs import default
from pkpo_jax.policies import Policy
from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades
from pkpo_jax.types import Prompts, Rollout

END = 0
LENGTH = 5


class CountTask(DrawnTask):
  """Prompts are one token; the reward is the share of a completion's places that repeat it."""

  completions = 'arms'
  objectives = ('max@k',)

  def __init__(self, vocab_size):
    self.vocab_size = vocab_size

  def draw(self, num_prompts, key):
    ids = jax.random.randint(key, (num_prompts,), 1, self.vocab_size)
    tokens = ids[:, None]
    return Prompts(ids=ids, tokens=tokens, mask=jnp.ones(tokens.shape, bool), hidden=ids)

  def grade(self, prompts, rollout, key):
    is_right = rollout.completions == prompts.hidden[:, None, None]
    return Grades(jnp.mean(is_right.astype(jnp.float32), axis=-1))


class BagPolicy(Policy):
  """logits = O tanh(W mean of E[tokens so far]) + b; a completion ends with END or at LENGTH.

  A state that went through W from token to token would be no test of ours: with W split over two
  of three mesh axes, XLA (jaxlib 0.12.0.1, CPU) gives the gradient of such a scan wrong.
  """

  completions = 'arms'
  max_new_tokens = LENGTH
  eval_fields = frozenset({'greedy'})
  partition_rules = (
    ('embedding', PartitionSpec('tensor', 'fsdp')),
    ('transition', PartitionSpec('fsdp', 'tensor')),
    ('head/kernel', PartitionSpec('fsdp', 'tensor')),
  )

  def __init__(
    self, task, width, freeze_cell=False, greedy=False, temperature=1.0, dtype='float32'
  ):
    self.vocab_size, self.width, self.dtype = task.vocab_size, width, dtype
    self.frozen = frozenset({'cell'}) if freeze_cell else frozenset()
    self.samples_exactly = not greedy
    self._greedy, self._temperature = greedy, temperature

  def init(self, key):
    keys = jax.random.split(key, 3)
    normal = lambda key, *shape: jax.random.normal(key, shape, self.dtype) / shape[0] ** 0.5
    return {
      'cell': {
        'embedding': normal(keys[0], self.vocab_size, self.width),
        'transition': normal(keys[1], self.width, self.width),
      },
      'head': {
        'kernel': normal(keys[2], self.width, self.vocab_size),
        'bias': jnp.zeros(self.vocab_size, self.dtype),
      },
    }

  def _log_probs(self, params, mean_embedding):
    """Returns `[..., V]` from the mean of embeddings, `[..., D]`."""
    state = jnp.tanh(mean_embedding @ params['cell']['transition'])
    logits = state @ params['head']['kernel'] + params['head']['bias']
    return jax.nn.log_softmax(logits.astype(jnp.float32) / self._temperature)

  def sample(self, params, prompts, num_samples, key):
    shape = (prompts.tokens.shape[0], num_samples)

    def one_token(carry, inputs):
      total, token, is_live = carry
      count, key = inputs
      total += params['cell']['embedding'][token]
      log_probs = self._log_probs(params, total / count)
      drawn = jax.random.categorical(key, log_probs)
      token = jnp.where(is_live, jnp.argmax(log_probs, -1) if self._greedy else drawn, END)
      log_prob = jnp.take_along_axis(log_probs, token[..., None], -1)[..., 0]
      written = token, is_live, jnp.where(is_live, log_prob, 0)
      return (total, token, is_live & (token != END)), written

    first = jnp.broadcast_to(prompts.tokens, shape)
    carry = jnp.zeros((*shape, self.width), self.dtype), first, jnp.ones(shape, bool)
    counts = jnp.arange(1, LENGTH + 1).astype(self.dtype)
    _, written = jax.lax.scan(one_token, carry, (counts, jax.random.split(key, LENGTH)))
    return Rollout(prompts.tokens, prompts.mask, *(jnp.moveaxis(x, 0, -1) for x in written))

  def log_probs_and_entropy(self, params, rollout):
    *shape, length = rollout.completions.shape
    first = jnp.broadcast_to(rollout.prompt_tokens[:, None], (*shape, 1))
    inputs = jnp.concatenate([first, rollout.completions[..., :-1]], axis=-1)
    counts = jnp.arange(1, length + 1).astype(self.dtype)[:, None]
    totals = jnp.cumsum(params['cell']['embedding'][inputs], axis=-2)
    log_probs = self._log_probs(params, totals / counts)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.take_along_axis(log_probs, rollout.completions[..., None], -1)[..., 0], entropy


def make_policy(vocab_size=8, width=16, **options):
  return BagPolicy(CountTask(vocab_size), width, **options)


def make_rollout(policy, params, num_prompts=8, num_samples=4, seed=0):
  """Returns a rollout of ragged completions, and advantages, those of prompt 1 all zero."""
  keys = jax.random.split(jax.random.key(seed), 3)
  prompts = CountTask(policy.vocab_size).draw(num_prompts, keys[0])
  rollout = policy.sample(params, prompts, num_samples, keys[1])
  advantages = jax.random.normal(keys[2], (num_prompts, num_samples)).at[1].set(0)
  return rollout, advantages


def merged(metrics):
  """Returns the scalars of a `losses.LossMetrics` by name."""
  return {name: x for totals in metrics for scalars in totals for name, x in scalars.items()}


def config_of(**overrides):
  """Returns a config of the task and the policy under the names 'count' and 'bag'."""
  config = default.get_config()
  config.task = {'name': 'count', 'vocab_size': 8}
  config.policy = {'name': 'bag', 'width': 16}
  config.update_from_flattened_dict(
    {
      'num_train_steps': 4,
      'rollout.num_prompts': 8,
      'rollout.num_samples': 4,
      'advantage.k': 2,
      'eval.every': 100,
      'eval.ks': (1, 4),
      'eval.num_prompts': 8,
      'eval.num_samples': 4,
      'checkpoint.every': 2,
      'log.every': 1,
      'log.tensorboard': False,
    }
  )
  with config.unlocked():
    for field, value in overrides.items():
      group, name = field.split('__')
      config[group][name] = value
  return config

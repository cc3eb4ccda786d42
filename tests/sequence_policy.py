"""A tiny recurrent language model and a task for it: ragged completions, parameters to split."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from configs import default
from pkpo_jax.types import Prompts, Rollout

END = 0
LENGTH = 5


class CountTask:
  """Prompts are one token; the reward is the share of a completion's places that repeat it."""

  is_binary = False

  def __init__(self, vocab_size):
    self.vocab_size = vocab_size

  def prompts(self, step, num_prompts, key):
    ids = jax.random.randint(key, (num_prompts,), 1, self.vocab_size)
    return Prompts(ids=ids, tokens=ids[:, None], hidden=ids)

  def rewards(self, prompts, rollout, key):
    is_right = rollout.completions == prompts.hidden[:, None, None]
    return jnp.mean(is_right.astype(jnp.float32), axis=-1)


class RecurrentPolicy:
  """h' = tanh(h W + E[token]), logits = h' O + b; a completion ends with END or at LENGTH."""

  partition_rules = (
    ('embedding', PartitionSpec('tensor', 'fsdp')),
    ('transition', PartitionSpec('fsdp', 'tensor')),
    ('head/kernel', PartitionSpec('fsdp', 'tensor')),
  )

  def __init__(
    self, task, width, freeze_cell=False, greedy=False, temperature=1.0, dtype=jnp.float32
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

  def _step(self, params, state, token):
    cell, head = params['cell'], params['head']
    state = jnp.tanh(state @ cell['transition'] + cell['embedding'][token])
    logits = (state @ head['kernel'] + head['bias']).astype(jnp.float32)
    return state, jax.nn.log_softmax(logits / self._temperature)

  def sample(self, params, prompts, num_samples, key):
    shape = (prompts.tokens.shape[0], num_samples)

    def one_token(carry, key):
      state, token, is_live = carry
      state, log_probs = self._step(params, state, token)
      drawn = jax.random.categorical(key, log_probs)
      token = jnp.where(is_live, jnp.argmax(log_probs, -1) if self._greedy else drawn, END)
      log_prob = jnp.take_along_axis(log_probs, token[..., None], -1)[..., 0]
      found = token, is_live, jnp.where(is_live, log_prob, 0)
      return (state, token, is_live & (token != END)), found

    state = jnp.zeros((*shape, self.width), self.dtype)
    first = jnp.broadcast_to(prompts.tokens, shape)
    keys = jax.random.split(key, LENGTH)
    _, found = jax.lax.scan(one_token, (state, first, jnp.ones(shape, bool)), keys)
    return Rollout(prompts.tokens, *(jnp.moveaxis(x, 0, -1) for x in found))

  def log_probs_and_entropy(self, params, rollout):
    shape = rollout.completions.shape
    first = jnp.broadcast_to(rollout.prompt_tokens[:, None], (*shape[:2], 1))
    inputs = jnp.concatenate([first, rollout.completions[..., :-1]], axis=-1)

    def one_token(state, tokens):
      token, target = tokens
      state, log_probs = self._step(params, state, token)
      log_prob = jnp.take_along_axis(log_probs, target[..., None], -1)[..., 0]
      return state, (log_prob, -jnp.sum(jnp.exp(log_probs) * log_probs, -1))

    state = jnp.zeros((*shape[:2], self.width), self.dtype)
    tokens = tuple(jnp.moveaxis(x, -1, 0) for x in (inputs, rollout.completions))
    _, found = jax.lax.scan(one_token, state, tokens)
    return tuple(jnp.moveaxis(x, 0, -1) for x in found)


def make_policy(vocab_size=8, width=16, **options):
  return RecurrentPolicy(CountTask(vocab_size), width, **options)


def make_rollout(policy, params, num_prompts=8, num_samples=4, seed=0):
  """Returns a rollout of ragged completions, and advantages, those of prompt 1 all zero."""
  keys = jax.random.split(jax.random.key(seed), 3)
  prompts = CountTask(policy.vocab_size).prompts(0, num_prompts, keys[0])
  rollout = policy.sample(params, prompts, num_samples, keys[1])
  advantages = jax.random.normal(keys[2], (num_prompts, num_samples)).at[1].set(0)
  return rollout, advantages


def config_of(**overrides):
  """Returns a config of the task and the policy under the names 'count' and 'recurrent'."""
  config = default.get_config()
  config.task = {'name': 'count', 'vocab_size': 8}
  config.policy = {'name': 'recurrent', 'width': 16}
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

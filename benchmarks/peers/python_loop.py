"""Sampling by a loop in Python: a jitted step a token, as kvfrans/lmpo does it.

Written for this benchmark, with the model of pkpo_jax, so that what differs is the loop alone. A
prompt is read once for each of its completions, and all completions are drawn to the last token.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import ours, tiny_gemma2


class Sampler:
  """Reads each prompt n times, then calls a jitted step for each token; cache donated.

  The host never waits for a token, only for all of them at the end.
  """

  about = ours.ABOUT

  def __init__(self, workload):
    self._workload = workload
    self._params = ours.params(workload)
    model = ours.policy(workload).model
    self._prefill = jax.jit(functools.partial(_prefill, model, workload['new_tokens']))
    self._step = jax.jit(functools.partial(_step, model), donate_argnames='cache')
    self._seeds = itertools.count()

  def __call__(self):
    prompts = tiny_gemma2.repeated_prompts(self._workload)
    tokens = self._sample(prompts, temperature=1.0)
    assert tokens.shape == (len(prompts), self._workload['new_tokens'])

  def greedy(self):
    """Returns the most likely completion of each prompt."""
    return self._sample(tiny_gemma2.prompts(self._workload), temperature=0.0).tolist()

  def _sample(self, prompts, temperature):
    key = jax.random.key(next(self._seeds))
    token, memory, cache = self._prefill(self._params, prompts, key, temperature)
    tokens = [token]
    for index in range(1, self._workload['new_tokens']):
      position = prompts.shape[1] + index - 1
      token, cache = self._step(
        self._params,
        token,
        position,
        memory,
        cache=cache,
        index=index,
        key=key,
        temperature=temperature,
      )
      tokens.append(token)
    return np.stack(jax.device_get(tokens), axis=1)


def _prefill(model, new_tokens, params, prompts, key, temperature):
  """Returns the first tokens `[rows]`, the prompts' keys and values, and an empty cache."""
  rows, length = prompts.shape
  positions = jnp.broadcast_to(jnp.arange(length), (rows, 1, length))
  hidden, key_values = model(params, prompts[:, None], positions)
  token = _draw(model.logits(params, hidden[:, 0, -1]), jax.random.fold_in(key, 0), temperature)
  return token, model.prompt_memory(key_values), model.empty_cache(rows, 1, new_tokens)


def _step(model, params, token, position, memory, cache, index, key, temperature):
  """Returns the next tokens `[rows]`, and the cache with the last ones written in."""
  positions = jnp.full((len(token), 1, 1), position, jnp.int32)
  hidden, cache = model(params, token[:, None, None], positions, memory, cache, index - 1)
  logits = model.logits(params, hidden[:, 0, 0])
  return _draw(logits, jax.random.fold_in(key, index), temperature), cache


def _draw(logits, key, temperature):
  drawn = jax.random.categorical(key, logits / jnp.where(temperature == 0, 1.0, temperature))
  return jnp.where(temperature == 0, jnp.argmax(logits, axis=-1), drawn).astype(jnp.int32)

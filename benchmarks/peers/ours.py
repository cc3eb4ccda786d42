"""pkpo_jax: its sampler."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np

import pkpo_jax
from benchmarks.peers import gemma_library, tiny_gemma2
from pkpo_jax import models
from pkpo_jax.models import gemma
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.types import Prompts

ABOUT = {'versions': f'pkpo_jax {pkpo_jax.__version__}, jax {jax.__version__}'}


def policy(
  workload,
  make=LanguageModel,
  temperature=1.0,
  log_prob_chunk=None,
  stop_id=tiny_gemma2.NEVER,
  num_packings=None,
):
  """Returns the tiny Gemma-2, a policy, in float32 and without recomputation."""
  sizes = workload['sizes']
  models.PRESETS['benchmark'] = 'gemma2'
  gemma.PRESETS['benchmark'] = gemma_library.config(sizes)
  tokenizer = types.SimpleNamespace(vocab_size=sizes['vocab_size'], stop_ids=(stop_id,))
  return make(
    types.SimpleNamespace(tokenizer=tokenizer),
    preset='benchmark',
    weights=None,
    dtype='float32',
    remat=False,
    lora_rank=None,
    max_new_tokens=workload['new_tokens'],
    temperature=temperature,
    top_k=None,
    top_p=None,
    log_prob_chunk=log_prob_chunk or workload['new_tokens'],
    num_packings=num_packings,
  )


def params(workload):
  return {'weights': jax.tree.map(jnp.asarray, tiny_gemma2.weights(workload['sizes']))}


def prompts(workload):
  tokens = jnp.asarray(tiny_gemma2.prompts(workload))
  mask = jnp.ones(tokens.shape, bool)
  return Prompts(ids=jnp.arange(len(tokens)), tokens=tokens, mask=mask, hidden=())


class Sampler:
  """LanguageModel.sample, jitted as in training; gives log-probabilities too."""

  about = ABOUT

  def __init__(self, workload):
    self._workload = workload
    self._params, self._prompts = params(workload), prompts(workload)
    self._sample = jax.jit(policy(workload).sample, static_argnums=2)
    self._seeds = itertools.count()

  def __call__(self):
    key = jax.random.key(next(self._seeds))
    rollout = self._sample(self._params, self._prompts, self._workload['num_samples'], key)
    # On the host, as the other samplers' tokens are.
    assert np.all(rollout.completion_mask) and np.asarray(rollout.completions).ndim == 3

  def greedy(self):
    """Returns the most likely completion of each prompt."""
    sample = jax.jit(policy(self._workload, temperature=0.0).sample, static_argnums=2)
    rollout = sample(self._params, self._prompts, 1, jax.random.key(0))
    return rollout.completions[:, 0].tolist()

"""google-tunix: its sampler, and its GRPO learner."""

import itertools
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.generate import sampler as sampler_lib
from tunix.models.gemma import model as model_lib
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from benchmarks.peers import gate, tiny_gemma2

ABOUT = {'versions': f'google-tunix {metadata.version("google-tunix")}, jax {jax.__version__}'}


class ForcedLengths(model_lib.Gemma):
  """A Gemma whose completions end at the lengths of a workload, while it samples.

  Rows are known by their prompts, of which each is there `num_samples` times in a row. Their
  lengths stay in the cache.
  """

  workload = None

  def init_cache(self, batch_size, cache_size, dtype):
    cache = super().init_cache(batch_size, cache_size, dtype)
    return cache | {'lengths': jnp.zeros(batch_size, jnp.int32)}

  def __call__(self, last_tokens, positions, cache, attention_mask):
    if cache is None:  # An update.
      return super().__call__(last_tokens, positions, cache, attention_mask)
    lengths = cache['lengths']
    layers = {name: layer for name, layer in cache.items() if name != 'lengths'}
    logits, layers = super().__call__(last_tokens, positions, layers, attention_mask)
    if last_tokens.shape[1] > 1:  # The prompts.
      known = jnp.asarray(tiny_gemma2.prompts(self.workload))
      prompt = jnp.argmax(jnp.all(last_tokens[:, None] == known, axis=-1), axis=-1)
      sample = jnp.arange(len(prompt)) % self.workload['num_samples']
      lengths = jnp.asarray(self.workload['lengths'], jnp.int32)[prompt, sample]
    num_tokens = positions[:, -1] + 2 - self.workload['prompt_length']
    is_last = (num_tokens >= lengths)[:, None, None]
    is_stop = jnp.arange(logits.shape[-1]) == tiny_gemma2.STOP_ID
    logits = jnp.where(is_stop, jnp.where(is_last, 1e9, -1e9), logits)
    return logits, layers | {'lengths': lengths}


def model(sizes, module=model_lib.Gemma):
  """Returns the tiny Gemma-2, an nnx module of tunix, in float32 and without recomputation."""
  types = (model_lib.AttentionType.LOCAL_SLIDING, model_lib.AttentionType.GLOBAL)
  config = model_lib.ModelConfig(
    num_layers=sizes['num_layers'],
    num_embed=sizes['vocab_size'],
    embed_dim=sizes['width'],
    hidden_dim=sizes['hidden'],
    num_heads=sizes['num_heads'],
    head_dim=sizes['head_dim'],
    num_kv_heads=sizes['num_kv_heads'],
    final_logit_softcap=sizes['logits_cap'],
    attn_logits_soft_cap=sizes['attention_cap'],
    use_post_attn_norm=True,
    use_post_ffw_norm=True,
    attention_types=tuple(itertools.islice(itertools.cycle(types), sizes['num_layers'])),
    sliding_window_size=sizes['window'],
    remat_config=model_lib.RematConfig.NONE,
  )
  return model_lib.module_from_linen_variables(
    module_factory=lambda: module(config, rngs=nnx.Rngs(params=0)),
    variables=jax.tree.map(jnp.asarray, tiny_gemma2.weights(sizes)),
    map_key_fn=model_lib._map_linen_var_names,
    assign_val_fn=model_lib._assign_linen_params_to_nnx_state,
  )


class Sampler:
  """tunix.generate.sampler.Sampler, with a cache just long enough and no log-probabilities.

  It has no n samples of a prompt: each prompt is given n times.
  """

  about = ABOUT

  def __init__(self, workload):
    self._workload = workload
    sizes = workload['sizes']
    self._sampler = sampler_lib.Sampler(
      model(sizes),
      tiny_gemma2.Tokenizer(),
      sampler_lib.CacheConfig(
        cache_size=workload['prompt_length'] + workload['new_tokens'],
        num_layers=sizes['num_layers'],
        num_kv_heads=sizes['num_kv_heads'],
        head_dim=sizes['head_dim'],
      ),
    )
    self._prompts = [tiny_gemma2.to_text(p) for p in tiny_gemma2.repeated_prompts(workload)]
    self._seeds = itertools.count()

  def __call__(self):
    # top_p = 1 without top_k skips the sort.
    tokens = self._sample(self._prompts, temperature=1.0, top_p=1.0)
    assert tokens.shape == (len(self._prompts), self._workload['new_tokens'])

  def greedy(self):
    """Returns the most likely completion of each prompt."""
    prompts = [tiny_gemma2.to_text(p) for p in tiny_gemma2.prompts(self._workload)]
    return self._sample(prompts).tolist()

  def _sample(self, prompts, **sampling):
    output = self._sampler(
      prompts,
      max_generation_steps=self._workload['new_tokens'],
      max_prompt_length=self._workload['prompt_length'],
      eos_tokens=[tiny_gemma2.NEVER],
      seed=next(self._seeds),
      **sampling,
    )
    return np.stack(output.tokens)


class _Tokenizer(tiny_gemma2.Tokenizer):
  """Counts the tokens that it is asked to decode."""

  def __init__(self):
    self.num_tokens = 0

  def decode(self, ids, **_):
    self.num_tokens += len(ids)
    return ''


class Learner:
  """GRPOLearner.train: one call is one step of it.

  Its best settings for this work: no KL and so no reference model, actor and rollout on one mesh
  and so one copy of the weights, no log-probabilities from the sampler, no recomputation, no log
  files. The sizes of micro batches are the workload's. Rewards are random numbers, which cost
  nothing.
  """

  about = ABOUT

  def __init__(self, workload):
    self._workload = workload
    mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    training = rl_cluster.RLTrainingConfig(
      actor_optimizer=optax.adam(workload['learning_rate']),
      eval_every_n_steps=10**9,
      max_steps=10**9,
      mini_batch_size=workload['num_prompts'],
      train_micro_batch_size=workload['train_micro_batch_size'],
      rollout_micro_batch_size=workload['rollout_micro_batch_size'],
      compute_logps_micro_batch_size=workload['num_prompts'],
      pbar_description=None,
    )
    length, new_tokens = workload['prompt_length'], workload['new_tokens']
    module, stop_id = model_lib.Gemma, tiny_gemma2.NEVER
    if workload['lengths'] is not None:
      module = type('Forced', (ForcedLengths,), {'workload': workload})
      stop_id = tiny_gemma2.STOP_ID
    rollout = base_rollout.RolloutConfig(
      max_tokens_to_generate=new_tokens,
      max_prompt_length=length,
      kv_cache_size=length + new_tokens,
      temperature=1.0,
      top_p=1.0,
      eos_tokens=[stop_id],
    )
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.ROLLOUT)
    self._tokenizer = _Tokenizer()
    cluster = rl_cluster.RLCluster(
      actor=model(workload['sizes'], module),
      tokenizer=self._tokenizer,
      cluster_config=rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh),
        training_config=training,
        rollout_config=rollout,
      ),
    )
    rng = np.random.default_rng(0)
    learner = grpo_learner.GRPOLearner(
      cluster,
      grpo_learner.GRPOConfig(num_generations=workload['num_samples'], beta=0.0),
      reward_fns=lambda prompts, completions, **_: list(rng.random(len(completions))),
    )
    self._prompts = np.array([tiny_gemma2.to_text(p) for p in tiny_gemma2.prompts(workload)])
    self._gate = gate.Gate()
    self._gate.start(lambda: learner.train(self._batches()))

  def __call__(self):
    self._tokenizer.num_tokens = 0
    self._gate.step()
    # Stop tokens are not decoded; where there are lengths, each completion has one.
    has_stop = self._workload['lengths'] is not None
    rows = self._workload['num_prompts'] * self._workload['num_samples']
    return {'num_tokens': self._tokenizer.num_tokens + rows * has_stop}

  def close(self):
    self._gate.close()

  def _batches(self):
    while self._gate.is_open():
      yield {'prompts': self._prompts}

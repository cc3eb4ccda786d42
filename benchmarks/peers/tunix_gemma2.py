"""google-tunix: its sampler, and its GRPO learner."""

import itertools
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.generate import sampler as sampler_lib
from tunix.models.gemma import model as model_lib

from benchmarks.peers import tiny_gemma2

ABOUT = {'versions': f'google-tunix {metadata.version("google-tunix")}, jax {jax.__version__}'}


def model(sizes):
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
    module_factory=lambda: model_lib.Gemma(config, rngs=nnx.Rngs(params=0)),
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

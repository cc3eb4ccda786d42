"""The gemma library's own sampler."""

import enum
import itertools
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from gemma import gm

from benchmarks.peers import tiny_gemma2


class _SpecialTokens(enum.IntEnum):
  PAD = 0
  EOS = tiny_gemma2.NEVER
  END_OF_TURN = tiny_gemma2.NEVER
  BEGIN_OF_TOOL_RESPONSE = tiny_gemma2.NEVER


class _Tokenizer(tiny_gemma2.Tokenizer):
  VERSION = 0
  FORMAT = None
  FORBIDDEN_TOKENS = ()
  special_tokens = _SpecialTokens


def config(sizes):
  """Returns the architecture."""
  types = (gm.nn.AttentionType.LOCAL_SLIDING, gm.nn.AttentionType.GLOBAL)
  return gm.nn.config.TransformerConfig(
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
  )


def model(sizes):
  """Returns the tiny Gemma-2, a flax module of the gemma library."""
  model_config = config(sizes)

  class TinyGemma2(gm.nn.Transformer):
    config: gm.nn.config.TransformerConfig = model_config
    INFO = type(gm.nn.Gemma2_2B.INFO)()

  return TinyGemma2(dtype=jnp.float32)


class Sampler:
  """gm.text.Sampler, with a cache and buffers just long enough; its default cache is 4096 long.

  It has no n samples of a prompt: each prompt is given n times.
  """

  about = {'versions': f'gemma {metadata.version("gemma")}, jax {jax.__version__}'}

  def __init__(self, workload):
    self._workload = workload
    length, new_tokens = workload['prompt_length'], workload['new_tokens']
    self._sampler = gm.text.Sampler(
      model=model(workload['sizes']),
      params=jax.tree.map(jnp.asarray, tiny_gemma2.weights(workload['sizes'])),
      tokenizer=_Tokenizer(),
      cache_length=length + new_tokens,
      max_out_length=new_tokens,
      pad_length=length,
    )
    self._prompts = [tiny_gemma2.to_text(p) for p in tiny_gemma2.repeated_prompts(workload)]
    self._seeds = itertools.count()

  def __call__(self):
    tokens = self._sample(self._prompts, gm.text.RandomSampling(temperature=1.0))
    assert tokens.shape == (len(self._prompts), self._workload['new_tokens'])

  def greedy(self):
    """Returns the most likely completion of each prompt."""
    prompts = [tiny_gemma2.to_text(p) for p in tiny_gemma2.prompts(self._workload)]
    return self._sample(prompts, gm.text.Greedy()).tolist()

  def _sample(self, prompts, sampling):
    output = self._sampler.sample(
      prompts, sampling=sampling, rng=next(self._seeds), return_state=True
    )
    assert int(output.state.step) == self._workload['new_tokens'], output.state.step
    return np.asarray(output.tokens)

"""transformers' generate, on PyTorch."""

import torch
import transformers

from benchmarks.peers import tiny_gemma2


def model(sizes):
  """Returns the tiny Gemma-2, a PyTorch module of transformers, in float32."""
  config = transformers.Gemma2Config(
    vocab_size=sizes['vocab_size'],
    hidden_size=sizes['width'],
    intermediate_size=sizes['hidden'],
    num_hidden_layers=sizes['num_layers'],
    num_attention_heads=sizes['num_heads'],
    num_key_value_heads=sizes['num_kv_heads'],
    head_dim=sizes['head_dim'],
    query_pre_attn_scalar=sizes['head_dim'],
    sliding_window=sizes['window'],
    attn_logit_softcapping=sizes['attention_cap'],
    final_logit_softcapping=sizes['logits_cap'],
    hidden_activation='gelu_pytorch_tanh',
    layer_types=[
      ('sliding_attention', 'full_attention')[i % 2] for i in range(sizes['num_layers'])
    ],
    max_position_embeddings=4096,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=None,
    # The only one with a soft cap.
    attn_implementation='eager',
    dtype=torch.float32,
  )
  module = transformers.Gemma2ForCausalLM(config)
  missing, unexpected = module.load_state_dict(_state(sizes), strict=False)
  # The unembedding is the embedding.
  assert not unexpected and missing == ['lm_head.weight'], (missing, unexpected)
  return module.eval()


def _state(sizes):
  """Returns the weights by their names here, each `[out, in]`."""
  tree = tiny_gemma2.weights(sizes)
  width = sizes['width']
  state = {
    'model.embed_tokens.weight': tree['embedder']['input_embedding'],
    'model.norm.weight': tree['final_norm']['scale'],
  }
  for index in range(sizes['num_layers']):
    layer, to = tree[f'layer_{index}'], f'model.layers.{index}.'
    attention, mlp = layer['attn'], layer['mlp']
    keys, values = attention['kv_einsum']['w']
    for name, weight in (('q', attention['q_einsum']['w']), ('k', keys), ('v', values)):
      state[f'{to}self_attn.{name}_proj.weight'] = weight.transpose(0, 2, 1).reshape(-1, width)
    state[f'{to}self_attn.o_proj.weight'] = attention['attn_vec_einsum']['w'].reshape(-1, width).T
    gate, up = mlp['gating_einsum']
    state[f'{to}mlp.gate_proj.weight'] = gate.T
    state[f'{to}mlp.up_proj.weight'] = up.T
    state[f'{to}mlp.down_proj.weight'] = mlp['linear'].T
    state[f'{to}input_layernorm.weight'] = layer['pre_attention_norm']['scale']
    state[f'{to}post_attention_layernorm.weight'] = layer['post_attention_norm']['scale']
    state[f'{to}pre_feedforward_layernorm.weight'] = layer['pre_ffw_norm']['scale']
    state[f'{to}post_feedforward_layernorm.weight'] = layer['post_ffw_norm']['scale']
  return {name: torch.tensor(weight) for name, weight in state.items()}


class Sampler:
  """generate with num_return_sequences, a growing cache and inference mode, uncompiled."""

  about = {'versions': f'transformers {transformers.__version__}, torch {torch.__version__}'}

  def __init__(self, workload):
    self._workload = workload
    self._model = model(workload['sizes'])
    self._prompts = torch.tensor(tiny_gemma2.prompts(workload), dtype=torch.long)
    torch.manual_seed(0)

  def __call__(self):
    tokens = self._generate(
      do_sample=True,
      temperature=1.0,
      # Off: their defaults sort.
      top_k=0,
      top_p=1.0,
      num_return_sequences=self._workload['num_samples'],
    )
    rows = self._workload['num_prompts'] * self._workload['num_samples']
    assert tokens.shape == (rows, self._workload['new_tokens'])

  def greedy(self):
    """Returns the most likely completion of each prompt."""
    return self._generate(do_sample=False).tolist()

  def _generate(self, **sampling):
    with torch.inference_mode():
      tokens = self._model.generate(
        self._prompts,
        attention_mask=torch.ones_like(self._prompts),
        max_new_tokens=self._workload['new_tokens'],
        **sampling,
      )
    return tokens[:, self._prompts.shape[1] :]


class CompiledSampler(Sampler):
  """The same through torch.compile, with symbolic shapes: one graph while the cache grows."""

  def __init__(self, workload):
    super().__init__(workload)
    self._model.forward = torch.compile(self._model.forward, dynamic=True)

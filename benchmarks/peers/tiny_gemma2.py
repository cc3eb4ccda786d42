"""The Gemma-2 that every candidate runs: sizes, weights and prompts, in NumPy alone."""

import numpy as np

# A million parameters; layers alternate between a sliding window and all tokens, like Gemma-2's.
SIZES = {
  'vocab_size': 128,
  'width': 128,
  'hidden': 512,
  'num_layers': 4,
  'num_heads': 4,
  'num_kv_heads': 2,
  'head_dim': 32,
  'window': 32,
  'attention_cap': 50.0,
  'logits_cap': 30.0,
}
# For tests.
SMALLEST = SIZES | {'width': 32, 'hidden': 64, 'num_layers': 2, 'head_dim': 8, 'window': 8}
# No token has this id, so that no completion stops early.
NEVER = -1
# The token that ends a completion where a workload has lengths.
STOP_ID = 1


def weights(sizes, seed=0):
  """Returns float32 weights, nested and shaped as the gemma library has them."""
  rng = np.random.default_rng(seed)
  width, hidden, head_dim = sizes['width'], sizes['hidden'], sizes['head_dim']
  heads, kv_heads = sizes['num_heads'], sizes['num_kv_heads']

  def normal(*shape, scale):
    return (scale * rng.standard_normal(shape)).astype(np.float32)

  def norm(mean=0.0):
    return {'scale': mean + normal(width, scale=0.1)}

  # Embeddings small beside what the layers add: else the likeliest token is always the last one,
  # whatever the layers do. The final norm brings the logits back to a spread of about one.
  tree = {'embedder': {'input_embedding': normal(sizes['vocab_size'], width, scale=0.03)}}
  for index in range(sizes['num_layers']):
    tree[f'layer_{index}'] = {
      'attn': {
        'q_einsum': {'w': normal(heads, width, head_dim, scale=width**-0.5)},
        'kv_einsum': {'w': normal(2, kv_heads, width, head_dim, scale=width**-0.5)},
        'attn_vec_einsum': {'w': normal(heads, head_dim, width, scale=(heads * head_dim) ** -0.5)},
      },
      'mlp': {
        'gating_einsum': normal(2, width, hidden, scale=width**-0.5),
        'linear': normal(hidden, width, scale=hidden**-0.5),
      },
      'pre_attention_norm': norm(),
      'post_attention_norm': norm(),
      'pre_ffw_norm': norm(),
      'post_ffw_norm': norm(),
    }
  tree['final_norm'] = norm(mean=3.0)
  return tree


def num_parameters(tree):
  if isinstance(tree, dict):
    return sum(map(num_parameters, tree.values()))
  return tree.size


def prompts(workload, seed=0):
  """Returns `[num_prompts, prompt_length]` int32 tokens, none of them 0, which is padding."""
  rng = np.random.default_rng(seed)
  shape = (workload['num_prompts'], workload['prompt_length'])
  return rng.integers(1, workload['sizes']['vocab_size'], shape).astype(np.int32)


def repeated_prompts(workload):
  """Returns the prompts, each `num_samples` times in a row, for those that take no n."""
  return np.repeat(prompts(workload), workload['num_samples'], axis=0)


def to_text(tokens):
  """Returns a prompt as text that `Tokenizer` reads back: the libraries' samplers take text."""
  return ' '.join(map(str, tokens))


class Tokenizer:
  """Text is numbers between blanks. Nothing is looked up, and `decode` costs nothing."""

  def encode(self, text, **_):
    return [int(word) for word in text.split()]

  def decode(self, ids, **_):
    return ''

  def pad_id(self):
    return 0

  def bos_id(self):
    return None

  def eos_id(self):
    return NEVER

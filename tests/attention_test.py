"""Attention in blocks of tokens is attention of all of them, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.parity import FIXTURES
from pkpo_jax.errors import FieldError
from pkpo_jax.models import architecture_of
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies.language_model import LanguageModel, completion_hidden

NUM_PROMPTS, NUM_SAMPLES, PROMPT_LENGTH, LENGTH = 2, 2, 11, 14


# With windows and soft caps; with neither. Blocks that divide no length, and of one token.
@pytest.mark.parametrize(('variant', 'block'), [('gemma2', 4), ('gemma2', 1), ('llama', 5)])
def test_blocks_are_the_whole(variant, block):
  architecture = architecture_of(None, str(FIXTURES / variant))
  assert any(window and window < LENGTH for window in architecture.windows) == (variant == 'gemma2')
  key = jax.random.key(0)
  shape = (NUM_PROMPTS, PROMPT_LENGTH)
  prompts = jax.random.randint(key, shape, 1, architecture.num_embeddings)
  mask = jnp.arange(PROMPT_LENGTH) >= jnp.array([[0], [3]])
  shape = (NUM_PROMPTS, NUM_SAMPLES, LENGTH)
  completions = jax.random.randint(key, shape, 1, architecture.num_embeddings)
  weights = jax.random.normal(key, (*shape, architecture.width))
  models = [Transformer(architecture, attention_block=each) for each in (None, block)]
  params = models[0].init(key)
  params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape, x.dtype), params)

  def value_and_grad(model):
    def loss_fn(params):
      hidden = completion_hidden(model, params, prompts, mask, completions)
      return jnp.sum(weights * hidden), hidden

    return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)

  ((_, whole), gradient), ((_, blocked), blocked_gradient) = map(value_and_grad, models)
  np.testing.assert_allclose(blocked, whole, atol=3e-5, rtol=1e-4)
  largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), blocked_gradient, gradient
  )


def test_memory_is_linear_in_the_length():
  """Planned, not run; without blocks it doubles twice."""
  architecture = architecture_of('llama_micro', None)

  def memory(length, block):
    model = Transformer(architecture, remat=True, attention_block=block)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, 1, length), jnp.int32)
    loss_fn = lambda params, tokens: jnp.sum(model(params, tokens, tokens)[0])
    compiled = jax.jit(jax.grad(loss_fn)).lower(params, tokens).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert memory(2048, 64) < 2.2 * memory(1024, 64)
  assert memory(2048, None) > 3 * memory(1024, None)


def test_bad_block():
  class Task:
    tokenizer = None

  with pytest.raises(FieldError, match='attention_block: expected at least 1 or None, got 0'):
    LanguageModel(Task(), attention_block=0)

"""What the models that stand in for a transformer in tests of the sampler have in common."""

import jax.numpy as jnp


class NoMemory:
  """A model that keeps nothing of prompts and completions; a subclass calls and gives logits."""

  def prompt_positions(self, prompt_mask):
    return jnp.zeros(prompt_mask.shape, jnp.int32)

  def prompt_memory(self, key_values):
    return ()

  def empty_cache(self, num_prompts, num_samples, length):
    return ()

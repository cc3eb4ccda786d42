"""The matrix products of a decode step and nothing else: what no sampler can beat here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Sampler:
  """The products with weights of `new_tokens` decode steps, one after another, in one jit.

  Products with the same left side are one product. Attention, which has no weights, norms, caches
  and sampling are left out.
  """

  def __init__(self, workload):
    sizes = workload['sizes']
    heads, kv_heads, head_dim = sizes['num_heads'], sizes['num_kv_heads'], sizes['head_dim']
    width, hidden = sizes['width'], sizes['hidden']
    layer = (
      (width, (heads + 2 * kv_heads) * head_dim),
      (heads * head_dim, width),
      (width, 2 * hidden),
      (hidden, width),
    )
    rng = np.random.default_rng(0)

    def draw(*shape):
      return jnp.asarray(shape[0] ** -0.5 * rng.standard_normal(shape), jnp.float32)

    rows = workload['num_prompts'] * workload['num_samples']
    self._x = draw(rows, width)
    self._layers = [[draw(*shape) for shape in layer] for _ in range(sizes['num_layers'])]
    self._unembedding = draw(width, sizes['vocab_size'])
    self._steps = functools.partial(_steps, num_steps=workload['new_tokens'])

  def __call__(self):
    jax.block_until_ready(self._steps(self._x, self._layers, self._unembedding))


@functools.partial(jax.jit, static_argnames='num_steps')
def _steps(x, layers, unembedding, num_steps):
  def step(_, x):
    for qkv, out, gating, linear in layers:
      x = _product(_product(x, qkv, out.shape[0]), out, x.shape[1])
      x = _product(_product(x, gating, linear.shape[0]), linear, x.shape[1])
    return _product(x, unembedding, x.shape[1])

  return lax.fori_loop(0, num_steps, step, x)


def _product(x, weight, width):
  """Returns `width` columns that depend on all columns of x @ weight, kept near 1 in size."""
  y = x @ weight
  # A maximum cannot be moved to the other side of the product, so that none is left out.
  y = jnp.max(y, axis=-1, keepdims=True) + (
    y[:, :width] if y.shape[1] >= width else jnp.pad(y, ((0, 0), (0, width - y.shape[1])))
  )
  return y / 4

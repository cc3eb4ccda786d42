"""Memory and time of log-probabilities from hidden states: python -m benchmarks.log_prob_memory.

Compares value and gradient of `chunked_log_probs_and_entropy`, which has logits of a few tokens of
each completion at a time, with the plain way, which has them all: [P, N, L, V] float32, several
times over in the backward pass. Loss: minus the mean of advantage x log-probability, minus a
little entropy; gradients with respect to hidden states and unembedding. Memory is what XLA plans
for the compiled program (temporary + outputs). Below it, what XLA plans for a whole training step
of a tiny Gemma-2 with this vocabulary, both ways; that is compiled, not run. Results go to
OUTDIR/log_prob_memory_BACKEND.csv, .md. `--quick` shows that it runs. The real width on an
accelerator: --width 2304 --tokens 256 512 1024.
"""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from benchmarks.common import Row
from benchmarks.peers import ours, tiny_gemma2
from configs import default
from pkpo_jax import sharding
from pkpo_jax.policies.language_model import (
  LanguageModel,
  chunked_log_probs_and_entropy,
  completion_hidden,
)
from pkpo_jax.run import jit_train_step, make_run
from pkpo_jax.settings import MeshSettings
from pkpo_jax.train_step import init_state
from pkpo_jax.types import Rollout

SEED = 0
TABLES = {
  'memory': (
    *('prompts', 'n', 'tokens', 'vocab', 'width', 'chunk', 'chunked_mib', 'plain_mib'),
    *('plain/chunked_memory', 'logits_mib', 'chunked_s', 'plain_s', 'plain/chunked_time'),
    *('gradient_error', 'note'),
  ),
  'step': (
    *('prompts', 'n', 'tokens', 'vocab', 'width', 'chunk', 'state_mib', 'chunked_mib', 'plain_mib'),
    'plain/chunked_memory',
  ),
}
CAPTIONS = {
  'memory': (
    'Planned memory (temporary + outputs) and median time, in turns, of value and gradient; '
    'logits_mib: one [P, N, L, V] in float32; gradient_error: largest difference between the two '
    'over the largest entry.'
  ),
  'step': (
    'Planned peak of a training step of the tiny Gemma-2 with this vocabulary: temporary memory '
    'and arguments, of which state_mib are parameters and optimizer state.'
  ),
}


def plain_log_probs_and_entropy(hidden, tokens, logits_fn):
  """Returns the same with the logits of all positions at once."""
  log_probs = jax.nn.log_softmax(logits_fn(hidden), axis=-1)
  entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
  return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0], entropy


def value_and_grad(log_probs_and_entropy):
  """Returns fn(hidden, table, tokens, advantages) -> (loss, gradients of hidden and table)."""

  def loss_fn(hidden, table, tokens, advantages):
    def logits_fn(hidden):
      logits = jnp.einsum('...d,vd->...v', hidden, table, preferred_element_type=jnp.float32)
      return 30.0 * jnp.tanh(logits / 30.0)

    log_probs, entropy = log_probs_and_entropy(hidden, tokens, logits_fn)
    return -jnp.mean(advantages[..., None] * log_probs) - 1e-3 * jnp.mean(entropy)

  return jax.jit(jax.value_and_grad(loss_fn, argnums=(0, 1)))


def planned_mib(compiled) -> float:
  memory = compiled.memory_analysis()
  return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20


def memory_rows(
  num_prompts: int,
  num_samples: int,
  lengths: Sequence[int],
  vocab_size: int,
  width: int,
  chunks: Sequence[int],
  dtype: str,
  repeats: int,
  max_plain_mib: float,
) -> Iterator[Row]:
  rng = np.random.default_rng(SEED)

  def draw(*shape, scale):
    return jnp.asarray(scale * rng.standard_normal(shape, np.float32), dtype)

  table = draw(vocab_size, width, scale=width**-0.5)
  for length in lengths:
    shape = (num_prompts, num_samples, length)
    hidden = draw(*shape, width, scale=1.0)
    tokens = jnp.asarray(rng.integers(0, vocab_size, shape), jnp.int32)
    advantages = jnp.asarray(rng.standard_normal(shape[:2]), jnp.float32)
    arguments = (hidden, table, tokens, advantages)
    plain = value_and_grad(plain_log_probs_and_entropy).lower(*arguments).compile()
    for chunk in (chunk for chunk in chunks if chunk <= length):
      chunked_fn = lambda *args, chunk=chunk: chunked_log_probs_and_entropy(*args, chunk)
      chunked = value_and_grad(chunked_fn).lower(*arguments).compile()
      row = {
        **{'prompts': num_prompts, 'n': num_samples, 'tokens': length, 'vocab': vocab_size},
        **{
          'width': width,
          'chunk': chunk,
          'logits_mib': 4 * hidden[..., 0].size * vocab_size / 2**20,
        },
        **{'chunked_mib': planned_mib(chunked), 'plain_mib': planned_mib(plain)},
      }
      row['plain/chunked_memory'] = row['plain_mib'] / row['chunked_mib']
      contenders = {'chunked': chunked, 'plain': plain}
      if row['plain_mib'] > max_plain_mib:
        row['note'] = f'plain not run: more than {max_plain_mib:.0f} MiB'
        del contenders['plain']
      results = {name: jax.block_until_ready(fn(*arguments)) for name, fn in contenders.items()}
      if 'plain' in results:
        row['gradient_error'] = common.largest_error(results['chunked'], results['plain'])
      del results
      seconds = common.time_in_turns(contenders, arguments, repeats)
      row |= {f'{name}_s': value for name, value in seconds.items()}
      if 'plain' in seconds:
        row['plain/chunked_time'] = seconds['plain'] / seconds['chunked']
      yield row


class PlainPolicy(LanguageModel):
  """LanguageModel with the logits of all positions at once."""

  def log_probs_and_entropy(self, params, rollout):
    prompts = rollout.prompt_tokens, rollout.prompt_mask
    hidden = completion_hidden(self.model, params, *prompts, rollout.completions)
    logits_fn = lambda hidden: self.model.logits(params, hidden)
    return plain_log_probs_and_entropy(hidden, rollout.completions, logits_fn)


def step_rows(
  num_prompts: int,
  num_samples: int,
  lengths: Sequence[int],
  vocab_size: int,
  chunks: Sequence[int],
  sizes: Mapping[str, Any],
) -> Iterator[Row]:
  config = default.get_config()
  config.num_train_steps = 1
  run = make_run(config)
  mesh = sharding.make_mesh(MeshSettings(data=1, fsdp=1, tensor=1, gather_for_sampling=False))
  sizes = {**sizes, 'vocab_size': vocab_size}
  key = jax.random.key(SEED)

  def peak_mib(length, make, chunk):
    """Returns the peak, and what of it is the state."""
    policy = ours.policy({'sizes': sizes, 'new_tokens': length}, make, log_prob_chunk=chunk)
    train_step = jit_train_step(policy, run.optimizer, run.settings.loss, mesh)
    state = jax.eval_shape(functools.partial(init_state, policy, run.optimizer), key)
    shape = (num_prompts, num_samples, length)
    rollout = Rollout(
      prompt_tokens=jax.ShapeDtypeStruct((num_prompts, 16), jnp.int32),
      prompt_mask=jax.ShapeDtypeStruct((num_prompts, 16), jnp.bool),
      completions=jax.ShapeDtypeStruct(shape, jnp.int32),
      completion_mask=jax.ShapeDtypeStruct(shape, jnp.bool),
      sampling_log_probs=jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    advantages = jax.ShapeDtypeStruct(shape[:2], jnp.float32)
    memory = train_step.lower(*state, rollout, advantages, key).compile().memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20, size / 2**20

  for length in lengths:
    plain_mib, state_mib = peak_mib(length, PlainPolicy, None)
    for chunk in (chunk for chunk in chunks if chunk <= length):
      chunked_mib, _ = peak_mib(length, LanguageModel, chunk)
      yield {
        **{'prompts': num_prompts, 'n': num_samples, 'tokens': length, 'vocab': vocab_size},
        **{'width': sizes['width'], 'chunk': chunk, 'state_mib': state_mib},
        **{'chunked_mib': chunked_mib, 'plain_mib': plain_mib},
        'plain/chunked_memory': plain_mib / chunked_mib,
      }


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument('--num_prompts', type=int, default=2)
  parser.add_argument('--num_samples', type=int, default=4)
  parser.add_argument('--tokens', type=int, nargs='+', default=[32, 64], help='of a completion')
  parser.add_argument('--vocab_size', type=int, default=256_128)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--chunks', type=int, nargs='+', default=[1, 4, 16], help='tokens at a time')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--max_plain_mib', type=float, default=8192, help='else plain is not run')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  sizes = tiny_gemma2.SIZES
  if options.quick:
    sizes, options.vocab_size, options.width = tiny_gemma2.SMALLEST, 1000, 8
    options.tokens, options.repeats = [8], 1
  header = common.describe(
    'benchmarks.log_prob_memory',
    arguments,
    f'seed: {SEED}; {options.dtype} hidden states and unembedding, float32 logits; '
    f'{options.repeats} calls of each in turns',
  )
  print('\n'.join(header), f'\n{CAPTIONS["memory"]}', sep='\n')
  start = time.perf_counter()
  rows = list(
    memory_rows(
      options.num_prompts,
      options.num_samples,
      options.tokens,
      options.vocab_size,
      options.width,
      options.chunks,
      options.dtype,
      options.repeats,
      options.max_plain_mib,
    )
  )
  common.print_table(TABLES['memory'], rows)
  print(f'\n{CAPTIONS["step"]}')
  groups = (options.num_prompts, options.num_samples)
  steps = list(step_rows(*groups, options.tokens, options.vocab_size, options.chunks, sizes))
  common.print_table(TABLES['step'], steps)
  backend = jax.default_backend()
  path = options.outdir / f'log_prob_memory_{backend}'
  title = f'Memory of log-probabilities on {backend}'
  common.write(title, {'memory': rows, 'step': steps}, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

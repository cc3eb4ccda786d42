"""Memory of a gradient against the length of completions: python -m benchmarks.attention_memory.

Compares attention of all tokens of a completion at once with attention of a block of them at a time
(`policy.attention_block`), for prompts of 2,048 tokens. Loss: the mean log-probability of a policy,
blocks recomputed in the backward pass, logits of a few tokens at a time; gradient with respect to
all parameters. Memory is what XLA plans for the compiled program beside its arguments; that is
compiled, not run. Time is the median of both in turns, where both are run. Results go to
OUTDIR/attention_memory_BACKEND.csv, .md. `--quick` shows that it runs.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Rollout

TABLES = {
  'memory': (
    *('preset', 'prompts', 'n', 'prompt_tokens', 'tokens', 'block', 'plain_mib', 'block_mib'),
    *('plain/block_memory', 'plain_s', 'block_s', 'block/plain_time', 'gradient_error'),
  ),
  'exponents': ('preset', 'plain_exponent', 'block_exponent'),
}
CAPTIONS = {
  'memory': (
    'Planned temporary memory, and median time in turns, of the gradient; gradient_error: largest '
    'difference between the two over the largest entry.'
  ),
  'exponents': 'Slopes of log memory against log length, by least squares.',
}


def gradient(preset: str, length: int, block: int | None):
  """Returns the jitted gradient fn(params, rollout) and the policy."""
  task = SimpleNamespace(tokenizer=CharacterTokenizer())
  policy = LanguageModel(
    task, preset, remat=True, attention_block=block, max_new_tokens=length, log_prob_chunk=64
  )

  def loss_fn(params, rollout):
    log_probs, _ = policy.log_probs_and_entropy(params, rollout)
    return jnp.mean(log_probs)

  return jax.jit(jax.grad(loss_fn)), policy


def rollout_of(num_prompts: int, num_samples: int, prompt_tokens: int, length: int) -> Rollout:
  """Returns random tokens, the prompts without padding."""
  rng = np.random.default_rng(0)
  shape = (num_prompts, num_samples, length)
  prompts = rng.integers(3, 90, (num_prompts, prompt_tokens)).astype(np.int32)
  completions = rng.integers(3, 90, shape).astype(np.int32)
  ones = lambda x: np.ones(x.shape, bool)
  return Rollout(
    prompts, ones(prompts), completions, ones(completions), np.zeros(shape, np.float32)
  )


def rows(presets, lengths, prompt_tokens, num_samples, block, repeats, longest_run):
  for preset in presets:
    for length in lengths:
      plain, policy = gradient(preset, length, None)
      blocked, _ = gradient(preset, length, block)
      rollout = rollout_of(1, num_samples, prompt_tokens, length)
      params = jax.eval_shape(policy.init, jax.random.key(0))
      compiled = {
        name: fn.lower(params, rollout).compile()
        for name, fn in (('plain', plain), ('block', blocked))
      }
      mib = {k: x.memory_analysis().temp_size_in_bytes / 2**20 for k, x in compiled.items()}
      row = {
        **{'preset': preset, 'prompts': 1, 'n': num_samples, 'prompt_tokens': prompt_tokens},
        **{'tokens': length, 'block': block},
        **{f'{name}_mib': value for name, value in mib.items()},
        'plain/block_memory': mib['plain'] / mib['block'],
      }
      if length <= longest_run:
        params = policy.init(jax.random.key(0))
        row |= measure(compiled, params, rollout, repeats)
      yield row


def measure(compiled, params, rollout, repeats):
  """Returns the times, their ratio and how far the gradients differ."""
  found = {name: jax.block_until_ready(fn(params, rollout)) for name, fn in compiled.items()}
  seconds = common.time_in_turns(compiled, (params, rollout), repeats)
  return {f'{name}_s': value for name, value in seconds.items()} | {
    'block/plain_time': seconds['block'] / seconds['plain'],
    'gradient_error': common.largest_error(found['block'], found['plain']),
  }


def exponents(found):
  """Returns for each preset how memory grows: the slopes of log memory against log length."""
  for preset in dict.fromkeys(row['preset'] for row in found):
    mine = [row for row in found if row['preset'] == preset]
    lengths = np.log([row['tokens'] for row in mine])
    fit = lambda name, lengths=lengths, mine=mine: float(
      np.polyfit(lengths, np.log([row[name] for row in mine]), 1)[0]
    )
    yield {'preset': preset, 'plain_exponent': fit('plain_mib'), 'block_exponent': fit('block_mib')}


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument('--presets', nargs='+', default=['llama_micro', 'gemma2_micro'])
  parser.add_argument('--tokens', type=int, nargs='+', default=[512, 1024, 2048, 4096, 8192])
  parser.add_argument('--prompt_tokens', type=int, default=2048)
  parser.add_argument('--num_samples', type=int, default=4)
  parser.add_argument('--block', type=int, default=128)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--longest_run', type=int, default=1024, help='longer ones are not run')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  if options.quick:
    options.presets, options.tokens, options.prompt_tokens = ['llama_micro'], [16, 32], 16
    options.block, options.repeats, options.num_samples = 8, 1, 2
  header = common.describe('benchmarks.attention_memory', arguments, 'seed: 0; float32')
  print('\n'.join(header), f'\n{CAPTIONS["memory"]}', sep='\n')
  found = list(
    rows(
      *(options.presets, options.tokens, options.prompt_tokens, options.num_samples),
      *(options.block, options.repeats, options.longest_run),
    )
  )
  tables = {'memory': found, 'exponents': list(exponents(found))}
  for name, table in tables.items():
    common.print_table(TABLES[name], table)
  path = options.outdir / f'attention_memory_{jax.default_backend()}'
  common.write('Memory of attention', tables, TABLES, CAPTIONS, header, path)


if __name__ == '__main__':
  main()

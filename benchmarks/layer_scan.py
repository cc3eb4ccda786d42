"""Layers one after another or in a loop: python -m benchmarks.layer_scan.

The library writes the layers of a model out one after another. Here the same layers run in a
`lax.scan` over repetitions of their pattern (Gemma-2: a local and a global layer; Gemma-3: six), on
parameters stacked by repetition. Times are those of tracing and of compiling, of sampling and of an
update with Adam, at the sizes of released models; memory is what XLA plans. Nothing of these sizes
is run: compiling needs no weights. That both give the same numbers is checked on a small model.
Results go to OUTDIR/layer_scan_BACKEND.csv, .md. `--quick` shows that it runs.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import common
from benchmarks.attention_memory import rollout_of
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Prompts

TABLES = {
  'compilation': (
    *('preset', 'program', 'layers', 'pattern', 'prompts', 'n', 'prompt_tokens', 'tokens'),
    *('unrolled_s', 'scanned_s', 'unrolled/scanned_time', 'unrolled_gib', 'scanned_gib'),
    'unrolled/scanned_memory',
  ),
  'agreement': ('preset', 'log_prob_error', 'same_completions'),
}
CAPTIONS = {
  'compilation': (
    'Time to trace and compile, and planned temporary memory, without the arguments (parameters '
    'and the state of Adam), which are the same.'
  ),
  'agreement': (
    'log_prob_error: largest difference of a log-probability over the largest entry; '
    'same_completions: whether sampling draws the same tokens.'
  ),
}


def pattern_of(windows: Sequence[int | None]) -> int:
  """Returns the length of the shortest pattern that the layers repeat as a whole."""
  lengths = range(1, len(windows) + 1)
  return next(p for p in lengths if tuple(windows[:p]) * (len(windows) // p) == tuple(windows))


class Scanned(Transformer):
  """The model with its layers in a loop.

  Parameters have `{'layers': [tree, ...]}` in place of 'layer_0', 'layer_1', ...: one tree for each
  layer of the pattern, its leaves `[repetitions, ...]`. So have keys and values.
  """

  def stack(self, params):
    """Returns the parameters of a `Transformer` in this one's order."""
    weights, pattern = dict(params['weights']), pattern_of(self.windows)
    layers = [weights.pop(f'layer_{i}') for i in range(len(self.windows))]
    weights['layers'] = [
      jax.tree.map(lambda *x: jnp.stack(x), *layers[j::pattern]) for j in range(pattern)
    ]
    return {'weights': weights}

  def __call__(self, params, tokens, positions, memory=None, cache=None, index=None):
    weights = dict(params['weights'])
    layers = weights.pop('layers')
    return self._module.apply(
      {'params': weights},
      *(tokens, positions, layers, memory, cache, index),
      method=self._scan,
    )

  def prompt_memory(self, key_values):
    pattern = len(key_values)
    one = SimpleNamespace(windows=self.windows[:pattern])
    return jax.vmap(lambda kv: Transformer.prompt_memory(one, kv))(key_values)

  def empty_cache(self, num_prompts, num_samples, length):
    pattern = pattern_of(self.windows)
    repetitions = len(self.windows) // pattern
    cache = super().empty_cache(num_prompts, num_samples, length)[:pattern]
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (repetitions, *x.shape)), cache)

  def _scan(self, module, tokens, positions, layers, memory, cache, index):
    blocks = [module.blocks[j].clone(parent=None, name=None) for j in range(len(layers))]

    def body(carry, repetition):
      x, cache = carry
      params, memory, i = repetition
      key_values = []
      for j, block in enumerate(blocks):
        past = cache and jax.tree.map(lambda y: lax.dynamic_index_in_dim(y, i, 0, False), cache[j])
        apply = lambda block, *args, window=self.windows[j]: self._apply_block(window, block, *args)
        rest = memory and memory[j], past, {}
        x, new = block.apply({'params': params[j]}, x, positions, index, *rest, method=apply)
        if cache is None:
          key_values.append(new)
        else:
          put = lambda y, z: lax.dynamic_update_index_in_dim(y, z, i, 0)
          cache = (*cache[:j], jax.tree.map(put, cache[j], new), *cache[j + 1 :])
      return (x, cache), tuple(key_values)

    if self._remat:
      body = jax.checkpoint(body)
    repetitions = jnp.arange(len(self.windows) // len(layers))
    start = self.architecture.embed(module, tokens), cache
    (x, cache), key_values = lax.scan(body, start, (layers, memory, repetitions))
    return self.architecture.normalize(module, x), cache or key_values


def make_policy(preset: str, tokens: int, dtype: str, scanned: bool):
  """Returns the policy and fn(key) -> its parameters."""
  task = SimpleNamespace(tokenizer=CharacterTokenizer())
  policy = LanguageModel(
    task, preset, dtype=dtype, remat=True, max_new_tokens=tokens, num_packings=0
  )
  if not scanned:
    return policy, policy.init
  unrolled = policy.model
  policy.model = Scanned(
    unrolled.architecture, unrolled.dtype, True, vocab_size=unrolled.vocab_size
  )
  return policy, lambda key: policy.model.stack(unrolled.init(key))


def prompts_of(rollout):
  """Returns the prompts of a rollout."""
  tokens, mask = map(jnp.asarray, (rollout.prompt_tokens, rollout.prompt_mask))
  return Prompts(ids=jnp.arange(len(tokens)), tokens=tokens, mask=mask, hidden=())


def programs(policy, init, rollout):
  """Yields the name, the function and the arguments of sampling and of an update."""
  params = jax.eval_shape(init, jax.random.key(0))
  prompts, num_samples = prompts_of(rollout), rollout.completions.shape[1]
  yield (
    'sampling',
    jax.jit(lambda params, key: policy.sample(params, prompts, num_samples, key).completions),
    (params, jax.random.key(0)),
  )
  optimizer = optax.adam(1e-6)

  def update(state, rollout, advantages):
    params, opt_state = state

    def loss_fn(params):
      log_probs, _ = policy.log_probs_and_entropy(params, rollout)
      return -jnp.mean(advantages * jnp.sum(log_probs, axis=-1))

    updates, opt_state = optimizer.update(jax.grad(loss_fn)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  state = params, jax.eval_shape(optimizer.init, params)
  advantages = jax.ShapeDtypeStruct(rollout.completions.shape[:2], jnp.float32)
  yield 'update', jax.jit(update, donate_argnums=0), (state, rollout, advantages)


def compilations(preset, options):
  """Returns the rows of a preset."""
  rollout = rollout_of(
    options.num_prompts, options.num_samples, options.prompt_tokens, options.tokens
  )
  found = {}
  for kind in ('unrolled', 'scanned'):
    policy, init = make_policy(preset, options.tokens, 'bfloat16', kind == 'scanned')
    for name, fn, arguments in programs(policy, init, rollout):
      start = time.perf_counter()
      compiled = fn.lower(*arguments).compile()
      row = found.setdefault(name, {})
      row[f'{kind}_s'] = time.perf_counter() - start
      row[f'{kind}_gib'] = compiled.memory_analysis().temp_size_in_bytes / 2**30
      print(preset, kind, name, f'{row[f"{kind}_s"]:.1f} s', file=sys.stderr, flush=True)
  windows = policy.model.windows
  for name, row in found.items():
    yield {
      **{'preset': preset, 'program': name, 'layers': len(windows)},
      **{'pattern': pattern_of(windows), 'prompts': options.num_prompts, 'n': options.num_samples},
      **{'prompt_tokens': options.prompt_tokens, 'tokens': options.tokens},
      **row,
      'unrolled/scanned_time': row['unrolled_s'] / row['scanned_s'],
      'unrolled/scanned_memory': row['unrolled_gib'] / row['scanned_gib'],
    }


def agreement(preset):
  """Returns the row that says how far the two differ, run in float32."""
  rollout, key = rollout_of(2, 3, 8, 12), jax.random.key(0)
  log_probs, completions = [], []
  for scanned in (False, True):
    policy, init = make_policy(preset, 12, 'float32', scanned)
    params = init(key)
    log_probs.append(jax.jit(policy.log_probs_and_entropy)(params, rollout)[0])
    completions.append(policy.sample(params, prompts_of(rollout), 3, key).completions)
  return {
    'preset': preset,
    'log_prob_error': common.largest_error(log_probs[1], log_probs[0]),
    'same_completions': bool(np.array_equal(*completions)),
  }


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='a tiny model: shows that it runs')
  parser.add_argument('--presets', nargs='+', default=['gemma2_2b', 'gemma2_9b'])
  parser.add_argument('--run_preset', default='gemma2_tiny', help='small model, run to compare')
  parser.add_argument('--num_prompts', type=int, default=4)
  parser.add_argument('--num_samples', type=int, default=8)
  parser.add_argument('--prompt_tokens', type=int, default=256)
  parser.add_argument('--tokens', type=int, default=512)
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  if options.quick:
    options.presets, options.run_preset = ['llama_micro'], 'llama_micro'
    options.prompt_tokens = options.tokens = 8
  header = common.describe('benchmarks.layer_scan', arguments, 'seed: 0; bfloat16')
  print('\n'.join(header), f'\n{CAPTIONS["compilation"]}', sep='\n')
  tables = {'agreement': [agreement(options.run_preset)]}
  tables['compilation'] = [
    row for preset in options.presets for row in compilations(preset, options)
  ]
  for name, columns in TABLES.items():
    common.print_table(columns, tables[name])
  path = options.outdir / f'layer_scan_{jax.default_backend()}'
  common.write('Layers in a loop', tables, TABLES, CAPTIONS, header, path)


if __name__ == '__main__':
  main()

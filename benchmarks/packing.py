"""Sampling with packings beside the one loop of all rows: python -m benchmarks.packing [--quick].

Completions end at lengths that are drawn first: log-normal, the longest L, half of the variance
between prompts. A model of random weights does all of its work, and its stop token is forced where
a completion has its length. Numbers of packings take turns with the loop without. Where all have
the same length, packings can only cost time.

A second table is about keys and values in bfloat16: how far log-probabilities at sampling are from
those of the forward pass that trains, of a small model and, where `--weights` holds it, of SmolLM2
135M (python -m pkpo_jax.pretrained smollm2_135m). Results go to OUTDIR/packing_BACKEND.csv, .md.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from benchmarks import common
from benchmarks.common import Row
from pkpo_jax import packing
from pkpo_jax.models import architecture_of, decoder
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.sampling import sample
from pkpo_jax.tokenizers import TOKENIZERS, CharacterTokenizer
from pkpo_jax.types import Prompts

TABLES = {
  'packing': (
    *('model', 'prompts', 'n', 'L', 'max/mean', 'packings', 'tokens_per_s', 'speedup'),
    *(
      'cpu_speedup',
      'row_steps_speedup',
      'warm_s',
      'compile_s',
      'compile/none',
      'planned_mib',
      'same_tokens',
    ),
    'log_prob_difference',
  ),
  'buckets': (
    *('prompts', 'n', 'buckets', 'loops', 'prompt_copies', 'max/mean 2', 'max/mean 4'),
    'max/mean 8',
  ),
  'cache': (
    *('model', 'dtype', 'cache_dtype', 'tokens', 'cache_mib', 'mean_difference', 'max_difference'),
    'ratio_mean',
  ),
}
CAPTIONS = {
  'packing': (
    'max/mean: longest length over the mean; speedup: tokens_per_s over that without packings; '
    'cpu_speedup: the same by the CPU seconds of the process, which other work on the machine '
    'disturbs less; row_steps_speedup: the same if time went with the rows of all steps; warm_s: '
    'median time of a call, all numbers of packings in turns; compile_s: CPU seconds of tracing '
    'and compiling; planned_mib: temporary memory that XLA plans; log_prob_difference: largest, to '
    'that without packings.'
  ),
  'buckets': (
    'Counted, not run: how many times fewer rows all steps have than without packings, a mean over '
    'draws of lengths. Groups of the completions that go on become narrower, or have one width and '
    'become fewer; the fractions are those of all rows. prompt_copies: the most groups over '
    'prompts, each of which has the keys and values of its prompt.'
  ),
  'cache': (
    'Absolute differences of the log-probabilities of tokens, nats, at sampling and in the forward '
    'pass of training; ratio_mean: mean ratio of the two probabilities; cache_mib: keys and values '
    'of prompts and completions; cache_dtype None: as dtype.'
  ),
}
# A Llama of 5.6 million weights beside the preset of a million.
LLAMA_6M = dataclasses.replace(
  decoder.PRESETS['llama_micro'],
  width=256,
  hidden_width=768,
  num_heads=8,
  num_kv_heads=4,
  head_dim=32,
  windows=(None,) * 7,
)
ARCHITECTURES = {
  'gemma2_tiny': lambda: architecture_of('gemma2_tiny', None),
  'llama_micro': lambda: architecture_of('llama_micro', None),
  'llama_6m': lambda: decoder.Decoder(LLAMA_6M, 'llama_6m'),
}
STOP_ID, PROMPT_LENGTH = 1, 32
TEXTS = ('The capital of France is', 'Once upon a time, there was a small', 'Red, green and')


class Shape(NamedTuple):
  """What is sampled: P prompts of a model, N completions of each, L tokens at most."""

  model: str
  num_prompts: int
  num_samples: int
  length: int


SHAPES = (
  Shape('gemma2_tiny', 8, 16, 128),
  Shape('gemma2_tiny', 16, 16, 256),
  Shape('llama_6m', 8, 16, 128),
)


class ForcedLengths:
  """A model whose completions end at given lengths, of two tokens or more.

  Its cache has the lengths beside the keys and values, so that a length stays with its completion
  wherever this is moved to. One number more in the hidden states says whether a token is the last.
  """

  def __init__(self, model, lengths, stop_id=STOP_ID):
    self._model, self._lengths, self._stop_id = model, jnp.asarray(lengths, jnp.int32), stop_id
    self.prompt_positions, self.prompt_memory = model.prompt_positions, model.prompt_memory

  def __call__(self, params, tokens, positions, memory=None, cache=None, index=None):
    lengths, is_last = None, jnp.zeros(tokens.shape, bool)
    if cache is not None:
      cache, lengths = cache
      is_last = (index + 2 >= lengths)[..., None]
    hidden, cache = self._model(params, tokens, positions, memory, cache, index)
    hidden = jnp.concatenate([hidden, is_last[..., None].astype(hidden.dtype)], axis=-1)
    return hidden, cache if lengths is None else (cache, lengths)

  def logits(self, params, hidden):
    logits, is_last = self._model.logits(params, hidden[..., :-1]), hidden[..., -1:] > 0
    is_stop = jnp.arange(logits.shape[-1]) == self._stop_id
    return jnp.where(is_stop, jnp.where(is_last, 1e9, -1e9), logits)

  def empty_cache(self, num_prompts, num_samples, length):
    return self._model.empty_cache(num_prompts, num_samples, length), self._lengths


def draw_lengths(shape: Sequence[int], longest: int, ratio: float, seed: int = 0) -> np.ndarray:
  """Returns lengths `[P, N]`, log-normal, whose maximum is `longest` and `ratio` times the mean."""
  if ratio == 1:
    return np.full(shape, longest)
  rng = np.random.default_rng(seed)
  noise = (rng.normal(size=(shape[0], 1)) + rng.normal(size=shape)) / np.sqrt(2)
  relative = lambda spread: np.exp(spread * (noise - noise.max()))
  spread = optimize.brentq(lambda spread: 1 / relative(spread).mean() - ratio, 1e-3, 20)
  return np.maximum(2, np.round(longest * relative(spread))).astype(int)


def row_steps(lengths: np.ndarray, layouts: Sequence[packing.Layout]) -> int:
  """Returns how many tokens the loops compute, for rows that have ended as for others."""
  total, current = 0, 0
  for index in range(1, lengths.max()):
    counts = np.sum(lengths > index, axis=-1)
    while current + 1 < len(layouts):
      num_groups, width = layouts[current + 1]
      if np.sum(-(-counts // width)) > num_groups:
        break
      current += 1
    total += int(np.prod(layouts[current]))
  return total


def bucket_rows(num_prompts: int, num_samples: int, num_draws: int) -> Iterator[Row]:
  """Yields a row for each way to choose layouts: row steps alone, nothing is run."""
  rows = num_prompts * num_samples
  narrower = lambda *by: [(num_prompts, num_samples // i) for i in by]
  of_width = lambda width, *by: [(rows // i // width, width) for i in by]
  for name, layouts in {
    'as many groups, 1/2': narrower(2),
    'as many groups, 1/4': narrower(4),
    'as many groups, 1/2 1/4': narrower(2, 4),
    'as many groups, 1/2 1/4 1/8': narrower(2, 4, 8),
    'as many groups, 3/4 1/2 1/4 1/8': [
      (num_prompts, 3 * num_samples // 4),
      *narrower(2, 4, 8),
    ],
    'as many groups, 1/4 1/16': narrower(4, 16),
    'groups of 4, 1/2 1/4 1/8': of_width(4, 2, 4, 8),
    'groups of 4, 1/4 1/16': of_width(4, 4, 16),
    'groups of 1, 1/2 1/4 1/8': of_width(1, 2, 4, 8),
    'groups of 1, 1/4': of_width(1, 4),
    'groups of 1, 1/4 1/16': of_width(1, 4, 16),
  }.items():
    layouts = [(num_prompts, num_samples), *layouts]
    row = {'prompts': num_prompts, 'n': num_samples, 'buckets': name, 'loops': len(layouts)}
    row['prompt_copies'] = max(groups for groups, _ in layouts) / num_prompts
    for ratio in (2, 4, 8):
      lengths = [draw_lengths((num_prompts, num_samples), 256, ratio, i) for i in range(num_draws)]
      saved = [row_steps(each, layouts[:1]) / row_steps(each, layouts) for each in lengths]
      row[f'max/mean {ratio}'] = float(np.mean(saved))
    yield row


def packing_rows(
  shape: Shape, ratios: Sequence[float], nums_packings: Sequence[int], repeats: int
) -> Iterator[Row]:
  """Yields a row for each spread of lengths and number of packings, of which the first is 0."""
  model = Transformer(ARCHITECTURES[shape.model]())
  params = model.init(jax.random.key(0))
  tokens = jax.random.randint(
    jax.random.key(1), (shape.num_prompts, PROMPT_LENGTH), 3, model.vocab_size
  )
  mask = jnp.arange(PROMPT_LENGTH) >= jnp.arange(shape.num_prompts)[:, None]  # Padded on the left.
  keys = jax.random.split(jax.random.key(2), (shape.num_prompts, shape.num_samples))

  def draw(num_packings, params, lengths):
    return sample(
      *(ForcedLengths(model, lengths), params, tokens, mask, keys),
      max_new_tokens=shape.length,
      stop_ids=(STOP_ID,),
      num_packings=num_packings,
    )

  compiled, compile_s = {}, {}
  jax.block_until_ready(jax.jit(jnp.sum)(mask))  # What the first compilation alone takes.
  for num_packings in nums_packings:
    start = time.process_time()
    fn = jax.jit(functools.partial(draw, num_packings))
    compiled[num_packings] = fn.lower(params, jnp.zeros(keys.shape, jnp.int32)).compile()
    compile_s[num_packings] = time.process_time() - start
  for ratio in ratios:
    lengths = draw_lengths(keys.shape, shape.length, ratio)
    steps = [row_steps(lengths, packing.layouts(*keys.shape, i)) for i in nums_packings]
    arguments = params, jnp.asarray(lengths, jnp.int32)
    found = {name: jax.device_get(fn(*arguments)) for name, fn in compiled.items()}
    np.testing.assert_array_equal(found[0][1].sum(-1), lengths)
    seconds, cpu_seconds = time_in_turns(compiled, arguments, repeats)
    for i, (name, (drawn, _, log_probs)) in enumerate(found.items()):
      yield {
        **{'model': shape.model, 'prompts': shape.num_prompts, 'n': shape.num_samples},
        **{'L': shape.length, 'max/mean': float(lengths.max() / lengths.mean()), 'packings': name},
        'tokens_per_s': float(lengths.sum() / seconds[name]),
        'speedup': seconds[0] / seconds[name],
        'cpu_speedup': cpu_seconds[0] / cpu_seconds[name],
        'row_steps_speedup': steps[0] / steps[i],
        'warm_s': seconds[name],
        'compile_s': compile_s[name],
        'compile/none': compile_s[name] / compile_s[0],
        'planned_mib': compiled[name].memory_analysis().temp_size_in_bytes / 2**20,
        'same_tokens': float(np.mean(drawn == found[0][0])),
        'log_prob_difference': float(np.abs(log_probs - found[0][2]).max()),
      }


def time_in_turns(contenders, arguments, repeats) -> tuple[dict, dict]:
  """Returns the median seconds of each function, called in turns, and CPU seconds."""
  times = {name: [] for name in contenders}
  for _ in range(repeats):
    for name, fn in contenders.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      jax.block_until_ready(fn(*arguments))
      times[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
  medians = {name: np.median(pairs, axis=0) for name, pairs in times.items()}
  return tuple({name: float(pair[i]) for name, pair in medians.items()} for i in (0, 1))


def cache_rows(
  name: str, weights: pathlib.Path | None, num_samples: int, length: int
) -> Iterator[Row]:
  """Yields a row for each pair of dtypes, of a preset or of a folder of weights."""
  if weights is None:
    tokenizer = CharacterTokenizer()
  else:
    tokenizer = TOKENIZERS['huggingface'](path=str(weights))
  begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  texts = [begin + tokenizer.encode(text) for text in TEXTS]
  width = max(map(len, texts))
  tokens = np.array([[0] * (width - len(row)) + row for row in texts], np.int32)
  mask = np.arange(width) >= width - np.array([[len(row)] for row in texts])
  prompts = Prompts(jnp.arange(len(texts)), jnp.asarray(tokens), jnp.asarray(mask), hidden=())
  for dtype, cache_dtype in (('float32', None), ('float32', 'bfloat16'), ('bfloat16', None)):
    policy = LanguageModel(
      SimpleNamespace(tokenizer=tokenizer),
      None if weights else name,
      weights and str(weights),
      dtype=dtype,
      cache_dtype=cache_dtype,
      max_new_tokens=length,
    )
    if weights is None:
      params = far_from_uniform(policy.init(jax.random.key(0)))
    else:
      params = policy.pretrained(jax.eval_shape(policy.init, jax.random.key(0)))
    draw = jax.jit(policy.sample, static_argnums=2)
    rollout = draw(params, prompts, num_samples, jax.random.key(1))
    log_probs, _ = jax.jit(policy.log_probs_and_entropy)(params, rollout)
    difference = np.asarray(log_probs - rollout.sampling_log_probs)[rollout.completion_mask]
    slots = policy.model.empty_cache(len(texts), num_samples, length)
    per_token = 2 * policy.architecture.num_kv_heads * policy.architecture.head_dim
    num_slots = sum(x.positions.size for x in slots)
    num_slots += sum(len(texts) * min(width, window or width) for window in policy.model.windows)
    yield {
      **{'model': name, 'dtype': dtype, 'cache_dtype': str(cache_dtype)},
      'tokens': difference.size,
      'cache_mib': num_slots * per_token * (2 if 'bfloat16' in (dtype, cache_dtype) else 4) / 2**20,
      'mean_difference': float(np.abs(difference).mean()),
      'max_difference': float(np.abs(difference).max()),
      'ratio_mean': float(np.exp(difference).mean()),
    }


def far_from_uniform(params):
  """Returns parameters with noise, so that a model depends on its past; random ones hardly do."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  noisy = [
    x + (0.1 * jax.random.normal(key, x.shape)).astype(x.dtype)
    for x, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, noisy)


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument('--ratios', nargs='+', type=float, default=[1, 4, 8], help='max / mean')
  parser.add_argument('--packings', nargs='+', type=int, default=[1, 2])
  parser.add_argument('--repeats', type=int, default=5, help='calls of each in turns')
  parser.add_argument('--tokens', type=int, default=64, help='L of the table of dtypes')
  parser.add_argument(
    '--weights', type=pathlib.Path, default=pathlib.Path('weights/smollm2_135m'), help='SmolLM2'
  )
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  shapes, preset = SHAPES, 'gemma2_tiny'
  if options.quick:
    shapes, preset = (Shape('llama_micro', 2, 4, 16),), 'llama_micro'
    options.ratios, options.packings = [3], [1]
    options.repeats, options.tokens = 1, 8
    options.weights = pathlib.Path('none')
  header = common.describe('benchmarks.packing', arguments, 'seed: 0; float32; temperature 1')
  print('\n'.join(header), flush=True)
  rows = {'packing': [], 'buckets': [], 'cache': []}
  for shape in shapes:
    found = list(packing_rows(shape, options.ratios, [0, *options.packings], options.repeats))
    common.print_table(TABLES['packing'], found)
    sys.stdout.flush()
    rows['packing'] += found
  for num_prompts, num_samples in ((8, 16), (16, 16)):
    rows['buckets'] += bucket_rows(num_prompts, num_samples, 2 if options.quick else 20)
  common.print_table(TABLES['buckets'], rows['buckets'])
  rows['cache'] += cache_rows(preset, None, 16, options.tokens)
  if options.weights.is_dir():
    rows['cache'] += cache_rows('SmolLM2 135M', options.weights, 4, options.tokens)
  else:
    print(f'No SmolLM2 135M: there is no {options.weights}.')
  common.print_table(TABLES['cache'], rows['cache'])
  path = options.outdir / f'packing_{jax.default_backend()}'
  common.write('Packing of completions', rows, TABLES, CAPTIONS, header, path)


if __name__ == '__main__':
  main()

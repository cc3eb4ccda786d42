"""Gemma-2 2B on one GPU, against the limits of the GPU: python -m benchmarks.gemma2_gpu [--tiny].

Random bfloat16 weights in the shapes of Gemma-2 2B: none have to be at hand. Weights, their float32
masters, Adam's moments and gradients take about 60 GB (--lora_rank 16: 6 GB). On a machine with one
GPU, from the root of the repository:

    uv venv --python 3.12 .venv-gpu
    uv pip install --python .venv-gpu/bin/python -c constraints.txt \
      'jax[cuda12]' --editable '.[gemma,train]'
    .venv-gpu/bin/python -m benchmarks.gemma2_gpu

Each cell of the table runs in a process of its own, so that its peak memory is its own; a cell
that fails, for want of memory say, is named in the table, and the rest go on. Results are rewritten
after every cell, to OUTDIR/gemma2_BACKEND.csv, .md. `--profile FOLDER` also traces one call of each
cell, for TensorBoard or Perfetto. `--tiny` runs it all on a CPU in a minute.
"""

import argparse
import os
import pathlib
import sys
import time
import types
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common, turns
from benchmarks.common import Row

SHAPES = ((8, 8), (16, 16), (32, 16))
LENGTHS = (256, 512, 1024)
PROMPT_LENGTH = 128
NO_STOP = (-1,)  # No token has this id: all completions have full length.
TABLES = {
  'machine': ('copy_gb_per_s', 'matmul_tflops', 'note'),
  'decode': (
    *('prompts', 'n', 'new_tokens', 'tokens_per_s', 'limit_tokens_per_s', 'share_of_limit'),
    *('step_gb', 'call_s', 'prefill_s', 'first_call_s', 'peak_gib', 'note'),
  ),
  'update': (
    *('prompts', 'n', 'new_tokens', 'mfu', 'tokens_per_s', 'model_tflop', 'microbatches'),
    *('update_s', 'first_call_s', 'peak_gib', 'note'),
  ),
}
CAPTIONS = {
  'machine': 'Measured: bytes read and written by a large copy; a large bfloat16 product.',
  'decode': (
    'tokens_per_s: new tokens over the time of a call less that of its prefill and first token; '
    'limit: at the bandwidth above if a step read only step_gb: all weights, the keys and values '
    'of each prompt once and those so far of each completion, mean over the steps.'
  ),
  'update': (
    'mfu: model_tflop over update_s, over the rate of the product above; model_tflop: 6 (LoRA: 4) '
    'x weights x tokens and attention, without what is computed again. Recomputation of blocks is '
    'on; microbatches: pieces of an update.'
  ),
}


def best_seconds(call, repeats: int) -> float:
  """Returns the least time of a call, after one that is not counted."""
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return min(times)


def trace(call, kind: str, workload: dict) -> None:
  """Writes a profile of one call to the folder that is asked for, if any."""
  if workload['profile'] is None:
    return
  shape = 'x'.join(str(workload[name]) for name in ('num_prompts', 'num_samples', 'new_tokens'))
  with jax.profiler.trace(f'{workload["profile"]}/{kind}_{shape}'):
    jax.block_until_ready(call())


class Machine:
  """Measures the limits: memory bandwidth and matrix products."""

  def __init__(self, workload):
    self._copy_mib, self._size = workload['copy_mib'], workload['matmul_size']

  def __call__(self):
    source = jnp.zeros(self._copy_mib * 2**19, jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    copy_s = best_seconds(lambda: copy(source), 10)
    a, b = jnp.ones((2, self._size, self._size), jnp.bfloat16)
    multiply = jax.jit(lambda a, b: a @ b)
    matmul_s = best_seconds(lambda: multiply(a, b), 10)
    return {
      'copy_gb_per_s': 2 * source.nbytes / copy_s / 1e9,
      'matmul_tflops': 2 * self._size**3 / matmul_s / 1e12,
    }


def make_policy(workload, max_new_tokens):
  from pkpo_jax.models import gemma
  from pkpo_jax.policies.language_model import LanguageModel

  # The table of Gemma-2 has 128 rows more than its tokenizer has tokens.
  vocab_size = min(gemma.PRESETS[workload['preset']].num_embed, 256_000)
  tokenizer = types.SimpleNamespace(vocab_size=vocab_size, stop_ids=NO_STOP)
  return LanguageModel(
    types.SimpleNamespace(tokenizer=tokenizer),
    preset=workload['preset'],
    weights=None,
    dtype='bfloat16',
    remat=True,
    lora_rank=workload['lora_rank'],
    max_new_tokens=max_new_tokens,
    temperature=1.0,
    top_k=None,
    top_p=None,
    log_prob_chunk=min(workload['log_prob_chunk'], max_new_tokens),
  )


def random_tokens(workload, *shape):
  # Small ids, which every preset has.
  return jnp.asarray(np.random.default_rng(0).integers(1, 100, shape), jnp.int32)


def make_prompts(workload):
  from pkpo_jax.types import Prompts

  tokens = random_tokens(workload, workload['num_prompts'], workload['prompt_length'])
  mask = jnp.ones(tokens.shape, bool)
  return Prompts(ids=jnp.arange(len(tokens)), tokens=tokens, mask=mask, hidden=())


def peak_memory():
  """Returns the peak of this process so far, where the backend counts it."""
  stats = jax.devices()[0].memory_stats() or {}
  return {'peak_gib': stats['peak_bytes_in_use'] / 2**30} if 'peak_bytes_in_use' in stats else {}


class Decode:
  """Samples completions: one call, and one of a single token, which is prefill and little more."""

  def __init__(self, workload):
    self._workload = workload
    new_tokens = workload['new_tokens']
    policies = {length: make_policy(workload, length) for length in (1, new_tokens)}
    self._params = jax.jit(policies[1].init)(jax.random.key(0))
    self._samples = {n: jax.jit(p.sample, static_argnums=2) for n, p in policies.items()}
    self._config = policies[1].model.architecture.config

  def __call__(self):
    workload, prompts = self._workload, make_prompts(self._workload)

    def sample(length):
      return self._samples[length](
        self._params, prompts, workload['num_samples'], jax.random.key(1)
      )

    start = time.perf_counter()
    assert np.all(sample(workload['new_tokens']).completion_mask)
    first_call_s = time.perf_counter() - start
    trace(lambda: sample(workload['new_tokens']), 'decode', workload)
    return {
      'first_call_s': first_call_s,
      'call_s': best_seconds(lambda: sample(workload['new_tokens']), workload['repeats']),
      'prefill_s': best_seconds(lambda: sample(1), workload['repeats']),
      'step_gb': self._step_bytes() / 1e9,
      **peak_memory(),
    }

  def _step_bytes(self):
    """Returns the bytes that a decode step cannot do without reading, mean over the steps."""
    weights = jax.tree.leaves(self._params['weights'])
    workload, config = self._workload, self._config
    # Keys and values of one token in one layer, bfloat16.
    token_bytes = 2 * 2 * config.num_kv_heads * config.head_dim
    num_rows = workload['num_prompts'] * workload['num_samples']
    steps = np.arange(workload['new_tokens'])
    total = sum(x.size * x.dtype.itemsize for x in weights)
    for window in windows(config):
      total += token_bytes * workload['num_prompts'] * min(workload['prompt_length'], window)
      total += token_bytes * num_rows * float(np.mean(np.minimum(steps, window)))
    return total


def windows(config):
  """Returns how many tokens each layer sees at most."""
  from pkpo_jax.models import gemma

  return [
    config.sliding_window_size if kind == gemma.gm.nn.AttentionType.LOCAL_SLIDING else 2**30
    for kind in config.attention_types
  ]


class Update:
  """One update of training, as train.train jits it, on completions of full length."""

  def __init__(self, workload):
    from configs import default
    from pkpo_jax import sharding
    from pkpo_jax.run import jit_train_step, make_init, make_run

    self._workload = workload
    config = default.get_config()
    config.rollout.num_prompts = workload['num_prompts']
    config.rollout.num_samples = workload['num_samples']
    config.loss.num_microbatches = num_microbatches(workload)
    config.advantage.k = 1
    config.optimizer.learning_rate = 1e-6
    policy = make_policy(workload, workload['new_tokens'])
    run = make_run(config)._replace(policy=policy)
    mesh = sharding.make_mesh(run.settings.mesh)
    self._train_step = jit_train_step(run.policy, run.optimizer, run.settings.loss, mesh)
    self._state, self._frozen = make_init(run.policy, run.optimizer, mesh)(jax.random.key(0))
    self._config = run.policy.model.architecture.config

  def __call__(self):
    from pkpo_jax.types import Rollout

    workload = self._workload
    groups = (workload['num_prompts'], workload['num_samples'])
    shape = (*groups, workload['new_tokens'])
    prompts = make_prompts(workload)
    rollout = Rollout(
      prompt_tokens=prompts.tokens,
      prompt_mask=prompts.mask,
      completions=random_tokens(workload, *shape),
      completion_mask=jnp.ones(shape, bool),
      sampling_log_probs=jnp.zeros(shape, jnp.float32),
    )
    advantages = jax.random.normal(jax.random.key(1), groups)

    def update():
      self._state, metrics = self._train_step(
        self._state, self._frozen, rollout, advantages, jax.random.key(2)
      )
      return self._state, metrics

    start = time.perf_counter()
    jax.block_until_ready(update())
    first_call_s = time.perf_counter() - start
    trace(update, 'update', workload)
    return {
      'first_call_s': first_call_s,
      'update_s': best_seconds(update, workload['repeats']),
      'model_tflop': self._flop() / 1e12,
      'microbatches': num_microbatches(workload),
      **peak_memory(),
    }

  def _flop(self):
    """Returns the operations of forward and backward pass that the gradient needs."""
    workload, config = self._workload, self._config
    num_rows = workload['num_prompts'] * workload['num_samples']
    length, prompt_length = workload['new_tokens'], workload['prompt_length']
    # The last token of a completion is predicted, not read.
    positions = num_rows * (length - 1) + workload['num_prompts'] * prompt_length
    attention_width = config.num_heads * config.head_dim
    kv_width = 2 * config.num_kv_heads * config.head_dim
    layer_weights = config.embed_dim * (2 * attention_width + kv_width + 3 * config.hidden_dim)
    # Forward, gradients of activations, and of weights unless they are frozen.
    per_weight = 4 if workload['lora_rank'] else 6
    weights = per_weight * len(config.attention_types) * layer_weights * positions
    unembedding = per_weight * config.embed_dim * config.num_embed * num_rows * length
    seen_by_prompt = np.arange(1, prompt_length + 1)
    seen_by_completion = prompt_length + np.arange(1, length)
    attention = 0.0
    for window in windows(config):
      pairs = workload['num_prompts'] * np.sum(np.minimum(seen_by_prompt, window))
      pairs += num_rows * np.sum(np.minimum(seen_by_completion, window))
      attention += 12 * attention_width * float(pairs)
    return weights + unembedding + attention


def num_microbatches(workload):
  """Returns the fewest microbatches with at most `microbatch_tokens` tokens; they split prompts."""
  num_prompts = workload['num_prompts']
  tokens = num_prompts * workload['num_samples'] * workload['new_tokens']
  divisors = [pieces for pieces in range(1, num_prompts + 1) if num_prompts % pieces == 0]
  fitting = (pieces for pieces in divisors if tokens <= pieces * workload['microbatch_tokens'])
  return next(fitting, num_prompts)


def measure(kind: str, workload: dict) -> Row:
  """Returns what one cell measured in a process of its own, or a note why it did not."""
  try:
    with turns.Candidate(f'benchmarks.gemma2_gpu:{kind}', workload, timeout=3600) as candidate:
      if candidate.missing:
        return {'note': f'not run: {candidate.missing}'}
      found = candidate.call()
  except RuntimeError as error:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = next((line for line in lines if 'RESOURCE_EXHAUSTED' in line), lines[-1])
    return {'note': f'failed: {why[:100]}'}
  del found['seconds'], found['cpu_seconds']
  return found


def cells(options) -> Iterator[tuple[str, Row]]:
  """Yields (table, row) of every cell."""
  base = {
    'preset': 'gemma2_tiny' if options.tiny else 'gemma2_2b',
    'prompt_length': 8 if options.tiny else PROMPT_LENGTH,
    'lora_rank': options.lora_rank,
    'profile': None if options.profile is None else str(options.profile.absolute()),
    'log_prob_chunk': 16,
    'microbatch_tokens': 64 if options.tiny else options.microbatch_tokens,
    'repeats': 3 if options.tiny else options.repeats,
    'copy_mib': 1 if options.tiny else 1024,
    'matmul_size': 64 if options.tiny else 8192,
  }
  machine = measure('Machine', base)
  yield 'machine', machine
  for num_prompts, num_samples in ((2, 2),) if options.tiny else options.shapes:
    for length in (32,) if options.tiny else options.lengths:
      row = {'prompts': num_prompts, 'n': num_samples, 'new_tokens': length}
      workload = base | {
        'num_prompts': num_prompts,
        'num_samples': num_samples,
        'new_tokens': length,
      }
      num_rows = num_prompts * num_samples
      if 'decode' in options.only:
        found = row | measure('Decode', workload)
        if 'call_s' in found:
          steps_s = found['call_s'] - found['prefill_s']
          found['tokens_per_s'] = num_rows * (length - 1) / steps_s
          if 'copy_gb_per_s' in machine:
            steps_per_s = machine['copy_gb_per_s'] / found['step_gb']
            found['limit_tokens_per_s'] = num_rows * steps_per_s
            found['share_of_limit'] = found['tokens_per_s'] / found['limit_tokens_per_s']
        yield 'decode', found
      if 'update' in options.only:
        found = row | measure('Update', workload)
        if 'update_s' in found:
          rate = found['model_tflop'] / found['update_s']
          if 'matmul_tflops' in machine:
            found['mfu'] = rate / machine['matmul_tflops']
          found['tokens_per_s'] = num_rows * length / found['update_s']
        yield 'update', found


def parse_shape(text: str) -> tuple[int, int]:
  num_prompts, _, num_samples = text.partition('x')
  return int(num_prompts), int(num_samples)


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--tiny', action='store_true', help='gemma2_tiny: shows that it runs')
  parser.add_argument('--shapes', type=parse_shape, nargs='+', default=SHAPES, help='8x8 16x16')
  parser.add_argument('--lengths', type=int, nargs='+', default=LENGTHS, help='new tokens')
  parser.add_argument(
    '--only', nargs='+', choices=('decode', 'update'), default=('decode', 'update')
  )
  parser.add_argument('--lora_rank', type=int, help='train adapters in place of all weights')
  parser.add_argument('--profile', type=pathlib.Path, help='folder of a trace of each cell')
  parser.add_argument('--microbatch_tokens', type=int, default=16384)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  # This process only asks what the hardware is: the memory is for the cells.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  preset = 'gemma2_tiny' if options.tiny else 'gemma2_2b'
  header = common.describe(
    'benchmarks.gemma2_gpu',
    arguments,
    f'seed: 0; {preset}, random bfloat16 weights; prompts of '
    f'{8 if options.tiny else PROMPT_LENGTH} tokens; least time of calls after the first',
  )
  print('\n'.join(header))
  start = time.perf_counter()
  backend = jax.default_backend()
  path = options.outdir / f'gemma2_{backend}'
  rows = {table: [] for table in TABLES}
  for table, row in cells(options):
    rows[table].append(row)
    print(f'\n{table}')
    common.print_table(TABLES[table], [row])
    sys.stdout.flush()
    common.write(f'Gemma-2 2B on {backend}', rows, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

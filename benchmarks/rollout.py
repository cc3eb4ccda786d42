"""Times our sampler beside others on one tiny Gemma-2: python -m benchmarks.rollout [--quick].

Every candidate runs the same weights, in float32, on the same prompts, in a process of its own;
their greedy completions are compared first. Then they take turns: A B C A B C ... One candidate is
only the matrix products of the same decode steps, which none can beat. No token ends a completion,
so that all draw every token that they are asked for. Results go to OUTDIR/rollout_BACKEND.csv, .md.

A peer that is not installed is named in the table. For all of them:

    uv venv --python 3.12 .venv-tunix
    grep -v '^safetensors' constraints.txt > .venv-tunix/constraints.txt
    uv pip install --python .venv-tunix/bin/python -c .venv-tunix/constraints.txt \
      google-tunix==0.1.7 --editable '.[gemma,train]'
    uv venv --python 3.12 .venv-transformers
    uv pip install --python .venv-transformers/bin/python torch==2.13.0 transformers==5.23.0
    python -m benchmarks.rollout --tunix_python .venv-tunix/bin/python \
      --transformers_python .venv-transformers/bin/python
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from benchmarks import common, turns
from benchmarks.common import Row
from benchmarks.peers import tiny_gemma2

OURS, LIMIT = 'pkpo_jax', 'matrix products'
# Name -> class, the flag that says which interpreter runs it (None: this one), and its settings.
CANDIDATES = {
  LIMIT: (
    'matmul:Sampler',
    None,
    'products with weights of all layers and the unembedding, jitted',
  ),
  OURS: ('ours:Sampler', None, 'LanguageModel.sample, jitted; log-probabilities included'),
  'python loop': (
    'python_loop:Sampler',
    None,
    'the model of pkpo_jax, a jitted step a token called from Python, as lmpo does it; no '
    'log-probabilities; each prompt n times',
  ),
  'gemma': (
    'gemma_library:Sampler',
    None,
    'gm.text.Sampler; cache_length, max_out_length, pad_length to fit; each prompt n times',
  ),
  'tunix': (
    'tunix_gemma2:Sampler',
    'tunix_python',
    'generate.sampler.Sampler; cache_size to fit, top_p = 1, no log-probabilities; each prompt n '
    'times',
  ),
  'transformers': (
    'transformers_gemma2:Sampler',
    'transformers_python',
    'generate; num_return_sequences, dynamic cache, top_k = 0, inference mode',
  ),
  'transformers compiled': (
    'transformers_gemma2:CompiledSampler',
    'transformers_python',
    'the same, the model through torch.compile(dynamic=True)',
  ),
}
SHAPES = ((8, 8), (16, 16))
NEW_TOKENS = (32, 128)
PROMPT_LENGTH = 16
TABLES = {
  'rollout': (
    *('candidate', 'prompts', 'n', 'new_tokens', 'tokens_per_s', 'it/ours', 'share_of_limit'),
    *('warm_s', 'quartile_1_s', 'quartile_3_s', 'cold_s', 'same_greedy', 'note'),
  ),
  'candidates': ('candidate', 'versions', 'settings'),
}
CAPTIONS = {
  'rollout': (
    'warm_s: median time of a call, all candidates in turns; it/ours: its warm_s over ours, so '
    'above 1 where ours is faster; share_of_limit: tokens_per_s over that of the matrix products; '
    'cold_s: first call of a fresh process, with compilation, without imports; same_greedy: share '
    'of greedy tokens that are those of pkpo_jax.'
  ),
  'candidates': 'What each candidate is.',
}


def measure(
  workload: dict, names: Sequence[str], pythons: dict[str, str | None], repeats: int
) -> Iterator[tuple[Row, dict]]:
  """Yields the row of each candidate for one workload, and what it says about itself."""
  with contextlib.ExitStack() as stack:
    candidates, notes, cold, greedy = {}, {}, {}, {}
    for name in names:
      target, flag, _ = CANDIDATES[name]
      python = pythons[flag] if flag else sys.executable
      candidate = turns.Candidate(f'benchmarks.peers.{target}', workload, python)
      stack.enter_context(candidate)
      if candidate.missing:
        notes[name] = f'not run: {candidate.missing}'
        continue
      candidates[name] = candidate
      cold[name] = candidate.call()['seconds']
      if name != LIMIT:
        greedy[name] = np.array(candidate.ask('greedy'))
    if OURS in notes:
      raise RuntimeError(f'{OURS} {notes[OURS]}')
    replies = turns.take_turns(candidates, repeats)
    num_tokens = workload['num_prompts'] * workload['num_samples'] * workload['new_tokens']
    seconds = {name: [reply['seconds'] for reply in replies[name]] for name in candidates}
    warm = {name: statistics.median(times) for name, times in seconds.items()}
    for name in names:
      row = {
        'candidate': name,
        'prompts': workload['num_prompts'],
        'n': workload['num_samples'],
        'new_tokens': workload['new_tokens'],
      }
      if name in notes:
        yield row | {'note': notes[name]}, {}
        continue
      quartiles = np.quantile(seconds[name], (0.25, 0.75))
      row |= {
        'tokens_per_s': num_tokens / warm[name],
        'it/ours': warm[name] / warm[OURS],
        'share_of_limit': warm[LIMIT] / warm[name],
        'warm_s': warm[name],
        'quartile_1_s': float(quartiles[0]),
        'quartile_3_s': float(quartiles[1]),
        'cold_s': cold[name],
      }
      if name in greedy:
        row['same_greedy'] = float(np.mean(greedy[name] == greedy[OURS]))
      yield row, candidates[name].about


def run(
  sizes: dict,
  shapes: Sequence[tuple[int, int]],
  new_tokens: Sequence[int],
  prompt_length: int,
  repeats: int,
  names: Sequence[str],
  pythons: dict[str, str | None],
) -> dict[str, list[Row]]:
  """Returns the rows of every table, printing those of each workload as they come."""
  rows = {'rollout': [], 'candidates': []}
  abouts = {}
  for num_prompts, num_samples in shapes:
    for length in new_tokens:
      workload = {
        'sizes': sizes,
        'num_prompts': num_prompts,
        'num_samples': num_samples,
        'prompt_length': prompt_length,
        'new_tokens': length,
      }
      found = list(measure(workload, names, pythons, repeats))
      print()
      common.print_table(TABLES['rollout'], [row for row, _ in found])
      rows['rollout'] += [row for row, _ in found]
      abouts |= {row['candidate']: about for row, about in found}
  for name in names:
    versions, settings = abouts[name].get('versions', ''), CANDIDATES[name][-1]
    row = {'candidate': name, 'versions': versions, 'settings': settings}
    rows['candidates'].append(row)
  return rows


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument('--repeats', type=int, default=11, help='warm calls of each candidate')
  parser.add_argument(
    '--candidates', nargs='+', choices=CANDIDATES, default=list(CANDIDATES), help='all by default'
  )
  parser.add_argument('--tunix_python', default=sys.executable, help='has google-tunix')
  parser.add_argument('--transformers_python', help='has torch and transformers, maybe no JAX')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  sizes = tiny_gemma2.SMALLEST if options.quick else tiny_gemma2.SIZES
  num_parameters = tiny_gemma2.num_parameters(tiny_gemma2.weights(sizes))
  prompt_length = 4 if options.quick else PROMPT_LENGTH
  header = common.describe(
    'benchmarks.rollout',
    arguments,
    f'seed: 0; Gemma-2 of {num_parameters} float32 parameters {sizes}; prompts of {prompt_length} '
    f'random tokens; temperature 1; {options.repeats} calls of each in turns',
  )
  print('\n'.join(header))
  start = time.perf_counter()
  rows = run(
    sizes,
    ((2, 2),) if options.quick else SHAPES,
    (6,) if options.quick else NEW_TOKENS,
    prompt_length,
    2 if options.quick else options.repeats,
    [name for name in CANDIDATES if name in {LIMIT, OURS, *options.candidates}],
    {name: getattr(options, name) for name in ('tunix_python', 'transformers_python')},
  )
  backend = jax.default_backend()
  path = options.outdir / f'rollout_{backend}'
  common.write(f'Rollout on {backend}', rows, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

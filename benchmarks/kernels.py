"""Times the kernels beside NumPy and beside a bare sort: python -m benchmarks.kernels [--quick].

All contenders take turns within one run, so that other load on the machine hits them alike, and
the least of the times of each is reported. Results go to OUTDIR/kernels_BACKEND.csv and .md.
"""

import argparse
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import pkpo_jax
from benchmarks import common, numpy_pkpo
from benchmarks.common import Row

SEED = 0
K = 8
# Our kernels, each with the NumPy function of one prompt that it is compared with.
RIVALS = {
  'pkpo_loo_minus_one': numpy_pkpo.s_loo1,
  'pkpo': numpy_pkpo.s,
  'pkpo_loo': numpy_pkpo.s_loo,
  'pkpo_centered': numpy_pkpo.centered,
  'passk_analytical': numpy_pkpo.analytical,
}
MAIN = 'pkpo_loo_minus_one'
SHAPES = ((1024, 16), (1024, 64), (1024, 256), (1, 65536))
LARGE_SHAPES = ((65536, 16), (65536, 64))
# Of maj_at_k, and of how many answers its samples are drawn; more samples it does not take.
MAJORITY_SHAPES = ((64, 8), (64, 16), (64, 32), (8, 64), (64, 64))
NUM_ANSWERS = 8
SCALING_LOG_N = range(8, 21)
# The fit leaves out sizes whose time is mostly that of a call.
FIT_FROM_LOG_N = 12
COPY_MIB = 256

# Tables: name -> columns; the CSV holds the union of all. Times are in milliseconds.
TABLES = {
  'speed': (
    *('kernel', 'prompts', 'n', 'ours_ms', 'numpy_ms', 'sort_ms', 'numpy/ours', 'ours/sort'),
    *('copy_ms', 'ours/copy', 'first_call_ms'),
  ),
  'scaling': ('kernel', 'prompts', 'n', 'ours_ms', 'sort_ms', 'ours_per_nlogn', 'sort_per_nlogn'),
  'compilation': (
    'kernel',
    'n',
    'k_is',
    'num_ks',
    'num_compilations',
    'first_call_ms',
    'all_ks_ms',
  ),
  'majority': ('prompts', 'n', 'ours_ms', 'max_ms', 'ours/max', 'ms_per_prompt', 'first_call_ms'),
  'targets': ('target', 'measured', 'bound', 'reached'),
}
CAPTIONS = {
  'speed': (
    'Time of one call (jitted, k traced) beside NumPy looped over prompts and `jnp.sort` of the '
    'same array; copy_ms, where measured, is one read and one write at memory bandwidth.'
  ),
  'scaling': 'Cost against n; per_nlogn is time / (n log2 n) in units of the first row.',
  'compilation': 'Compilations while k runs over 1..n.',
  'majority': (
    f'`maj_at_k` of {NUM_ANSWERS} answers, drawn with chances 1/2, 1/4, and so on, of which the '
    f'second is right; max_ms is `{MAIN}` of the same rewards.'
  ),
  'targets': 'What was to be reached.',
}


def take_turns(contenders: dict[str, Callable], seconds: float) -> dict[str, float]:
  """Returns the least time of one call of each contender, in milliseconds."""
  times = {name: [] for name in contenders}
  end = time.perf_counter() + seconds
  while time.perf_counter() < end or min(map(len, times.values())) < 3:
    for name, call in contenders.items():
      # A turn is 0.2 s of 4: after NumPy's, on one core, it takes XLA's threads up to 0.1 s to
      # spread over the cores again.
      turn_end = time.perf_counter() + seconds / 20
      while True:
        start = time.perf_counter()
        jax.block_until_ready(call())
        stop = time.perf_counter()
        times[name].append(1e3 * (stop - start))
        if stop > turn_end:
          break
  return {name: min(ts) for name, ts in times.items()}


def first_call(call: Callable) -> tuple[np.ndarray, float]:
  """Returns the result of a call, and its time with compilation in milliseconds."""
  start = time.perf_counter()
  result = jax.block_until_ready(call())
  return np.asarray(result), 1e3 * (time.perf_counter() - start)


def draw_rewards(num_prompts: int, n: int) -> np.ndarray:
  return np.random.default_rng(SEED).normal(size=(num_prompts, n)).astype(np.float32)


def loop(rival: Callable, rewards: np.ndarray) -> np.ndarray:
  return np.stack([rival(g, K) for g in rewards])


def check_equal(kernel: str, ours: np.ndarray, rival: np.ndarray):
  """Raises AssertionError if ours, in float32, is not the rival's within 1e-5 of its largest."""
  error = np.max(np.abs(ours - rival)) / np.max(np.abs(rival))
  assert error < 1e-5, f'{kernel} is not what NumPy finds: relative error {error:.1e}'


def copy_ms_per_byte(mib: int, seconds: float) -> float:
  """Returns the time to read and write one byte each at memory bandwidth."""
  source = jnp.zeros(mib * 2**18, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  jax.block_until_ready(copy(source))
  return take_turns({'copy': lambda: copy(source)}, seconds)['copy'] / source.nbytes


def speed_rows(shapes: Iterable, seconds: float, ms_per_byte: float | None) -> Iterator[Row]:
  sort = jax.jit(jnp.sort)
  k = jnp.int32(K)
  for num_prompts, n in shapes:
    rewards = draw_rewards(num_prompts, n)
    on_device, in_float64 = jnp.asarray(rewards), rewards.astype(np.float64)
    jax.block_until_ready(sort(on_device))
    for kernel, rival in RIVALS.items():
      fn = jax.jit(getattr(pkpo_jax, kernel))
      contenders = {
        'numpy': lambda rival=rival, x=in_float64: loop(rival, x),
        'ours': lambda fn=fn, x=on_device: fn(x, k=k),
        'sort': lambda x=on_device: sort(x),
      }
      result, first_call_ms = first_call(contenders['ours'])
      # Ours are in the convention of a mean over samples, the rival in that of a sum.
      mean_over_sum = 1 if kernel == 'passk_analytical' else n
      check_equal(kernel, result, mean_over_sum * contenders['numpy']())
      ms = take_turns(contenders, seconds)
      row = {
        **{'kernel': kernel, 'prompts': num_prompts, 'n': n},
        **{'ours_ms': ms['ours'], 'numpy_ms': ms['numpy'], 'sort_ms': ms['sort']},
        'numpy/ours': ms['numpy'] / ms['ours'],
        'ours/sort': ms['ours'] / ms['sort'],
        'first_call_ms': first_call_ms,
      }
      if ms_per_byte is not None:
        row['copy_ms'] = ms_per_byte * rewards.nbytes
        row['ours/copy'] = ms['ours'] / row['copy_ms']
      yield row


def scaling_rows(log_sizes: Iterable[int], seconds: float) -> Iterator[Row]:
  sort, fn, k = jax.jit(jnp.sort), jax.jit(getattr(pkpo_jax, MAIN)), jnp.int32(K)
  first = None
  for log_n in log_sizes:
    n = 2**log_n
    # Rewards change from call to call, or the processor would learn the branches of a short sort.
    rewards = list(jnp.asarray(draw_rewards(max(1, 2**15 // n), n)))
    mine, theirs = itertools.cycle(rewards), itertools.cycle(rewards)
    contenders = {
      'ours': lambda xs=mine: fn(next(xs), k=k),
      'sort': lambda xs=theirs: sort(next(xs)),
    }
    jax.block_until_ready([call() for call in contenders.values()])
    ms = take_turns(contenders, seconds)
    per = {name: t / (n * log_n) for name, t in ms.items()}
    first = first or per
    yield {
      **{'kernel': MAIN, 'prompts': 1, 'n': n, 'ours_ms': ms['ours'], 'sort_ms': ms['sort']},
      **{f'{name}_per_nlogn': per[name] / first[name] for name in ms},
    }


def compilation_rows(n: int) -> Iterator[Row]:
  x = jnp.asarray(draw_rewards(4, n))
  for k_is in ('traced', 'static'):
    # A function of its own, whose cache holds nothing yet.
    fn = jax.jit(
      lambda x, k: getattr(pkpo_jax, MAIN)(x, k=k),
      static_argnames='k' if k_is == 'static' else (),
    )
    ks = [k if k_is == 'static' else jnp.int32(k) for k in range(1, n + 1)]
    times = [first_call(lambda k=k, fn=fn: fn(x, k=k))[1] for k in ks]
    yield {
      **{'kernel': MAIN, 'n': n, 'k_is': k_is, 'num_ks': n},
      'num_compilations': fn._cache_size(),
      **{'first_call_ms': times[0], 'all_ks_ms': sum(times)},
    }


def majority_rows(shapes: Iterable, seconds: float) -> Iterator[Row]:
  rng, k = np.random.default_rng(SEED), jnp.int32(K)
  for num_prompts, n in shapes:
    drawn = np.minimum(rng.geometric(0.5, (num_prompts, n)), NUM_ANSWERS).astype(np.int32)
    answers, rewards = jnp.asarray(drawn), jnp.asarray(drawn == 2, jnp.float32)
    vote, main_fn = jax.jit(pkpo_jax.maj_at_k), jax.jit(getattr(pkpo_jax, MAIN))
    contenders = {
      'ours': lambda x=rewards, y=answers, fn=vote: fn(x, k=k, answers=y),
      'max': lambda x=rewards, fn=main_fn: fn(x, k=k),
    }
    _, first_call_ms = first_call(contenders['ours'])
    jax.block_until_ready(contenders['max']())
    ms = take_turns(contenders, seconds)
    yield {
      **{'kernel': 'maj_at_k', 'prompts': num_prompts, 'n': n},
      **{'ours_ms': ms['ours'], 'max_ms': ms['max'], 'ours/max': ms['ours'] / ms['max']},
      **{'ms_per_prompt': ms['ours'] / num_prompts, 'first_call_ms': first_call_ms},
    }


def exponent(rows: Sequence[Row], column: str) -> float:
  """Returns p of the fit time = c (n log n)^p; 1 is n log n."""
  rows = [row for row in rows if row['n'] >= 2**FIT_FROM_LOG_N] or rows
  log_cost = [math.log(row['n'] * math.log2(row['n'])) for row in rows]
  return float(np.polyfit(log_cost, [math.log(row[column]) for row in rows], 1)[0])


def target_rows(rows: dict[str, list[Row]]) -> Iterator[Row]:
  def target(name, measured, low=-math.inf, high=math.inf):
    bound = ' and '.join(
      [f'>= {low:g}'] * math.isfinite(low) + [f'<= {high:g}'] * math.isfinite(high)
    )
    reached = 'yes' if low <= measured <= high else 'no'
    return {'target': name, 'measured': measured, 'bound': bound, 'reached': reached}

  for row in rows['speed']:
    # The time of a small array is that of a call.
    if row['kernel'] != MAIN or row['prompts'] * row['n'] < 2**14:
      continue
    at = f'{row["prompts"]} x {row["n"]}'
    if row['n'] <= 64:
      yield target(f'{at}: numpy/ours', row['numpy/ours'], low=100)
    yield target(f'{at}: ours/sort', row['ours/sort'], high=1 if row['n'] <= 64 else 2)
  for column in ('ours_ms', 'sort_ms'):
    name = f'{column.removesuffix("_ms")}: p in time = c (n log n)^p'
    value = exponent(rows['scaling'], column)
    # That of the sort is there to compare with.
    yield (
      target(name, value, high=1.1)
      if column == 'ours_ms'
      else {**{'target': name, 'measured': value}}
    )
  for row in rows['compilation']:
    if row['k_is'] == 'traced':
      yield target('compilations, k traced', row['num_compilations'], high=1)


def run(quick: bool, large: bool) -> dict[str, list[Row]]:
  """Returns the rows of every table, printing each row as it comes."""
  seconds = 0.02 if quick else 4.0
  ms_per_byte = copy_ms_per_byte(1 if quick else COPY_MIB, seconds) if large else None
  shapes = ((8, 16), (1, 512)) if quick else SHAPES
  if large:
    shapes += ((32, 16),) if quick else LARGE_SHAPES
  rows = {}
  makers = {
    'speed': lambda: speed_rows(shapes, seconds, ms_per_byte),
    'scaling': lambda: scaling_rows((8, 10) if quick else SCALING_LOG_N, seconds),
    'compilation': lambda: compilation_rows(4 if quick else 16),
    'majority': lambda: majority_rows(((4, 8),) if quick else MAJORITY_SHAPES, seconds),
    'targets': lambda: target_rows(rows),
  }
  for table, make in makers.items():
    print(f'\n{CAPTIONS[table]}', flush=True)
    rows[table] = []
    for row in make():
      rows[table].append(row)
      columns = common.columns_of(TABLES[table], rows[table])
      widths = [
        max(len(c) + 2, 44 if c == 'target' else 20 if c == 'kernel' else 9) for c in columns
      ]
      lines = [[common.show(row.get(c, '')) for c in columns]]
      if len(rows[table]) == 1:
        lines.insert(0, columns)
      for line in lines:
        cells = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print(''.join(cells), flush=True)
  return rows


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument(
    '--large',
    action=argparse.BooleanOptionalAction,
    default=jax.default_backend() == 'gpu',
    help='65536 prompts too, and the time of a copy at memory bandwidth; as default on a GPU',
  )
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  header = common.describe(
    'benchmarks.kernels',
    arguments,
    f'seed: {SEED}; k: {K}; rewards: standard normal; least time of calls taken in turns',
  )
  print('\n'.join(header))
  start = time.perf_counter()
  backend = jax.default_backend()
  path = options.outdir / f'kernels_{backend}'
  rows = run(options.quick, options.large)
  common.write(f'Kernels on {backend}', rows, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

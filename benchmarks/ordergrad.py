"""Times and checks our centered advantages beside OrderGrad's JAX code.

  python -m benchmarks.ordergrad --ordergrad=FOLDER [--quick]

FOLDER is a clone of github.com/paavo5/ordergrad, which is in no package index. Both are jitted, in
float32, and take turns. OrderGrad has one group of fixed size and a static k; it is mapped over
prompts, with its tables and the weights of ranks worked out beforehand. Ours takes k as a traced
number. Errors are those against float64, relative to the largest advantage. Results go to
OUTDIR/ordergrad_BACKEND.csv, .md.
"""

import argparse
import importlib
import pathlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common, numpy_pkpo
from benchmarks.common import Row
from pkpo_jax import order_statistic, pkpo_centered

K = 8
SHAPES = ((1024, 16), (1024, 64), (256, 256), (64, 1024), (8, 8192), (4, 16384))
QUICK_SHAPES = ((4, 16), (2, 300))
TABLES = {
  'ordergrad': (
    *('statistic', 'rewards', 'prompts', 'n', 'ours_ms', 'ordergrad_ms', 'ordergrad/ours'),
    *('our_error', 'ordergrad_error'),
  ),
}
CAPTIONS = {
  'ordergrad': (
    f'k = {K}; median times of a call. max: `pkpo_centered`; median: `order_statistic`, without a '
    'reference for its error.'
  ),
}


def main(arguments: list[str] | None = None) -> None:
  """Times both and writes the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--ordergrad', type=pathlib.Path, help='a clone of its repository')
  parser.add_argument('--quick', action='store_true', help='small shapes: shows that it runs')
  parser.add_argument('--repeats', type=int, default=51)
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  transform = load_ordergrad(parser, options.ordergrad)
  shapes, repeats = (QUICK_SHAPES, 3) if options.quick else (SHAPES, options.repeats)
  given = sys.argv[1:] if arguments is None else arguments
  header = common.describe('benchmarks.ordergrad', given, 'seed: 0')
  rows = []
  for shape in shapes:
    rows += rows_of(transform, *shape, repeats)
    common.write('OrderGrad', {'ordergrad': rows}, TABLES, CAPTIONS, header, _path(options.outdir))
  common.print_table(TABLES['ordergrad'], rows)


def _path(outdir: pathlib.Path) -> pathlib.Path:
  return outdir / f'ordergrad_{jax.default_backend()}'


def load_ordergrad(parser: argparse.ArgumentParser, folder: pathlib.Path | None):
  """Returns OrderGrad's transform; leaves with a usage error if it is not there."""
  if folder is None or not (folder / 'ordergrad' / 'jax_backend.py').is_file():
    parser.error(f'--ordergrad: expected a clone of github.com/paavo5/ordergrad, got {folder}.')
  sys.path.insert(0, str(folder))
  return importlib.import_module('ordergrad.jax_backend').OrderStatTransform


def rows_of(transform, num_prompts: int, n: int, repeats: int) -> Iterator[Row]:
  """Yields a row for each statistic and kind of rewards."""
  tables = transform.precompute(n, K, dtype=jnp.float32)
  rng = np.random.default_rng(0)
  distinct = rng.normal(size=(num_prompts, n)).astype(np.float32)
  drawn = {'distinct': distinct, '0 or 1': (distinct > 1).astype(np.float32)}
  # Its first rank is the best.
  ranks = {'max': np.eye(K)[0], 'median': (np.eye(K)[K // 2 - 1] + np.eye(K)[K // 2]) / 2}
  for statistic, rank_weights in ranks.items():
    weighted = tables.with_lstat_weights(jnp.asarray(rank_weights, jnp.float32))
    theirs = jax.jit(jax.vmap(lambda x, weighted=weighted: K * weighted.lstat_advantage(x)))
    if statistic == 'max':
      kernel = jax.jit(lambda x, k: pkpo_centered(x, k=k))
    else:
      kernel = jax.jit(lambda x, k: order_statistic(x, k=k))
    contenders = {'ours': lambda x, fn=kernel: fn(x, jnp.int32(K)), 'ordergrad': theirs}
    for kind, rewards in drawn.items():
      x = jnp.asarray(rewards)
      found = {name: np.asarray(fn(x), np.float64) for name, fn in contenders.items()}
      seconds = common.time_in_turns(contenders, (x,), repeats)
      row = {'statistic': statistic, 'rewards': kind, 'prompts': num_prompts, 'n': n}
      row |= {f'{name}_ms': 1e3 * value for name, value in seconds.items()}
      row['ordergrad/ours'] = seconds['ordergrad'] / seconds['ours']
      if statistic == 'max':
        in_float64 = [n * numpy_pkpo.centered(g, K) for g in rewards.astype(np.float64)]
        largest = np.max(np.abs(in_float64))
        for column, name in (('our_error', 'ours'), ('ordergrad_error', 'ordergrad')):
          row[column] = float(np.max(np.abs(found[name] - in_float64)) / largest)
      yield row


if __name__ == '__main__':
  main()

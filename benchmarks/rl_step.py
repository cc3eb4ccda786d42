"""Times a whole training step beside tunix's: python -m benchmarks.rl_step [--quick].

Rollout, rewards, advantages and one Adam update of the tiny Gemma-2 of benchmarks.rollout, in
float32. pkpo_jax.train.train and tunix's GRPOLearner.train, each in a process of its own, are let
go one step at a time, in turns: A B A B ... A third process does our step by hand and waits after
each part, which tells how much of it is spent outside the model. Results go to
OUTDIR/rl_step_BACKEND.csv, .md; for an interpreter with tunix see benchmarks.rollout.
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from benchmarks import common, turns
from benchmarks.common import Row
from benchmarks.peers import tiny_gemma2

OURS, PIECES = 'pkpo_jax', 'pkpo_jax in pieces'
CANDIDATES = {
  OURS: ('ours_learner:Learner', None, 'train.train; metrics written every step'),
  PIECES: ('ours_learner:Phases', None, 'the same step by hand, waiting after each part'),
  'tunix': (
    'tunix_gemma2:Learner',
    'tunix_python',
    'GRPOLearner.train; beta = 0, no reference model; whole batch in one update; cache to fit; '
    'random rewards; no logs',
  ),
}
WORKLOAD = {
  'sizes': tiny_gemma2.SIZES,
  'num_prompts': 8,
  'num_samples': 8,
  'prompt_length': 16,
  'new_tokens': 32,
  'learning_rate': 1e-4,
}
QUICK = WORKLOAD | {
  'sizes': tiny_gemma2.SMALLEST,
  'num_prompts': 2,
  'num_samples': 2,
  'prompt_length': 4,
  'new_tokens': 6,
}
IN_THE_MODEL = ('rollout', 'update')
PHASES = ('prompts', 'rollout', 'rewards', 'advantages', 'update', 'metrics')
TABLES = {
  'step': (
    *('candidate', 'it/ours', 'warm_s', 'quartile_1_s', 'quartile_3_s', 'cold_s'),
    *('versions', 'settings', 'note'),
  ),
  'pieces': ('phase', 'ms', 'share'),
  'targets': ('target', 'measured', 'bound', 'reached'),
}
CAPTIONS = {
  'step': (
    'warm_s: median time of a step, all candidates in turns; it/ours: its warm_s over ours; '
    'cold_s: first step of a fresh process, with compilation (the first evaluation of train.train '
    'comes before it and is not in it).'
  ),
  'pieces': 'Median time of each part of our step, and median of its share of its step.',
  'targets': 'What was to be reached.',
}


def run(workload: dict, repeats: int, pythons: Mapping[str, str]) -> dict[str, list[Row]]:
  """Returns the rows of every table."""
  with contextlib.ExitStack() as stack:
    candidates, cold = {}, {}
    for name, (target, flag, _) in CANDIDATES.items():
      python = pythons[flag] if flag else sys.executable
      candidate = turns.Candidate(f'benchmarks.peers.{target}', workload, python)
      candidates[name] = stack.enter_context(candidate)
      if candidate.missing is None:
        cold[name] = candidate.call()['seconds']
        candidate.call()  # In case the first step leaves arrays of other types than it was given.
    for name in (OURS, PIECES):
      if name not in cold:
        raise RuntimeError(f'{name}: {candidates[name].missing}')
    replies = turns.take_turns({name: candidates[name] for name in cold}, repeats)
  pieces = list(piece_rows(replies[PIECES]))
  return {
    'step': list(step_rows(candidates, replies, cold)),
    'pieces': pieces,
    'targets': list(target_rows({row['phase']: row['share'] for row in pieces})),
  }


def step_rows(candidates, replies, cold):
  warm = {name: turns.median(replies[name]) for name in replies}
  for name, (_, _, settings) in CANDIDATES.items():
    row = {'candidate': name, 'settings': settings}
    if name not in replies:
      yield row | {'note': f'not run: {candidates[name].missing}'}
      continue
    quartiles = np.quantile([reply['seconds'] for reply in replies[name]], (0.25, 0.75))
    yield row | {
      'it/ours': warm[name] / warm[OURS],
      'warm_s': warm[name],
      'quartile_1_s': float(quartiles[0]),
      'quartile_3_s': float(quartiles[1]),
      'cold_s': cold[name],
      'versions': candidates[name].about['versions'],
    }


def piece_rows(replies):
  def row(phase, seconds):
    pairs = list(zip(seconds, replies, strict=True))
    share = statistics.median(part / reply['seconds'] for part, reply in pairs)
    return {'phase': phase, 'ms': 1e3 * statistics.median(seconds), 'share': share}

  for phase in PHASES:
    yield row(phase, [reply[phase] for reply in replies])
  outside = [reply['seconds'] - sum(reply[p] for p in IN_THE_MODEL) for reply in replies]
  yield row('outside the model', outside)
  yield row('all', [reply['seconds'] for reply in replies])


def target_rows(shares):
  for phase, bound in (('outside the model', 0.05), ('advantages', 0.005)):
    yield {
      'target': f'share of a step: {phase}',
      'measured': shares[phase],
      'bound': f'<= {bound:g}',
      'reached': 'yes' if shares[phase] <= bound else 'no',
    }


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument('--repeats', type=int, default=31, help='warm steps of each candidate')
  parser.add_argument('--tunix_python', default=sys.executable, help='has google-tunix')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  workload = QUICK if options.quick else WORKLOAD
  repeats = 2 if options.quick else options.repeats
  header = common.describe(
    'benchmarks.rl_step', arguments, f'seed: 0; {workload}; {repeats} steps of each in turns'
  )
  print('\n'.join(header))
  start = time.perf_counter()
  rows = run(workload, repeats, {'tunix_python': options.tunix_python})
  for table, table_rows in rows.items():
    print(f'\n{CAPTIONS[table]}')
    common.print_table(TABLES[table], table_rows)
  backend = jax.default_backend()
  path = options.outdir / f'rl_step_{backend}'
  common.write(f'Training step on {backend}', rows, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

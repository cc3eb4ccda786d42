"""Times a whole training step beside tunix's: python -m benchmarks.rl_step [--quick].

Rollout, rewards, advantages and one Adam update of the tiny Gemma-2 of benchmarks.rollout, in
float32. pkpo_jax.train.train and tunix's GRPOLearner.train, each in a process of its own, are let
go one step at a time, in turns: A B A B ... A third process does our step by hand and waits after
each part, which tells how much of it is spent outside the model.

In some cases no token ends a completion, so that all have full length. In another they end at
log-normal lengths, the same for the same sample of the same prompt in every candidate: in each the
stop token's logit is raised where a completion has its length, and lowered before, while it
samples. All else is the libraries' own way with a stop token. Results go to
OUTDIR/rl_step_BACKEND.csv, .md; for an interpreter with tunix see benchmarks.rollout.
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import common, packing, turns
from benchmarks.common import Row
from benchmarks.peers import tiny_gemma2

OURS, PIECES, PLAIN = 'pkpo_jax', 'pkpo_jax in pieces', 'pkpo_jax, one batch'
TUNIX = ('tunix', 'tunix, rollout by prompt', 'tunix, one batch')
PACKED = 'tunix, patched to pack'
# Name -> class, the flag that says which interpreter runs it (None: this one), and its settings.
CANDIDATES = {
  OURS: ('ours_learner:Learner', None, 'train.train; metrics written every step; config.loss: '),
  PIECES: ('ours_learner:Phases', None, 'the same step by hand, waiting after each part'),
  PLAIN: (
    'ours_learner:Learner',
    None,
    'train.train; one update of the whole batch; nothing cut or packed',
  ),
  TUNIX[0]: (
    'tunix_gemma2:Learner',
    'tunix_python',
    'GRPOLearner.train; beta = 0, no reference model; cache to fit; random rewards; no logs; '
    'train_micro_batch_size = 1 prompt, all prompts in one rollout',
  ),
  TUNIX[1]: ('tunix_gemma2:Learner', 'tunix_python', 'the same; rollout_micro_batch_size = 1, too'),
  TUNIX[2]: ('tunix_gemma2:Learner', 'tunix_python', 'all prompts in one rollout and one update'),
  PACKED: (
    'tunix_packed:Learner',
    'tunix_python',
    'rollout by prompt; max_seq_token_per_tpu of two samples, with which an update has no padding. '
    "tunix's Gemma does not have it: patched for its time, and not its numbers",
  ),
}


class Case(NamedTuple):
  """What a step is like.

  Attributes:
    num_prompts: P.
    num_samples: N.
    new_tokens: L.
    ratio: longest length over the mean; 1 is L for all, without a stop token.
    target: how many times as long the fastest setting of tunix should take.
    loss: our fields of config.loss.
    candidates: which there are, beside ours and tunix's first.
    sizes: of the model.
    prompt_length: T.
  """

  num_prompts: int
  num_samples: int
  new_tokens: int
  ratio: int
  target: float
  loss: Mapping[str, int]
  candidates: Sequence[str] = ()
  sizes: Mapping[str, int | float] = tiny_gemma2.SIZES
  prompt_length: int = 16

  def workload(self, candidate: str) -> dict:
    """Returns what a candidate is built from."""
    shape = self.num_prompts, self.num_samples
    lengths = None
    if self.ratio > 1:
      lengths = packing.draw_lengths(shape, self.new_tokens, self.ratio).tolist()
    return {
      'sizes': self.sizes,
      'num_prompts': self.num_prompts,
      'num_samples': self.num_samples,
      'prompt_length': self.prompt_length,
      'new_tokens': self.new_tokens,
      'learning_rate': 1e-4,
      'lengths': lengths,
      'loss': {} if candidate == PLAIN else self.loss,
      'num_packings': 0 if candidate == PLAIN else None,
      'train_micro_batch_size': self.num_prompts if candidate == TUNIX[2] else 1,
      'rollout_micro_batch_size': 1 if candidate in (TUNIX[1], PACKED) else self.num_prompts,
    }


ALL = (PIECES, PLAIN, *TUNIX[1:])
SMALL_PIECES = {'num_microbatches': 8, 'num_sample_blocks': 4}
CASES = {
  'equal, 32 tokens': Case(8, 8, 32, 1, 2.5, {'num_microbatches': 8}, ALL),
  'equal, 128 tokens': Case(8, 16, 128, 1, 2.5, SMALL_PIECES, (PLAIN, TUNIX[2])),
  'log-normal, 128 tokens': Case(
    8, 16, 128, 4, 4.0, SMALL_PIECES | {'num_lengths': 4}, (*ALL, PACKED)
  ),
}
SMALLEST = {'sizes': tiny_gemma2.SMALLEST, 'prompt_length': 4}
QUICK = {
  'equal': Case(2, 2, 6, 1, 2.5, {'num_microbatches': 2}, (PIECES,), **SMALLEST),
  'log-normal': Case(2, 2, 8, 2, 4.0, {'num_sample_blocks': 2, 'num_lengths': 2}, **SMALLEST),
}
IN_THE_MODEL = ('rollout', 'update')
PHASES = ('prompts', 'rollout', 'rewards', 'advantages', 'update', 'metrics')
TABLES = {
  'step': (
    *('case', 'candidate', 'it/ours', 'cpu/ours', 'warm_s', 'quartile_1_s', 'quartile_3_s'),
    *('cpu_s', 'cold_s', 'num_tokens', 'note'),
  ),
  'cases': ('case', 'P', 'N', 'L', 'max/mean', 'steps', 'loss'),
  'candidates': ('candidate', 'versions', 'settings'),
  'pieces': ('case', 'phase', 'ms', 'share'),
  'targets': ('target', 'measured', 'bound', 'reached'),
}
CAPTIONS = {
  'step': (
    'warm_s: median time of a step, all candidates in turns; it/ours: median over turns of its '
    'time over ours; cpu/ours: its cpu_s over ours, the median CPU seconds of a step, which other '
    'work on the machine disturbs less; cold_s: first step of a fresh process, with compilation '
    '(the first evaluation of train.train comes before it and is not in it); num_tokens: of all '
    'completions of a step, stop tokens included.'
  ),
  'cases': (
    'P prompts, N samples, at most L tokens; max/mean: of the lengths; loss: our config.loss.'
  ),
  'candidates': 'What each candidate is.',
  'pieces': 'Median time of each part of our step, and median of its share of its step.',
  'targets': "What was to be reached; tunix's time is that of its fastest settings.",
}


def run(
  cases: Mapping[str, Case], names: Sequence[str], repeats: int, pythons: Mapping[str, str]
) -> dict[str, list[Row]]:
  """Returns the rows of every table, printing those of each case as they come."""
  tables = {name: [] for name in TABLES}
  versions = {}
  for name, case in cases.items():
    rows, pieces, found = measure(case, names, repeats, pythons)
    versions |= found
    print(f'\n{name}', flush=True)
    common.print_table(TABLES['step'], rows)
    tables['step'] += [{'case': name} | row for row in rows]
    tables['pieces'] += [{'case': name} | row for row in pieces]
    tables['targets'] += target_rows(name, case, rows, pieces)
    tables['cases'].append(case_row(name, case, repeats))
  for name in names:
    settings = CANDIDATES[name][-1]
    settings += 'in the table of cases; policy.num_packings: its default' if name == OURS else ''
    row = {'candidate': name, 'versions': versions.get(name, ''), 'settings': settings}
    tables['candidates'].append(row)
  return tables


def measure(
  case: Case, names: Sequence[str], repeats: int, pythons: Mapping[str, str]
) -> tuple[list[Row], list[Row], dict[str, str]]:
  """Returns the rows of the candidates of a case and of our parts, and what versions ran."""
  names = [name for name in names if name in (OURS, TUNIX[0], *case.candidates)]
  with contextlib.ExitStack() as stack:
    candidates, cold = {}, {}
    for name in names:
      target, flag, _ = CANDIDATES[name]
      python = pythons[flag] if flag else sys.executable
      candidate = turns.Candidate(f'benchmarks.peers.{target}', case.workload(name), python)
      candidates[name] = stack.enter_context(candidate)
      if candidate.missing is None:
        cold[name] = candidate.call()['seconds']
        candidate.call()  # In case the first step leaves arrays of other types than it was given.
      elif name not in (*TUNIX, PACKED):
        raise RuntimeError(f'{name}: {candidate.missing}')
    replies = turns.take_turns({name: candidates[name] for name in cold}, repeats)
  rows = list(step_rows({name: candidates[name].missing for name in names}, replies, cold))
  pieces = list(piece_rows(replies[PIECES])) if PIECES in replies else []
  return rows, pieces, {name: candidates[name].about['versions'] for name in cold}


def case_row(name: str, case: Case, repeats: int) -> Row:
  lengths = case.workload(OURS)['lengths']
  row = {'case': name, 'P': case.num_prompts, 'N': case.num_samples, 'L': case.new_tokens}
  row['max/mean'] = 1.0 if lengths is None else float(np.max(lengths) / np.mean(lengths))
  return row | {'steps': repeats, 'loss': ', '.join(f'{k} = {v}' for k, v in case.loss.items())}


def step_rows(missing, replies, cold) -> Iterator[Row]:
  seconds = {name: np.array([reply['seconds'] for reply in replies[name]]) for name in replies}
  cpu = {name: turns.median(replies[name], 'cpu_seconds') for name in replies}
  for name, reason in missing.items():
    if reason is not None:
      yield {'candidate': name, 'note': f'not run: {reason}'}
      continue
    quartiles = np.quantile(seconds[name], (0.25, 0.75))
    row = {
      'candidate': name,
      'it/ours': float(np.median(seconds[name] / seconds[OURS])),
      'cpu/ours': cpu[name] / cpu[OURS],
      'warm_s': float(np.median(seconds[name])),
      'quartile_1_s': float(quartiles[0]),
      'quartile_3_s': float(quartiles[1]),
      'cpu_s': cpu[name],
      'cold_s': cold[name],
    }
    if name != PIECES:
      row['num_tokens'] = replies[name][-1]['num_tokens']
    yield row


def piece_rows(replies) -> Iterator[Row]:
  def row(phase, seconds):
    pairs = list(zip(seconds, replies, strict=True))
    share = statistics.median(part / reply['seconds'] for part, reply in pairs)
    return {'phase': phase, 'ms': 1e3 * statistics.median(seconds), 'share': share}

  for phase in PHASES:
    yield row(phase, [reply[phase] for reply in replies])
  outside = [reply['seconds'] - sum(reply[p] for p in IN_THE_MODEL) for reply in replies]
  yield row('outside the model', outside)
  yield row('all', [reply['seconds'] for reply in replies])


def target_rows(name: str, case: Case, rows: Sequence[Row], pieces: Sequence[Row]) -> Iterator[Row]:
  """Yields what a case was to reach: beside tunix, where it ran, and in the parts of our step."""
  for tunix, settings in (('tunix', TUNIX), (PACKED, (PACKED,))):
    for column, label in (('it/ours', 'time'), ('cpu/ours', 'CPU time')):
      found = [row[column] for row in rows if row['candidate'] in settings and column in row]
      if found:
        yield _target(f'{name}: {label} of {tunix} over ours', min(found), '>=', case.target)
  shares = {row['phase']: row['share'] for row in pieces}
  for phase, bound in (('outside the model', 0.05), ('advantages', 0.005)):
    if phase in shares:
      yield _target(f'{name}: share of a step: {phase}', shares[phase], '<=', bound)


def _target(target, measured, relation, bound):
  is_reached = measured >= bound if relation == '>=' else measured <= bound
  reached = 'yes' if is_reached else 'no'
  return {
    'target': target,
    'measured': measured,
    'bound': f'{relation} {bound:g}',
    'reached': reached,
  }


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny sizes: shows that it runs')
  parser.add_argument('--repeats', type=int, default=31, help='warm steps of each candidate')
  parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
  parser.add_argument(
    '--candidates', nargs='+', choices=CANDIDATES, default=list(CANDIDATES), help='all by default'
  )
  parser.add_argument('--tunix_python', default=sys.executable, help='has google-tunix')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  cases = QUICK if options.quick else {name: CASES[name] for name in options.cases}
  repeats = 2 if options.quick else options.repeats
  case = next(iter(cases.values()))
  header = common.describe(
    'benchmarks.rl_step',
    arguments,
    f'seed: 0; Gemma-2 of float32 parameters {case.sizes}; prompts of {case.prompt_length} random '
    f'tokens; {repeats} steps of each in turns',
  )
  print('\n'.join(header))
  start = time.perf_counter()
  names = [name for name in CANDIDATES if name in {OURS, *options.candidates}]
  rows = run(cases, names, repeats, {'tunix_python': options.tunix_python})
  for table, table_rows in rows.items():
    print(f'\n{CAPTIONS[table]}')
    common.print_table(TABLES[table], table_rows)
  backend = jax.default_backend()
  path = options.outdir / f'rl_step_{backend}'
  common.write(f'Training step on {backend}', rows, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

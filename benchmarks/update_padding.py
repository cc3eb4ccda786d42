"""What padding costs an update, and prompts without signal: python -m benchmarks.update_padding.

One update with Adam of the tiny Gemma-2, by `make_train_step`. Lengths are log-normal, scaled and
spread so that the longest of a batch is L and max/mean is as said; they are independent, or half of
the variance of their logarithms is that of their prompt. In the cases of `signal`, each sample is
right with a probability of 5 %, and advantages are those of `rloo`. Each case has a few batches.
In each turn, every setup makes its update of one of them. Results go to
OUTDIR/update_padding_BACKEND.csv, .md. `--quick` shows that it runs.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import common
from benchmarks.attention_memory import rollout_of
from benchmarks.common import Row
from configs import default
from pkpo_jax.advantages import ADVANTAGES
from pkpo_jax.pieces import halved
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.settings import LossSettings
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.train_step import init_state, make_train_step

PASS_RATE = 0.05
KEY = jax.random.key(0)  # Of an epoch with several minibatches, which these updates do not have.


class Setup(NamedTuple):
  """Fields of config.loss."""

  num_microbatches: int = 1
  num_sample_blocks: int = 1
  num_lengths: int = 1
  skip_without_signal: bool = False

  @property
  def is_plain(self) -> bool:
    """Whether it has nothing but microbatches."""
    return self == Setup(self.num_microbatches)

  @property
  def uncut(self) -> 'Setup':
    """The same pieces, none of them cut or left out."""
    return Setup(self.num_microbatches, self.num_sample_blocks)


class Case(NamedTuple):
  """What batches are like; `ratio` is max/mean of lengths, 1 is L for all."""

  prompt_tokens: int
  ratio: int = 1
  prompt_share: float = 0.0
  pass_rate: float | None = None


class Batches(NamedTuple):
  """Some batches of a case, all of one size."""

  rollouts: list
  advantages: list


PLAIN = [Setup(1), Setup(4), Setup(8)]
LENGTHS = [
  Setup(1, 4, 3),
  Setup(4, 1, 3),
  Setup(2, 2, 3),
  Setup(4, 4, 1),
  Setup(4, 4, 3),
  Setup(4, 4, 4),
  Setup(8, 4, 4),
]
SIGNAL = [
  Setup(4, 1, 1, True),
  Setup(8, 1, 1, True),
  Setup(4, 4, 1),
  Setup(4, 4, 3, True),
  Setup(8, 4, 3, True),
]
COLUMNS = (
  *Setup._fields,
  'positions',
  's',
  'quartile_1_s',
  'quartile_3_s',
  'whole/it',
  'plain/it',
  'uncut/it',
)
TABLES = {
  'lengths': ('prompt_tokens', 'max/mean', 'prompt_share', *COLUMNS),
  'signal': ('max/mean', 'with_signal', *COLUMNS),
  'programs': ('prompt_tokens', *Setup._fields, 'compile_s', 'planned_mib', 'gradient_error'),
  'targets': ('target', 'measured', 'bound', 'reached'),
}
CAPTIONS = {
  'lengths': (
    'prompt_share: share of the variance of log lengths that is between prompts; positions: '
    'tokens and padding that go through the model, prompts included, over those of the first row; '
    "s: median time; whole/it: median over turns of the first row's time over this one's; "
    'plain/it: the same with the fastest row that has nothing but microbatches; uncut/it: with the '
    'row of the same pieces, none of them cut or left out. Smaller pieces alone can be faster.'
  ),
  'signal': (
    f'The same with advantages at a pass rate of {PASS_RATE:g}; with_signal: share of the prompts '
    'that have advantages other than 0.'
  ),
  'programs': (
    'Time to trace and compile, planned temporary memory, and the largest difference of a gradient '
    'from that of the first row over the largest entry of its array, over all batches.'
  ),
  'targets': (
    'The smaller of plain/it and uncut/it with 4 microbatches, 4 sample blocks and 3 lengths; in '
    'the last two rows it skips, too.'
  ),
}


def draw_lengths(rng, shape: tuple[int, int], longest: int, case: Case) -> np.ndarray:
  """Returns `[P, N]` log-normal lengths of the largest and the mean that the case has."""
  between, within = np.sqrt([case.prompt_share, 1 - case.prompt_share])
  z = between * rng.standard_normal((shape[0], 1)) + within * rng.standard_normal(shape)
  low, high = 0.0, 20.0  # Of sigma: the larger, the smaller is the mean beside the largest.
  for _ in range(50):
    sigma = (low + high) / 2
    lengths = np.exp(sigma * (z - z.max()))
    low, high = (sigma, high) if lengths.mean() > 1 / case.ratio else (low, sigma)
  return np.maximum(np.round(longest * lengths), 1).astype(int)


def draw_batches(case: Case, shape: tuple[int, int], tokens: int, num_batches: int) -> Batches:
  rng = np.random.default_rng(0)
  found = Batches([], [])
  for _ in range(num_batches):
    lengths = draw_lengths(rng, shape, tokens, case)
    advantages = rng.standard_normal(shape).astype(np.float32)
    if case.pass_rate is not None:
      rewards = (rng.random(shape) < case.pass_rate).astype(np.float32)
      advantages = ADVANTAGES['rloo'](rewards, k=1)
    rollout = rollout_of(*shape, case.prompt_tokens, tokens)
    mask = np.arange(tokens) < lengths[..., None]
    found.rollouts.append(jax.device_put(rollout.replace(completion_mask=mask)))
    found.advantages.append(jnp.asarray(advantages))
  return found


def count_positions(setup: Setup, mask: np.ndarray, advantages: np.ndarray, prompt_tokens: int):
  """Returns how many positions a setup computes, from the sorted lengths."""
  longest = mask.shape[-1]
  lengths = mask.sum(-1)
  if setup.skip_without_signal:
    lengths = lengths * np.any(advantages != 0, axis=1, keepdims=True)
  options = halved(longest, setup.num_lengths)
  if setup.skip_without_signal:
    options = (0, *options)
  lengths = np.sort(lengths, axis=1)[np.argsort(lengths.sum(1), kind='stable')]
  blocks = lengths.reshape(
    setup.num_microbatches, -1, setup.num_sample_blocks, lengths.shape[1] // setup.num_sample_blocks
  )
  total = 0
  for piece in np.moveaxis(blocks, 2, 1).reshape(-1, blocks.shape[1], blocks.shape[3]):
    length = min(x for x in options if x >= piece.max())
    total += len(piece) * prompt_tokens * (length > 0) + piece.size * length
  return total


class Updates:
  """The compiled updates of one model, for one size of batches."""

  def __init__(self, policy: LanguageModel):
    self._policy, self._optimizer = policy, optax.adam(1e-4)
    self._start = init_state(policy, self._optimizer, KEY)
    self._compiled = {}
    self.programs: dict[tuple[int, Setup], Row] = {}

  def compile(self, setup: Setup, rollout, advantages):
    prompt_tokens = rollout.prompt_tokens.shape[1]
    if (prompt_tokens, setup) in self._compiled:
      return
    base = LossSettings(**default.get_config().loss)
    settings = dataclasses.replace(base, **setup._asdict())
    step = jax.jit(make_train_step(self._policy, self._optimizer, settings))
    start = time.perf_counter()
    compiled = step.lower(*self._start, rollout, advantages, KEY).compile()
    seconds = time.perf_counter() - start
    self._compiled[prompt_tokens, setup] = compiled
    self.programs[prompt_tokens, setup] = {
      'prompt_tokens': prompt_tokens,
      **setup._asdict(),
      'compile_s': seconds,
      'planned_mib': compiled.memory_analysis().temp_size_in_bytes / 2**20,
    }
    print(f'{setup}: compiled in {seconds:.1f} s', file=sys.stderr, flush=True)

  def __call__(self, setup: Setup, rollout, advantages):
    """Makes an update; returns the seconds it takes, and the gradient."""
    compiled = self._compiled[rollout.prompt_tokens.shape[1], setup]
    start = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(*self._start, rollout, advantages, KEY))
    # Adam's first mean of gradients is (1 - b1) times the gradient.
    return time.perf_counter() - start, state.opt_state[0].mu


def rows_of(updates, case, setups, batches, turns) -> Iterator[Row]:
  """Yields a row for each setup; the first is what the others are compared with."""
  for setup in setups:
    updates.compile(setup, batches.rollouts[0], batches.advantages[0])
  pairs = list(zip(batches.rollouts, batches.advantages, strict=True))
  for rollout, advantages in pairs:  # Also the calls that come before those that count.
    _, expected = updates(setups[0], rollout, advantages)
    for setup in setups:
      program = updates.programs[case.prompt_tokens, setup]
      error = common.largest_error(updates(setup, rollout, advantages)[1], expected)
      program['gradient_error'] = max(error, program.get('gradient_error', 0.0))
  seconds = {setup: [] for setup in setups}
  for turn in range(turns):
    for setup in setups:
      seconds[setup].append(updates(setup, *pairs[turn % len(pairs)])[0])
  plain = min((s for s in setups if s.is_plain), key=lambda s: statistics.median(seconds[s]))
  ratio = lambda a, b: statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))
  count = lambda setup: sum(
    count_positions(setup, *map(np.asarray, (r.completion_mask, a)), case.prompt_tokens)
    for r, a in pairs
  )
  has_signal = np.mean([np.any(np.asarray(a) != 0, axis=1) for a in batches.advantages])
  for setup in setups:
    quartiles = np.quantile(seconds[setup], (0.25, 0.75))
    yield {
      'prompt_tokens': case.prompt_tokens,
      'max/mean': case.ratio,
      'prompt_share': case.prompt_share,
      **({} if case.pass_rate is None else {'with_signal': float(has_signal)}),
      **setup._asdict(),
      'positions': count(setup) / count(setups[0]),
      's': statistics.median(seconds[setup]),
      'quartile_1_s': float(quartiles[0]),
      'quartile_3_s': float(quartiles[1]),
      'whole/it': ratio(setups[0], setup),
      'plain/it': ratio(plain, setup),
      **({'uncut/it': ratio(setup.uncut, setup)} if setup.uncut in setups else {}),
    }


def target_rows(lengths: Sequence[Row], signal: Sequence[Row]) -> Iterator[Row]:
  """Yields how much faster one setup is in each case."""
  setup, skipping = Setup(4, 4, 3), Setup(4, 4, 3, True)
  measured = lambda row: min(row[name] for name in ('plain/it', 'uncut/it') if name in row)
  is_of = lambda row, setup: all(row[name] == value for name, value in setup._asdict().items())
  for row in (row for row in lengths if is_of(row, setup)):
    share, tokens = row['prompt_share'], row['prompt_tokens']
    yield {
      'target': f'max/mean {row["max/mean"]}, prompt_share {share:g}, prompts of {tokens}',
      'measured': measured(row),
      'bound': '>= 1.3',
      'reached': 'yes' if measured(row) >= 1.3 else 'no',
    }
  for row in (row for row in signal if is_of(row, skipping)):
    yield {
      'target': f'{row["with_signal"]:.2f} with signal, max/mean {row["max/mean"]}',
      'measured': measured(row),
    }


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='a tiny model: shows that it runs')
  parser.add_argument('--preset', default='gemma2_tiny')
  parser.add_argument('--num_prompts', type=int, default=8)
  parser.add_argument('--num_samples', type=int, default=16)
  parser.add_argument('--prompt_tokens', type=int, default=32)
  parser.add_argument('--tokens', type=int, default=128, help='L')
  parser.add_argument('--batches', type=int, default=3, help='of each case')
  parser.add_argument('--turns', type=int, default=7)
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  plain, lengths, signal, ratios = PLAIN, LENGTHS, SIGNAL, (4, 8)
  long_prompts = [*PLAIN[:2], Setup(4, 4, 1), Setup(4, 4, 3)]
  if options.quick:
    options.preset, options.num_prompts, options.num_samples = 'gemma2_micro', 4, 4
    options.prompt_tokens, options.tokens, options.batches, options.turns = 3, 8, 2, 2
    plain, lengths, signal, ratios = PLAIN[:1], [Setup(4, 4, 3)], [Setup(4, 4, 3, True)], (4,)
    long_prompts = []
  header = common.describe(
    'benchmarks.update_padding',
    arguments,
    f'seed: 0; {options.preset}, {options.num_prompts} x {options.num_samples}, L = '
    f'{options.tokens}, float32; {options.batches} batches, {options.turns} turns',
  )
  print('\n'.join(header))
  shape = options.num_prompts, options.num_samples
  task = SimpleNamespace(tokenizer=CharacterTokenizer())
  updates = Updates(LanguageModel(task, options.preset, max_new_tokens=options.tokens))

  def measure(case, setups):
    batches = draw_batches(case, shape, options.tokens, options.batches)
    found = list(rows_of(updates, case, setups, batches, options.turns))
    common.print_table([*dict.fromkeys(name for row in found for name in row)], found)
    return found

  tables = {'lengths': [], 'signal': []}
  for ratio in ratios:
    for prompt_share in (0.0, 0.5):
      case = Case(options.prompt_tokens, ratio, prompt_share)
      tables['lengths'] += measure(case, [*plain, *lengths])
  if long_prompts:  # As long as the longest completion.
    tables['lengths'] += measure(Case(options.tokens, ratios[0]), long_prompts)
  for ratio in (1, ratios[0]):
    case = Case(options.prompt_tokens, ratio, pass_rate=PASS_RATE)
    tables['signal'] += measure(case, [*plain, *signal])
  tables['programs'] = list(updates.programs.values())
  tables['targets'] = list(target_rows(tables['lengths'], tables['signal']))
  path = options.outdir / f'update_padding_{jax.default_backend()}'
  common.write('Padding in the update', tables, TABLES, CAPTIONS, header, path)


if __name__ == '__main__':
  main()

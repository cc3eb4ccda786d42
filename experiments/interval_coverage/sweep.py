"""How often a 95 % interval for pass@k covers the truth, and how wide it is.

A problem's pass rate p is drawn from a population, then c ~ Binomial(n, p) right samples. The truth
is the mean of the population, E[1 - (1 - p)^k], known in closed form. In pairs a second policy is
measured on the same problems: with chance SHARED a problem's pass rate is that of the first policy,
else a fresh draw ('null', truth 0), and then perhaps as if it had two tries for each ('better').

  nice python -m experiments.interval_coverage.sweep
"""

import argparse
import pathlib
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import special

from experiments.interval_coverage import methods
from experiments.results import write_rows
from pkpo_jax.estimators import pass_at_k

NUM_SAMPLES = 16
KS = (1, 8, 16)
NUM_PROBLEMS = (5, 10, 20, 24, 30, 50, 100, 200, 500, 1000)
NUM_DRAWS = {'single': 2000, 'paired': 1000}  # Data sets of each case,
NUM_DRAWS_SLOW = 400  # and of the intervals that take long.
AT_ONCE = 200  # Data sets that share their redraws of problems.
SHARED = 0.8
SEED = 0
SLACK = 1e-5  # Of float32.
DIGITS = 5  # Behind the point, of the rows.
RESULTS = pathlib.Path(__file__).parent / 'results'


class Part(NamedTuple):
  """A share of the problems whose pass rates are Beta(a, b), or all `rate`."""

  share: float
  a: float = 0.0
  b: float = 0.0
  rate: float | None = None


POPULATIONS = {
  'Beta(1/2, 1/2)': [Part(1, 0.5, 0.5)],
  'uniform': [Part(1, 1, 1)],
  'MATH-like': [Part(1, 3, 7)],  # One hump about 0.3.
  'ARC-like': [Part(0.9, rate=0), Part(0.1, 0.5, 2)],  # Nine in ten unsolvable, pass@1 of 2 %.
  'two humps': [Part(0.5, 1, 9), Part(0.5, 9, 1)],
  'point at 0.3': [Part(1, rate=0.3)],
  '98 % solved': [Part(0.98, rate=1), Part(0.02, rate=0)],
  'all solved': [Part(1, rate=1)],
}


def true_pass_at_k(parts: list[Part], k: int) -> float:
  """Returns E[1 - (1 - p)^k]."""
  fail = [
    (1 - x.rate) ** k
    if x.rate is not None
    else np.exp(special.betaln(x.a, x.b + k) - special.betaln(x.a, x.b))
    for x in parts
  ]
  return 1 - sum(x.share * y for x, y in zip(parts, fail, strict=True))


def draw_pass_rates(parts: list[Part], size: tuple[int, ...], rng: np.random.Generator):
  """Returns pass rates of problems of the population."""
  which = rng.choice(len(parts), p=[x.share for x in parts], size=size)
  rates = [np.full(size, x.rate) if x.rate is not None else rng.beta(x.a, x.b, size) for x in parts]
  return np.choose(which, rates)


def main() -> None:
  """Writes the rows of one run and of the difference of two, a file for each k."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', choices=NUM_DRAWS, help='one half of the rows; both if not given')
  parser.add_argument('--num_draws', type=int, help='data sets of each case')
  parser.add_argument('--output_dir', type=pathlib.Path, default=RESULTS)
  args = parser.parse_args()
  for name, rows_of in (('single', single_rows), ('paired', paired_rows)):
    if args.only not in (None, name):
      continue
    start, rows, num_draws = time.time(), [], args.num_draws or NUM_DRAWS[name]
    for population in POPULATIONS:
      # Two policies that solve all never differ.
      if name == 'paired' and population == 'all solved':
        continue
      for num_problems in NUM_PROBLEMS:
        rows += rows_of(population, num_problems, num_draws)
      print(f'{name}, {population}: {time.time() - start:.0f} s', flush=True)
    for k in KS:
      write_rows(
        args.output_dir / f'{name}_k{k}.csv',
        [row for row in rows if row['k'] == k],
        command='python -m experiments.interval_coverage.sweep',
        config={
          'num_samples': NUM_SAMPLES,
          'num_draws': num_draws,
          'num_draws_slow': NUM_DRAWS_SLOW,
          'num_resamples': methods.NUM_RESAMPLES,
          'at_once': AT_ONCE,
          'shared': SHARED,
        },
        seed=SEED,
        wall_seconds=time.time() - start,
      )


def single_rows(population: str, num_problems: int, num_draws: int) -> Iterator[dict]:
  """Yields one row for each k and interval."""
  parts, rng = POPULATIONS[population], _rng('single', population, num_problems)
  truth = np.array([true_pass_at_k(parts, k) for k in KS])
  counts = rng.binomial(NUM_SAMPLES, draw_pass_rates(parts, (num_draws, num_problems), rng))
  ends = _intervals(_curves(counts), rng)
  few = counts[:NUM_DRAWS_SLOW]
  ends['beta-binomial (Bayesian)'] = methods.BetaBinomial(NUM_SAMPLES, KS)(few)
  ends['Bayes@N (problems fixed)'] = methods.fixed_problems(counts, NUM_SAMPLES, KS)
  case = {'population': population, 'num_problems': num_problems}
  yield from _rows(case, truth, ends)


def paired_rows(population: str, num_problems: int, num_draws: int) -> Iterator[dict]:
  """Yields one row for each k and interval, without a difference and with one."""
  parts, size = POPULATIONS[population], (num_draws, num_problems)
  for effect in ('null', 'better'):
    rng = _rng(effect, population, num_problems)
    first = draw_pass_rates(parts, size, rng)
    second = np.where(rng.random(size) < SHARED, first, draw_pass_rates(parts, size, rng))
    truth = np.zeros(len(KS))
    if effect == 'better':
      second = 1 - (1 - second) ** 2
      truth = np.array([true_pass_at_k(parts, 2 * k) - true_pass_at_k(parts, k) for k in KS])
    other, own = (_curves(rng.binomial(NUM_SAMPLES, x)) for x in (first, second))
    ends = _intervals((own - other + 1) / 2, rng)  # From [-1, 1] to [0, 1].
    ends = {name: (2 * low - 1, 2 * high - 1) for name, (low, high) in ends.items()}
    case = {'population': population, 'effect': effect, 'num_problems': num_problems}
    yield from _rows(case, truth, ends)


def _curves(counts: np.ndarray) -> np.ndarray:
  """Returns the estimates of pass@k, `[D, P, K]`."""
  of_count = np.arange(NUM_SAMPLES + 1)
  table = np.stack([pass_at_k(of_count, NUM_SAMPLES, k) for k in KS], axis=-1)
  return table.astype(np.float64)[counts]


def _intervals(values: np.ndarray, rng: np.random.Generator) -> dict[str, methods.Ends]:
  pieces = []
  for piece in np.split(values, range(AT_ONCE, len(values), AT_ONCE)):
    drawn = methods.redrawn(piece, rng) | methods.reweighted(piece, rng)
    pieces.append(drawn | methods.closed_forms(piece, NUM_SAMPLES))
  ends = {'betting': methods.betting(values[:NUM_DRAWS_SLOW])}
  return ends | {
    name: tuple(np.concatenate([piece[name][end] for piece in pieces]) for end in (0, 1))
    for name in pieces[0]
  }


def _rows(case: dict, truth: np.ndarray, ends: dict[str, methods.Ends]) -> Iterator[dict]:
  for name, (low, high) in ends.items():
    covers = (low <= truth + SLACK) & (truth <= high + SLACK)
    width, num_draws = high - low, len(low)
    for i, k in enumerate(KS):
      row = {**case, 'k': k, 'interval': name, 'truth': round(truth[i], DIGITS)}
      measured = (('coverage', covers), ('width', width), ('zero_width', width <= SLACK))
      for column, values in measured:
        row[column] = round(values[:, i].mean(), DIGITS)
        row[f'{column}_se'] = round(values[:, i].std(ddof=1) / num_draws**0.5, DIGITS)
      yield row | {'num_draws': num_draws}


def _rng(*case) -> np.random.Generator:
  """Returns the generator of a case: the same whatever other cases there are."""
  return np.random.default_rng([SEED, zlib.crc32(repr(case).encode())])


if __name__ == '__main__':
  main()

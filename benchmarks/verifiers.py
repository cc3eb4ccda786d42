"""Verdicts per second of each verifier: python -m benchmarks.verifiers.

Draws problems with completions, half of them right, checks that the verifier says so and times it.
Some verify in this process, some in worker processes. The numbers of workers take turns, each time
with completions not seen before, and the least time of each counts. Where a library is missing or
no sandbox works, the table says so. Results go to OUTDIR/verifiers_cpu.csv, .md. `--quick` shows
that it runs.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.common import Row
from pkpo_jax.tasks.arc.verifier import grid_text, verify_arc
from pkpo_jax.tasks.code.programs import UnitTests
from pkpo_jax.tasks.code.verifier import CodeItem, CodeVerifier
from pkpo_jax.tasks.countdown import draw_countdown, infix, verify_countdown
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.math.verifier import MathVerifier
from pkpo_jax.tasks.maze import draw_maze, shortest_way, verify_maze
from pkpo_jax.tasks.puzzles.verifier import Puzzle, PuzzleVerifier

SEED = 0
DEADLINE_S = 30.0  # Nothing here hangs; enough for a busy machine.
TABLES = {
  'throughput': (
    *('verifier', 'workers', 'items', 'start_s', 'per_s', 'ms_per_item', 'per_s/1_worker', 'note'),
  )
}
CAPTIONS = {
  'throughput': (
    'Verdicts per second on items not seen before; workers 0: in this process; start_s: until the '
    'first verdict, with the start of workers and their own checks; per_s/1_worker: against one '
    'worker. `math`: solutions of 600 characters, the answer in a box; `math in prose`: without a '
    'box; `code`: one short function, three asserts, a new sandbox each; `puzzles`: the simplest '
    'scorer of reasoning-gym, hence nearly all the cost of the pool.'
  )
}
WORDS = 'so we know that the sum of both sides is even and thus the first of them holds '

Judge = Callable[[list[Any]], list[Verdict]]


class Candidate(NamedTuple):
  """A verifier and what it judges.

  Attributes:
    open: returns a context manager with the judge, given the number of workers.
    draw: returns an item that is right, or one that is not, of a generator.
    num_items: of each turn.
    workers: numbers to try; 0: in this process.
  """

  open: Callable[[int], contextlib.AbstractContextManager[Judge]]
  draw: Callable[[np.random.Generator, bool], Any]
  num_items: int
  workers: tuple[int, ...] = (1, 2)


def in_this_process(verify: Callable[..., Verdict]):
  """Returns `open` of a pure function."""
  return lambda num_workers: contextlib.nullcontext(lambda items: [verify(*item) for item in items])


@contextlib.contextmanager
def math_verifier(num_workers: int) -> Iterator[Judge]:
  with contextlib.closing(MathVerifier(num_workers, DEADLINE_S)) as verifier:
    yield verifier.verify_batch


@contextlib.contextmanager
def code_verifier(num_workers: int) -> Iterator[Judge]:
  with contextlib.closing(CodeVerifier(num_workers, DEADLINE_S, memory_mib=256)) as verifier:
    yield verifier.verify_batch


@contextlib.contextmanager
def puzzle_verifier(num_workers: int) -> Iterator[Judge]:
  with contextlib.closing(PuzzleVerifier(num_workers, DEADLINE_S)) as verifier:
    yield lambda items: verifier.verify_batch(*map(list, zip(*items, strict=True)))


def draw_one(draw: Callable[[np.random.Generator], Any], rng: np.random.Generator) -> Any:
  return next(problem for problem in iter(lambda: draw(rng), 0) if problem is not None)


def maze_item(rng: np.random.Generator, is_right: bool):
  maze = draw_one(lambda rng: draw_maze(rng, 8, 0.3, 4, 20), rng)
  way = shortest_way(maze, rng)
  return maze, way if is_right else way[:-1]


def countdown_item(rng: np.random.Generator, is_right: bool):
  problem = draw_one(lambda rng: draw_countdown(rng, 4, 99, 999), rng)
  expression = infix(problem.solution)
  return problem.numbers, problem.target, expression if is_right else f'{expression}+1'


def arc_item(rng: np.random.Generator, is_right: bool):
  cells = rng.integers(0, 10, rng.integers(3, 31, 2))
  output = tuple(map(tuple, cells.tolist()))
  if not is_right:
    cells[0, 0] = (cells[0, 0] + 1) % 10
  return output, f'Output:\n{grid_text(cells.tolist())}'


def math_answer(rng: np.random.Generator, is_right: bool) -> tuple[str, str]:
  """Returns a right answer and an answer, in another form if it is right."""
  a, b, c = (int(x) for x in rng.integers(2, 9999, 3))
  off = 0 if is_right else 1
  return [
    (f'{a}', f'{a + off}.0'),
    (f'\\frac{{{a}}}{{{b}}}', f'\\dfrac{{{a * c + off}}}{{{b * c}}}'),
    (f'{a / 8}', f'\\frac{{{a + off}}}{{8}}'),
    (f'{a}\\sqrt{{2}}', f'\\sqrt{{{2 * a * a + off}}}'),
    (f'x^2+{a + b}x+{a * b}', f'(x+{a})(x+{b + off})'),
    (f'[{a}, {a + b})', f'\\left[{a}, {a + b + off}\\right)'),
    (f'\\{{{a}, {a + b}\\}}', f'\\{{{a + b}, {a + off * (b + c)}\\}}'),
    (f'({a}, {-b}, {c})', f'({a}, -{b}, {c + off})'),
    (f'\\frac{{{a}\\pi}}{{{b}}}', f'{a + off}\\pi/{b}'),
    (f'{a}', f'x = {a + off}'),
  ][rng.integers(10)]


def math_item(rng: np.random.Generator, is_right: bool):
  gold, answer = math_answer(rng, is_right)
  return gold, f'{(WORDS * 8)[:580]} $\\boxed{{{answer}}}$.'


def prose_item(rng: np.random.Generator, is_right: bool):
  gold, answer = math_answer(rng, is_right)
  return gold, f'{(WORDS * 8)[:580]} the final answer is ${answer}$.'


def code_item(rng: np.random.Generator, is_right: bool):
  a, b = (int(x) for x in rng.integers(2, 9999, 2))
  tests = tuple(f'assert f({x}) == {[a * i + b for i in range(x)]}' for x in (0, 1, 5))
  body = f'return [{a} * i + {b if is_right else b + 1} for i in range(x)]'
  return CodeItem(f'```python\ndef f(x):\n  {body}\n```', UnitTests(tests, ('f',)))


def puzzle_item(rng: np.random.Generator, is_right: bool):
  a, b = (int(x) for x in rng.integers(2, 2**40, 2))
  entry = json.dumps({'answer': str(a * b)})
  answer = a * b if is_right else a * b + 1
  return Puzzle('gcd', '', str(a * b), entry), f'<answer>{answer}</answer>'


CANDIDATES = {
  'maze': Candidate(in_this_process(verify_maze), maze_item, 2000, (0,)),
  'countdown': Candidate(in_this_process(verify_countdown), countdown_item, 2000, (0,)),
  'arc': Candidate(in_this_process(verify_arc), arc_item, 500, (0,)),
  'math': Candidate(math_verifier, math_item, 400),
  'math in prose': Candidate(math_verifier, prose_item, 400),
  'code': Candidate(code_verifier, code_item, 40),
  'puzzles': Candidate(puzzle_verifier, puzzle_item, 900),  # With no worker replaced in a turn.
}


def draw_items(candidate: Candidate, num_items: int, seed: int) -> tuple[list[Any], list[bool]]:
  """Returns items and whether each is right: every other one."""
  rng = np.random.default_rng([SEED, seed])
  labels = [i % 2 == 0 for i in range(num_items)]
  return [candidate.draw(rng, label) for label in labels], labels


def check(name: str, judge: Judge, items: list[Any], labels: list[bool]) -> None:
  """Raises AssertionError if a verdict is not what was drawn."""
  for item, label, verdict in zip(items, labels, judge(items), strict=True):
    if verdict.kind != ('right' if label else 'wrong'):
      raise AssertionError(f'{name}: {verdict} on {item}, drawn to be {label}.')


def rows_of(name: str, candidate: Candidate, num_items: int, repeats: int) -> list[Row]:
  rows, seconds = {}, {}
  with contextlib.ExitStack() as stack:
    judges = {}
    for workers in candidate.workers:
      start = time.perf_counter()
      try:
        judges[workers] = stack.enter_context(candidate.open(workers))
        check(name, judges[workers], *draw_items(candidate, 1, seed=0))
      except (ImportError, RuntimeError) as error:
        # Of a traceback, the exception.
        return [{'verifier': name, 'note': str(error).strip().rpartition('\n')[2][:200]}]
      rows[workers] = {'verifier': name, 'workers': workers, 'items': num_items}
      rows[workers]['start_s'] = time.perf_counter() - start
      check(name, judges[workers], *draw_items(candidate, num_items, seed=1))  # Warms caches.
    turns = [(repeat, workers) for repeat in range(repeats) for workers in judges]
    for seed, (_, workers) in enumerate(turns, start=2):
      items, labels = draw_items(candidate, num_items, seed)
      start = time.perf_counter()
      check(name, judges[workers], items, labels)
      seconds.setdefault(workers, []).append(time.perf_counter() - start)
  for workers, row in rows.items():
    row['per_s'] = num_items / min(seconds[workers])
    row['ms_per_item'] = 1000 / row['per_s']
    if 1 in rows:
      row['per_s/1_worker'] = row['per_s'] / rows[1]['per_s']
  return list(rows.values())


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='few items: shows that it runs')
  parser.add_argument('--only', nargs='+', default=list(CANDIDATES), choices=list(CANDIDATES))
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  if options.quick:
    options.repeats = 1
  header = common.describe(
    'benchmarks.verifiers', arguments, f'seed: {SEED}; least of {options.repeats} turns of each'
  )
  print('\n'.join(header), f'\n{CAPTIONS["throughput"]}', sep='\n')
  start, rows = time.perf_counter(), []
  for name in options.only:
    candidate = CANDIDATES[name]
    rows += rows_of(name, candidate, 4 if options.quick else candidate.num_items, options.repeats)
    print(f'{name}: {time.perf_counter() - start:.0f} s', file=sys.stderr)
  common.print_table(TABLES['throughput'], rows)
  path = options.outdir / 'verifiers_cpu'
  common.write('Verifiers on cpu', {'throughput': rows}, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md after {time.perf_counter() - start:.0f} s.')


if __name__ == '__main__':
  main()

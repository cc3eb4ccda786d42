"""Counts the work of a compiled program: products, their bytes, and what devices send each other.

XLA's own cost analysis counts the body of a loop once. Here the program's text is read, and the
body counts as often as it runs. Of the branches of a choice the costliest counts.
"""

import collections
import functools
import math
import re
from typing import NamedTuple

COLLECTIVES = ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute', 'reduce-scatter')
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2, 's64': 8, 'u64': 8}
_BYTES |= {'f64': 8}
_START = re.compile(r'(ENTRY )?%([\w.\-]+) \(.*\{$')
_LINE = re.compile(r'\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)')
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')
_CALLED = re.compile(r'(?:calls|to_apply|body|branch_computations)=(\{.*?\}|%[\w.\-]+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Work(NamedTuple):
  """What one device does.

  Attributes:
    products: `(FLOPs, bytes)` of a product of matrices -> how often it is computed.
    collectives: kind -> `[how often, bytes]`; bytes are those of the results, on each device.
  """

  products: dict[tuple[float, float], float]
  collectives: dict[str, tuple[float, float]]

  @property
  def flops(self) -> float:
    """Floating-point operations of all products."""
    return float(sum(flops * times for (flops, _), times in self.products.items()))

  @property
  def bytes(self) -> float:
    """Bytes that all products read and write."""
    return float(sum(size * times for (_, size), times in self.products.items()))

  @property
  def sent(self) -> float:
    """Bytes over each device's link: an all-reduce is a reduce-scatter and an all-gather."""
    passes = lambda kind: 2 if kind == 'all-reduce' else 1
    return float(sum(passes(kind) * size for kind, (_, size) in self.collectives.items()))

  def seconds(self, flops: float, bandwidth: float, link: float) -> float:
    """Returns the least time: products at the peak or at the memory's speed, then the links."""
    return self.sent / link + sum(
      times * max(work / flops, size / bandwidth) for (work, size), times in self.products.items()
    )


def work_of(text: str, unknown_trips: int, operand_bytes: int) -> Work:
  """Returns the work of an optimized program.

  Args:
    text: of the compiled module.
    unknown_trips: how often a loop runs whose end the compiler does not know: decoding.
    operand_bytes: of a number that goes into a product. The CPU's compiler widens bfloat16, so
      the text does not say.
  """
  computations, entry = _computations(text)

  @functools.cache
  def of(name):
    """Returns the work of a computation each time that it runs."""
    products, sent, shapes = collections.Counter(), {}, {}

    def add(work, times=1):
      for key, number in work.products.items():
        products[key] += times * number
      for kind, (number, size) in work.collectives.items():
        before = sent.get(kind, (0, 0))
        sent[kind] = before[0] + times * number, before[1] + times * size

    for result, kind, op, rest in computations.get(name, ()):
      shapes[result] = kind
      if op == 'dot':
        products[_product(kind, rest, shapes, operand_bytes)] += 1
      if op in COLLECTIVES:
        add(Work({}, {op: (1, _size(kind))}))
        continue  # What it calls adds two numbers.
      called = ' '.join(_CALLED.findall(rest))
      works = [of(each) for each in re.findall(r'%([\w.\-]+)', called)]
      if op == 'conditional':
        works = [max(works, key=lambda work: (work.flops, work.sent))]
      known = _TRIPS.search(rest)
      for work in works:
        add(work, 1 if op != 'while' else int(known[1]) if known else unknown_trips)
    return Work(dict(products), sent)

  return of(entry)


def _computations(text):
  """Returns the instructions of each computation, `(name, type, op, rest)`, and the entry."""
  computations, entry, lines = {}, None, []
  for line in text.splitlines():
    start = _START.match(line)
    if start:
      lines = computations[start[2]] = []
      entry = start[2] if start[1] else entry
      continue
    found = _LINE.match(line)
    if found:
      lines.append(found.groups())
  return computations, entry


def _arrays(kind):
  """Yields the type and the shape of each array in a type."""
  for name, shape in _ARRAY.findall(kind):
    yield name, [int(n) for n in shape.split(',') if n]


def _size(kind):
  """Returns the bytes of a type."""
  return sum(_BYTES.get(name, 4) * math.prod(shape) for name, shape in _arrays(kind))


def _product(kind, rest, shapes, operand_bytes):
  """Returns the FLOPs and the bytes of a product."""
  left, right = (next(_arrays(shapes[x]))[1] for x in re.findall(r'%([\w.\-]+)', rest)[:2])
  axes = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', rest)[1]
  contracted = math.prod(left[int(axis)] for axis in axes.split(',') if axis)
  (name, shape) = next(_arrays(kind))
  flops = 2.0 * math.prod(shape) * contracted
  return flops, operand_bytes * (math.prod(left) + math.prod(right)) + _size(kind)

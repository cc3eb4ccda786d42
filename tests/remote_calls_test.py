"""What crosses between the process that judges and that of the completion."""

import collections
import enum
import json
import math
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkpo_jax.workers import remote_calls
from pkpo_jax.workers.remote_calls import decode, encode

Point = collections.namedtuple('Point', 'x y')


class Color(enum.IntEnum):
  RED = 1


@pytest.mark.parametrize(
  'value',
  [None, True, 0, -(10**400), 1.5, -0.0, math.inf, 'a\ud800\x00', b'\xff', 1 + 2j, [], (), {}]
  + [[1, (2, {3: {4.5, None}})], frozenset({(1,)}), {(1, 2): [b'']}, range(1, 9, 2)],
)
def test_plain_data_crosses(value):
  crossed = decode(json.loads(json.dumps(encode(value))))
  assert crossed == value
  assert type(crossed) is type(value)
  assert math.copysign(1, crossed) == math.copysign(1, value) if value == 0 else True


def test_what_derives_from_plain_data_crosses_as_that():
  crossing = lambda value: decode(json.loads(json.dumps(encode(value))))
  for value, kind in [
    (collections.Counter('aa'), dict),
    (collections.OrderedDict(a=1), dict),
    (collections.defaultdict(list, a=[1]), dict),
    (Point(1, 2), tuple),
    (Color.RED, int),
    (bytearray(b'a'), bytes),
  ]:
    assert crossing(value) == value
    assert type(crossing(value)) is kind
  assert math.isnan(crossing(math.nan))
  assert list(crossing(x * x for x in range(3))) == [0, 1, 4]
  assert sorted(crossing({'a': 2, 'b': 1}.values())) == [1, 2]


@pytest.mark.parametrize('value', [object(), len, Color, [object()], {1: (lambda: 1)}, Ellipsis])
def test_nothing_else_crosses(value):
  with pytest.raises(remote_calls.CannotCrossError, match='cannot cross'):
    encode(value)


PLAIN = (
  type(None),
  bool,
  int,
  float,
  complex,
  str,
  bytes,
  list,
  tuple,
  set,
  frozenset,
  dict,
  range,
)
TAGS = ['tuple', 'set', 'frozenset', 'dict', 'complex', 'bytes', 'range', 'iterator', 'object']


def is_plain(value):
  if isinstance(value, dict):
    value = [*value, *value.values()]
  elif type(value) is type(iter([])):
    value = [*value]
  elif type(value) not in PLAIN:
    return False
  parts = value if isinstance(value, (list, tuple, set, frozenset)) else []
  return all(map(is_plain, parts))


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda x: (
    st.lists(x, max_size=3)
    | st.dictionaries(st.sampled_from(TAGS) | st.text(), x, max_size=2)
    | st.tuples(st.sampled_from(TAGS), st.lists(x, max_size=3)).map(lambda pair: dict([pair]))
    | st.lists(st.tuples(x, x).map(list), max_size=3).map(lambda items: {'dict': items})
  ),
)
REPLIES = (
  JSON.map(lambda x: {'value': x})
  | st.fixed_dictionaries(
    {'error': st.fixed_dictionaries({'names': JSON | st.lists(st.text()), 'text': JSON})}
  )
  | JSON
)
FRAME = struct.Struct('>I')


@settings(deadline=None, max_examples=300)
@given(
  st.builds(lambda x: json.dumps(x).encode(), REPLIES).map(lambda x: FRAME.pack(len(x)) + x)
  | st.binary()
  | st.binary().map(lambda x: FRAME.pack(len(x)) + x)
)
def test_any_reply_is_plain_data_an_exception_or_the_end(data):
  """Whatever comes through the pipe, where the other process is gone then."""
  (requests_in, requests_out), (replies_in, replies_out) = os.pipe(), os.pipe()
  try:
    os.write(replies_out, FRAME.pack(2) + b'{}' + data)
    os.close(replies_out)
    program = remote_calls.RemoteProgram(requests_out, replies_in)
    try:
      assert is_plain(program.call('f', (1,), {}))
      assert program.ended is None
    except AssertionError:
      raise
    except remote_calls.Ended:
      assert program.ended == 'crashed'
      with pytest.raises(remote_calls.Ended, match='crashed'):
        program.call('f', (1,), {})
    except BaseException as error:
      assert type(error).__module__ == 'builtins' and program.ended is None
  finally:
    for fd in (requests_in, requests_out, replies_in):
      os.close(fd)

"""Schedules give the right k, as Python-called and as traced functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pkpo_jax import SCHEDULES, schedules
from pkpo_jax.errors import FieldError


@pytest.mark.parametrize(
  'schedule, expected',
  [
    (schedules.constant(4), [4] * 12),
    (schedules.step(8, final_k=1, at=5), [8] * 5 + [1] * 7),
    (schedules.linear(8, final_k=1, begin=2, end=9), [8, 8, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1]),
    (schedules.linear(1, final_k=4, begin=0, end=3), [1, 2, 3] + [4] * 9),
    (schedules.piecewise(8, boundaries=(2, 4), values=(4, 2)), [8, 8, 4, 4] + [2] * 8),
    (schedules.pass1_passk_pass1(8, begin=3, end=6), [1] * 3 + [8] * 3 + [1] * 6),
    (schedules.piecewise(8, boundaries=(), values=()), [8] * 12),
    (schedules.step(8, at=0), [1] * 12),
  ],
)
def test_schedule(schedule, expected):
  assert [int(schedule(at)) for at in range(12)] == expected
  traced = jax.jit(jax.vmap(schedule))(jnp.arange(12))
  assert traced.dtype == jnp.int32
  np.testing.assert_array_equal(traced, expected)


@pytest.mark.parametrize(
  'name, at, expected',
  [
    ('constant', [0, 10_000], [8, 8]),
    ('step', [499, 500], [8, 1]),
    ('linear', [0, 250, 500], [8, 4, 1]),
    ('piecewise', [249, 250, 499, 500], [8, 4, 4, 1]),
    ('pass1_passk_pass1', [99, 100, 699, 700], [1, 8, 8, 1]),
  ],
)
def test_every_schedule_has_defaults(name, at, expected):
  schedule = SCHEDULES[name](8)
  assert [int(schedule(step)) for step in at] == expected


def test_the_table_of_defaults_is_whole():
  assert set(SCHEDULES) == {'constant', 'step', 'linear', 'piecewise', 'pass1_passk_pass1'}


@pytest.mark.parametrize('name', sorted(SCHEDULES))
def test_k_below_1_is_refused(name):
  with pytest.raises(FieldError, match='k: expected at least 1, got 0') as raised:
    SCHEDULES[name](0)
  assert raised.value.field == 'k'


@pytest.mark.parametrize(
  'name, fields, message',
  [
    ('step', {'final_k': 0}, 'final_k: expected at least 1, got 0'),
    ('linear', {'final_k': 0}, 'final_k: expected at least 1, got 0'),
    ('step', {'at': -1}, 'at: expected at least 0, got -1'),
    ('linear', {'begin': 5, 'end': 5}, 'end: expected 0 <= begin < end, with begin = 5, got 5'),
    ('pass1_passk_pass1', {'begin': -1}, 'end: expected 0 <= begin < end, with begin = -1'),
    ('piecewise', {'values': (4,)}, r'values: expected one value a boundary \(2\), got \(4,\)'),
    ('piecewise', {'values': (4, 0)}, 'values: expected values of k, each at least 1'),
    ('piecewise', {'boundaries': (9, 3)}, 'boundaries: expected ascending steps >= 0'),
  ],
)
def test_fields_out_of_range_are_named(name, fields, message):
  with pytest.raises(FieldError, match=f'^{message}'):
    SCHEDULES[name](8, **fields)


def test_a_name_that_is_none_lists_the_names():
  with pytest.raises(KeyError, match='expected one of .*constant.*piecewise.* got .typo.'):
    SCHEDULES['typo']

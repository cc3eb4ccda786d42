"""Schedules give the right k, as Python-called and as traced functions."""

from fractions import Fraction

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
    ('by_pass_rate', [0, 10_000], [8, 8]),
  ],
)
def test_every_schedule_has_defaults(name, at, expected):
  schedule = SCHEDULES[name](8)
  assert [int(schedule(step)) for step in at] == expected


def test_the_table_of_defaults_is_whole():
  of_step = {'constant', 'step', 'linear', 'piecewise', 'pass1_passk_pass1'}
  assert set(SCHEDULES) == of_step | {'by_pass_rate'}


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
    ('by_pass_rate', {'target': 0.0}, 'target: expected above 0 and below 1, got 0.0'),
    ('by_pass_rate', {'target': 1.0}, 'target: expected above 0 and below 1, got 1.0'),
    ('by_pass_rate', {'memory': 0.5}, 'memory: expected at least 1, got 0.5'),
  ],
)
def test_fields_out_of_range_are_named(name, fields, message):
  with pytest.raises(FieldError, match=f'^{message}'):
    SCHEDULES[name](8, **fields)


def test_a_name_that_is_none_lists_the_names():
  with pytest.raises(KeyError, match='expected one of .*constant.*piecewise.* got .typo.'):
    SCHEDULES['typo']


@pytest.mark.parametrize('target', ['0.1', '0.5', '0.75', '0.9', '0.99'])
def test_k_is_the_smallest_whose_pass_at_k_reaches_the_target(target):
  """Exactly so, also where pass@k equals the target, as 0.75 at p = 1/2 and k = 2."""
  rates = sorted({Fraction(c, n) for n in range(1, 25) for c in range(n + 1)})
  largest = 30
  expected = [
    next((k for k in range(1, largest) if 1 - (1 - p) ** k >= Fraction(target)), largest)
    for p in rates
  ]
  actual = schedules.k_for_pass_rate(np.array(rates, float), largest, float(target))
  assert actual.dtype == jnp.int32
  np.testing.assert_array_equal(actual, expected)
  assert len(set(expected)) > 3 and expected[-1] == 1 and expected[0] == largest


def test_the_smallest_rates_that_float32_knows_get_the_largest_k():
  rates = np.array([0, 1e-45, 1e-38, 1e-9], np.float32)
  np.testing.assert_array_equal(schedules.k_for_pass_rate(rates, 2**20), 2**20)
  assert int(schedules.k_for_pass_rate(1e-3, 2**20)) == 693, 'log(0.5) / log(0.999) = 692.8'


def test_by_pass_rate_gives_each_prompt_its_k_in_one_program():
  schedule, traces = schedules.by_pass_rate(8, target=0.9), []

  @jax.jit
  def traced(step, pass_rates):
    traces.append(step)
    return schedule(step, pass_rates)

  for pass_rates, expected in (
    ([[np.nan, 0, 1], [0.9, 0.89, 0.5]], [[8, 8, 1], [1, 2, 4]]),
    ([[0.1, 0.3, 0.2], [np.nan] * 3], [[8, 7, 8], [8, 8, 8]]),
  ):
    pass_rates = np.array(pass_rates, np.float32)
    for found in (schedule(0, pass_rates), traced(0, pass_rates)):
      assert found.dtype == jnp.int32
      np.testing.assert_array_equal(found, expected)
  assert len(traces) == 1


def test_without_a_target_pass_rates_do_not_count():
  assert int(schedules.step(8, final_k=2, at=5)(5, np.float32([0.1, 1.0]))) == 2


def test_all_ks_that_may_come():
  assert set(schedules.linear(6, final_k=4, begin=1, end=3).ks(10).tolist()) == {4, 5, 6}
  assert schedules.step(8, final_k=1, at=5).ks(5).tolist() == [8] * 5
  assert schedules.by_pass_rate(4).ks(10).tolist() == [1, 2, 3, 4]

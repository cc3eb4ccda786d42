"""Schedules give the right k, as Python-called and as traced functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pkpo_jax import schedules


@pytest.mark.parametrize(
  'schedule, expected',
  [
    (schedules.constant(4), [4] * 12),
    (schedules.step(8, final_k=1, at=5), [8] * 5 + [1] * 7),
    (schedules.linear(8, final_k=1, begin=2, end=9), [8, 8, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1]),
    (schedules.linear(1, final_k=4, begin=0, end=3), [1, 2, 3] + [4] * 9),
    (schedules.piecewise(8, boundaries=(2, 4), values=(4, 2)), [8, 8, 4, 4] + [2] * 8),
    (schedules.pass1_passk_pass1(8, begin=3, end=6), [1] * 3 + [8] * 3 + [1] * 6),
  ],
)
def test_schedule(schedule, expected):
  assert [int(schedule(at)) for at in range(12)] == expected
  traced = jax.jit(jax.vmap(schedule))(jnp.arange(12))
  assert traced.dtype == jnp.int32
  np.testing.assert_array_equal(traced, expected)

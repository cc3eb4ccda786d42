"""Intervals for a mean over problems, and for the difference of two runs."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.interval_coverage import methods, sweep
from pkpo_jax import (
  bootstrap_interval,
  few_problems,
  mean_interval,
  paired_bootstrap,
  paired_interval,
  pass_at_k,
)
from pkpo_jax.errors import FieldError

VALUES = np.array([0.125, 0.5, 0.75, 1.0, 0.3125], np.float32)
KEY = jax.random.key(0)
CHOSEN = 'one more at the far end (chosen)'


def clopper_pearson(num_right, num_problems, level):
  """Returns the exact ends for a share, by quantiles of Beta variables."""
  tail, wrong = (1 - level) / 2, num_problems - num_right
  low = stats.beta(num_right, wrong + 1).ppf(tail) if num_right else 0
  high = stats.beta(num_right + 1, wrong).ppf(1 - tail) if wrong else 1
  return low, high


class TestMeanInterval:
  @pytest.mark.parametrize('num_right', [0, 1, 7, 19, 20])
  @pytest.mark.parametrize('level', [0.8, 0.95])
  def test_of_right_and_wrong_is_that_of_clopper_and_pearson(self, num_right, level):
    interval = mean_interval(np.float32(np.arange(20) < num_right), KEY, level=level)
    expected = clopper_pearson(num_right, 20, level)
    # 10,000 draws hold a quantile to about a 30th of its distance from the mean.
    np.testing.assert_allclose((interval.low, interval.high), expected, atol=0.01)

  def test_all_solved_follows_the_rule_of_three(self):
    """The low end of P problems all solved is 0.025^(1/P), about 1 - 3.7/P."""
    for num_problems in (1, 10, 100):
      interval = mean_interval(np.ones(num_problems, np.float32), KEY)
      np.testing.assert_allclose(interval.low, 0.025 ** (1 / num_problems), rtol=0.01, atol=0.005)
      assert interval.mean == interval.high == 1

  def test_ends_solve_the_test_that_they_invert(self):
    """A second route: low is the m at which P(sum_i (x_i - m) E_i > 0) = tail, E_i exponential.

    With one more at x = 0, and likewise for high at x = 1. For distinct terms a_i = x_i - m the
    chance is the sum over positive a_i of prod_{j != i} a_i / (a_i - a_j).
    """
    interval = mean_interval(VALUES, KEY, level=0.9, num_resamples=100_000)
    for end, extra in ((interval.low, 0.0), (interval.high, 1 - 1e-4)):
      terms = np.append(VALUES[VALUES < 1], [1 - 5e-5, extra]).astype(np.float64) - float(end)
      ratios = [np.prod([a / (a - b) for b in terms if b != a]) for a in terms if a > 0]
      above = np.sum(ratios)
      below_or_above = 1 - above if extra == 0 else above
      np.testing.assert_allclose(below_or_above, 0.05, atol=0.004)

  def test_turned_around(self):
    interval, turned = mean_interval(VALUES, KEY), mean_interval(1 - VALUES, KEY)
    np.testing.assert_allclose(turned.low, 1 - interval.high, atol=1e-6)
    np.testing.assert_allclose(turned.high, 1 - interval.low, atol=1e-6)

  def test_wider_for_a_higher_level(self):
    intervals = [mean_interval(VALUES, KEY, level=level) for level in (0.5, 0.8, 0.95, 0.99)]
    assert np.all(np.diff([x.low for x in intervals]) < 0)
    assert np.all(np.diff([x.high for x in intervals]) > 0)

  def test_in_other_units(self):
    interval = mean_interval(VALUES, KEY)
    scaled = mean_interval(10 * VALUES - 4, KEY, bounds=(-4.0, 6.0))
    for ours, theirs in zip(scaled, interval, strict=True):
      np.testing.assert_allclose(ours, 10 * theirs - 4, rtol=1e-4, atol=1e-5)

  def test_wider_bounds_give_a_wider_interval(self):
    interval, wider = mean_interval(VALUES, KEY), mean_interval(VALUES, KEY, bounds=(-1.0, 3.0))
    assert wider.low < interval.low and interval.high < wider.high

  def test_tends_to_the_bootstrap_interval(self):
    """What one more problem adds to the width falls with the number of problems."""
    rng = np.random.default_rng(0)

    def excess(num_problems):
      values = rng.beta(3, 7, num_problems).astype(np.float32)
      ours, theirs = (
        x(values, KEY, num_resamples=1000) for x in (mean_interval, bootstrap_interval)
      )
      return (ours.high - ours.low) / (theirs.high - theirs.low) - 1

    assert excess(10) > 0.3
    assert -0.1 < excess(500) < 0.2

  @pytest.mark.parametrize('population', ['ARC-like', '98 % solved', 'Beta(1/2, 1/2)'])
  def test_covers_the_truth(self, population):
    """400 data sets of 8 problems, 95 % intervals of pass@1.

    With a coverage of 95 % at most 35 of 400 miss it in 999 of 1000 seeds (binomial); the
    percentile bootstrap misses more than that.
    """
    rng, num_problems, n = np.random.default_rng(0), 8, 16
    parts = sweep.POPULATIONS[population]
    counts = rng.binomial(n, sweep.draw_pass_rates(parts, (num_problems, 400), rng))
    values, truth = pass_at_k(counts, n, 1), sweep.true_pass_at_k(parts, 1)
    most = stats.binom(400, 0.05).ppf(0.999)
    misses = lambda x: np.sum((x.low > truth) | (truth > x.high))
    assert misses(mean_interval(values, KEY, num_resamples=500)) <= most
    assert misses(bootstrap_interval(values, KEY, num_resamples=500)) > most

  def test_trailing_axes_share_the_draws(self):
    both = mean_interval(np.stack([VALUES, VALUES / 2], axis=-1), KEY)
    for column, values in enumerate((VALUES, VALUES / 2)):
      alone = mean_interval(values, KEY)
      for ours, theirs in zip(both, alone, strict=True):
        np.testing.assert_allclose(ours[column], theirs, rtol=1e-5)

  def test_leading_axes_by_vmap(self):
    batch, keys = np.stack([VALUES, 1 - VALUES]), jax.random.split(KEY, 2)
    interval_of = lambda values, key: mean_interval(values, key, num_resamples=200)
    vmapped = jax.jit(jax.vmap(interval_of))(batch, keys)
    for i, alone in enumerate(map(interval_of, batch, keys)):
      for ours, theirs in zip(vmapped, alone, strict=True):
        np.testing.assert_allclose(ours[i], theirs, rtol=1e-5)

  def test_one_key_gives_one_interval(self):
    first, again, other = (
      mean_interval(VALUES, jax.random.key(seed), num_resamples=20) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other

  def test_rounding_beyond_the_bounds_is_no_error(self):
    interval = mean_interval(np.float32([1 + 1e-6, -1e-6, 0.5]), KEY, num_resamples=20)
    assert 0 <= interval.low < interval.high <= 1

  def test_is_what_the_study_measured(self):
    """The study's own form of it, in NumPy, gives the same ends."""
    values = np.random.default_rng(0).beta(0.5, 2, (1, 12, 1))
    rng = np.random.default_rng(1)
    drawn = [methods.reweighted(values, rng)[CHOSEN] for _ in range(20)]
    interval = mean_interval(values[0, :, 0].astype(np.float32), KEY)
    expected = np.mean(drawn, axis=0)[:, 0, 0]
    np.testing.assert_allclose((interval.low, interval.high), expected, atol=0.01)

  @pytest.mark.usefixtures('no_type_checker')
  def test_malformed_input_is_refused(self):
    for values, bounds, field, text in (
      (VALUES[:0], (0, 1), 'values', r'shape \[P, \.\.\.\] with P >= 1 problems, got \(0,\)'),
      (VALUES[0], (0, 1), 'values', r'P >= 1 problems, got \(\)'),
      (VALUES * 2, (0, 1), 'values', r'numbers in \[0, 1\]'),
      (VALUES * np.nan, (0, 1), 'values', 'nan'),
      (VALUES, (1, 0), 'bounds', 'two increasing numbers'),
    ):
      with pytest.raises(FieldError, match=text) as info:
        mean_interval(values, KEY, bounds=bounds)
      assert info.value.field == field
    for options in ({'level': 0.0}, {'level': 95}, {'num_resamples': 0}):
      with pytest.raises(FieldError, match=rf'{next(iter(options))}: expected'):
        mean_interval(VALUES, KEY, **options)


class TestPairedInterval:
  def test_is_that_of_the_differences(self):
    other = VALUES[::-1]
    paired = paired_interval(VALUES, other, KEY)
    expected = mean_interval(VALUES - other, KEY, bounds=(-1.0, 1.0))
    for ours, theirs in zip(paired, expected, strict=True):
      np.testing.assert_array_equal(ours, theirs)

  def test_runs_that_agree_on_all_problems(self):
    """Each end moves one more problem by 1: +-(1 - 0.025^(1/P)), not the point 0."""
    paired = paired_interval(np.ones(24, np.float32), np.ones(24, np.float32), KEY)
    end = 1 - 0.025 ** (1 / 24)
    np.testing.assert_allclose(paired, (0, -end, end), atol=0.01)

  def test_changed_sides(self):
    paired = paired_interval(VALUES, VALUES[::-1] ** 2, KEY)
    turned = paired_interval(VALUES[::-1] ** 2, VALUES, KEY)
    np.testing.assert_allclose(turned, -np.array([paired.mean, paired.high, paired.low]), atol=1e-6)

  def test_pairing_removes_what_both_runs_share(self):
    difficulty = np.random.default_rng(0).uniform(0.1, 0.8, 400)
    values, other = (x.astype(np.float32) for x in (difficulty + 0.1, difficulty))
    paired, alone = paired_interval(values, other, KEY), mean_interval(values, KEY)
    assert 0 < paired.low < 0.1 < paired.high
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)

  def test_covers_the_truth(self):
    """Runs that differ on one problem in twenty, 15 problems; see the test of the mean."""
    rng, size, truth = np.random.default_rng(0), (15, 400), 0.05
    other = rng.random(size) < 0.5
    # One problem in ten is solved by the one run whatever the other does on it.
    values = other | (rng.random(size) < 2 * truth)
    values, other = (x.astype(np.float32) for x in (values, other))
    most = stats.binom(400, 0.05).ppf(0.999)
    misses = lambda x: np.sum((x.low > truth) | (truth > x.high))
    assert misses(paired_interval(values, other, KEY, num_resamples=500)) <= most
    assert misses(paired_bootstrap(values, other, KEY, num_resamples=500)) > most

  @pytest.mark.usefixtures('no_type_checker')
  def test_other_shape(self):
    with pytest.raises(FieldError, match=r'other_values: .*\(5,\), got \(4,\)'):
      paired_interval(VALUES, VALUES[1:], KEY)


class TestFewProblems:
  @pytest.mark.parametrize(
    'values, text',
    [
      ([0.0] * 22 + [0.5, 1.0], 'rests on 2 of 24 problems: the other 22 have the value 0'),
      ([1.0] * 20, 'rests on 0 of 20 problems: the other 20 have the value 1'),
      ([0.0] * 9 + [1.0] * 41, 'rests on 9 of 50 problems: the other 41 have the value 1'),
      ([0.1, 0.2, 0.3], 'rests on 3 of 3 problems'),
    ],
  )
  def test_warns(self, values, text):
    assert few_problems(np.float32(values)).endswith(text)

  @pytest.mark.parametrize('values', [[0.0] * 10 + [1.0] * 10, np.linspace(0, 1, 10)])
  def test_enough(self, values):
    assert few_problems(np.float32(values)) is None

  def test_the_number_is_the_caller_s(self):
    values = np.float32([0.0] * 5 + [1.0] * 5)
    assert few_problems(values, at_least=5) is None
    assert few_problems(values, at_least=6)


class TestBootstrap:
  def test_interval_ends_are_quantiles_of_all_redraws_of_problems(self):
    """Against all P^P equally likely redraws of P = 5 problems."""
    redraws = np.array(list(itertools.product(VALUES, repeat=5))).mean(axis=1)
    for level in (0.5, 0.95):
      interval = bootstrap_interval(VALUES, jax.random.key(0), level=level)
      np.testing.assert_allclose(interval.mean, VALUES.mean(), rtol=1e-6)
      for end, mass in ((interval.low, (1 - level) / 2), (interval.high, (1 + level) / 2)):
        below, up_to = np.mean(redraws < end - 1e-5), np.mean(redraws < end + 1e-5)
        assert below - 0.015 < mass < up_to + 0.015

  def test_trailing_axes_share_the_draws(self):
    values = np.stack([VALUES, 2 * VALUES], axis=-1)
    interval = bootstrap_interval(values, jax.random.key(0), num_resamples=500)
    alone = bootstrap_interval(VALUES, jax.random.key(0), num_resamples=500)
    for both, one in zip(interval, alone, strict=True):
      np.testing.assert_allclose(both, [one, 2 * one], rtol=1e-6)

  def test_interval_covers_the_truth_as_often_as_its_level(self):
    """300 data sets of 60 problems with a pass@2 each; a 90 % interval covers in 83..96 %."""
    rng = np.random.default_rng(0)
    pass_rates = rng.beta(0.5, 1.0, (300, 60))
    estimates = pass_at_k(rng.binomial(8, pass_rates), 8, 2)
    # E[1 - (1-p)^2] for p ~ Beta(1/2, 1): 2/3 for 2 E p, less E p^2 = 1/5.
    truth = 2 / 3 - 1 / 5
    keys = jax.random.split(jax.random.key(1), 300)
    interval = jax.vmap(lambda v, key: bootstrap_interval(v, key, level=0.9, num_resamples=400))
    _, low, high = interval(estimates, keys)
    assert 0.83 < np.mean((low < truth) & (truth < high)) < 0.96

  def test_pairing_removes_what_both_runs_share(self):
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=200)
    gain = 0.05 + 0.02 * rng.normal(size=200)
    one, other = (x.astype(np.float32) for x in (difficulty + gain, difficulty))
    paired = paired_bootstrap(one, other, jax.random.key(0), num_resamples=1000)
    assert 0 < paired.low < paired.mean < paired.high < 0.1
    alone = bootstrap_interval(one, jax.random.key(0), num_resamples=1000)
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)

  def test_equal_runs_differ_by_exactly_zero(self):
    interval = paired_bootstrap(VALUES, VALUES, jax.random.key(0), num_resamples=10)
    assert interval == (0, 0, 0)

  def test_one_key_gives_one_interval(self):
    first, again, other = (
      bootstrap_interval(VALUES, jax.random.key(seed), num_resamples=20) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other

  @pytest.mark.usefixtures('no_type_checker')
  def test_malformed_input_is_refused(self):
    for few in (VALUES[:1], VALUES[0]):
      with pytest.raises(FieldError, match=r'values: expected shape \[P, \.\.\.\] with P >= 2'):
        bootstrap_interval(few, KEY)
    for level in (0.0, 1.0, 95):
      with pytest.raises(FieldError, match='level: expected a number in'):
        bootstrap_interval(VALUES, KEY, level=level)
    with pytest.raises(FieldError, match='num_resamples: expected at least 1, got 0'):
      bootstrap_interval(VALUES, KEY, num_resamples=0)
    with pytest.raises(FieldError, match=r'other_values: .*\(5,\), got \(4,\)'):
      paired_bootstrap(VALUES, VALUES[1:], KEY)

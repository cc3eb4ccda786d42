"""The sampler draws from the distribution whose log-probabilities it reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pkpo_jax import sampling
from tests.sampling_cases import NoMemory


class MarkovChain(NoMemory):
  """A model for the sampler whose next token depends on the last alone; it counts its calls."""

  def __init__(self, table):
    self.table = jnp.asarray(table, jnp.float32)
    self.num_calls = 0

  def __call__(self, params, tokens, positions, memory=None, cache=None, index=None):
    jax.debug.callback(self._count)
    return jax.nn.one_hot(tokens, self.table.shape[0]), ()

  def _count(self):
    self.num_calls += 1

  def logits(self, params, hidden):
    return jnp.einsum('...d,dv->...v', hidden, self.table)


def _draw(model, prompts, num_samples, seed=0, **kwargs):
  """Samples with a stop token that no model here has, unless told otherwise."""
  keys = jax.random.split(jax.random.key(seed), (len(prompts), num_samples))
  kwargs = {'max_new_tokens': 2, 'stop_ids': (99,)} | kwargs
  tokens = jnp.asarray(prompts, jnp.int32)
  mask = jnp.ones(tokens.shape, bool)
  draw = jax.jit(lambda tokens, keys: sampling.sample(model, {}, tokens, mask, keys, **kwargs))
  return jax.device_get(draw(tokens, keys))


def _random_table(vocab_size=5, seed=0, scale=1.5):
  return np.random.default_rng(seed).normal(size=(vocab_size, vocab_size)) * scale


def _softmax(logits):
  probs = np.exp(logits - logits.max(-1, keepdims=True))
  return probs / probs.sum(-1, keepdims=True)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_samples_are_independent_draws_from_the_chain(temperature):
  table = _random_table()
  tokens, mask, log_probs = _draw(
    MarkovChain(table), [[1, 3]], 20_000, temperature=temperature, max_new_tokens=2
  )
  assert mask.all()
  probs = _softmax(table / temperature)
  pairs = probs[3][:, None] * probs  # P(first) P(second | first), independent of the prompt's past.
  counts = np.zeros_like(pairs)
  np.add.at(counts, (tokens[0, :, 0], tokens[0, :, 1]), 1)
  is_likely = pairs * 20_000 > 5
  expected = pairs[is_likely] / pairs[is_likely].sum() * counts[is_likely].sum()
  assert stats.chisquare(counts[is_likely], expected).pvalue > 1e-4
  reported = np.log(probs[3])[tokens[0, :, 0]], np.log(probs)[tokens[0, :, 0], tokens[0, :, 1]]
  np.testing.assert_allclose(log_probs[0], np.stack(reported, -1), atol=1e-5)


def test_greedy_takes_the_largest_logit_with_certainty():
  table = _random_table()
  tokens, _, log_probs = _draw(MarkovChain(table), [[2]], 3, temperature=0.0, max_new_tokens=4)
  expected, token = [], 2
  for _ in range(4):
    token = int(table[token].argmax())
    expected.append(token)
  np.testing.assert_array_equal(tokens[0], [expected] * 3)
  np.testing.assert_array_equal(log_probs, 0)


def test_temperature_is_traced():
  model = MarkovChain(_random_table())
  keys = jax.random.split(jax.random.key(0), (1, 4))
  draw = jax.jit(
    lambda temperature: sampling.sample(
      model,
      {},
      jnp.ones((1, 1), jnp.int32),
      jnp.ones((1, 1), bool),
      keys,
      max_new_tokens=2,
      stop_ids=(1,),
      temperature=temperature,
    )
  )
  for temperature in (0.0, 0.7, 1.0):
    draw(jnp.float32(temperature))
  assert draw._cache_size() == 1


def test_a_completion_ends_with_its_stop_token():
  tokens, mask, log_probs = _draw(
    MarkovChain(_random_table(vocab_size=6)), [[2]], 500, max_new_tokens=8, stop_ids=(1, 4)
  )
  for row, row_mask, row_log_probs in zip(tokens[0], mask[0], log_probs[0], strict=True):
    ends = np.flatnonzero(np.isin(row, (1, 4)))
    length = ends[0] + 1 if len(ends) else 8
    np.testing.assert_array_equal(row_mask, np.arange(8) < length)
    assert not row[length:].any()
    assert not row_log_probs[length:].any()
    assert (row_log_probs[:length] < 0).all()


def test_the_loop_ends_when_all_completions_have():
  """Token 1 always ends: one call for the prompt, and none after the longest completion."""
  table = np.full((4, 4), -1e9)
  table[2, 3], table[3, 1], table[1, 1] = 0, 0, 0  # 2 -> 3 -> 1.
  model = MarkovChain(table)
  _draw(model, [[2], [3]], 2, max_new_tokens=50, stop_ids=(1,))
  jax.effects_barrier()
  assert model.num_calls == 2


@pytest.mark.parametrize(
  'cut', [{'top_k': 1}, {'top_k': 3}, {'top_p': 0.6}, {'top_k': 3, 'top_p': 0.8}, {'top_p': 1.0}]
)
def test_truncated_sampling(cut):
  """Against a loop over tokens from the most likely one down."""
  table = _random_table(vocab_size=8)
  tokens, _, log_probs = _draw(MarkovChain(table), [[5]], 5_000, max_new_tokens=1, **cut)
  probs = _softmax(table[5])
  kept, mass = [], 0.0
  for token in np.argsort(-probs):
    if len(kept) < cut.get('top_k', 8) and mass < cut.get('top_p', 1.0):
      kept.append(token)
      mass += probs[token]
  assert set(np.unique(tokens)) == set(kept)
  np.testing.assert_allclose(log_probs[0, :, 0], np.log(probs / mass)[tokens[0, :, 0]], atol=1e-5)


@settings(deadline=None)
@given(
  weights=st.lists(st.sampled_from([0.0, 1e-6, 0.1, 1.0, 3.0]), min_size=39, max_size=39),
  u=st.one_of(st.sampled_from([0.0, 0.5, 1 - 2.0**-24]), st.floats(0, 1 - 2.0**-24, width=32)),
)
def test_drawing_inverts_the_cumulative_distribution(weights, u):
  weights = np.asarray([1.0, *weights])
  probs = weights / weights.sum()
  with np.errstate(divide='ignore'):
    log_probs = jnp.asarray(np.log(probs), jnp.float32)
  token = int(sampling.draw_tokens(log_probs, jnp.float32(u)))
  assert probs[token] > 0
  cumulative = np.cumsum(probs)
  assert cumulative[token] > u - 1e-5
  assert cumulative[token] - probs[token] < u + 1e-5


@pytest.mark.parametrize('vocab_size', [2, 7, 128, 1000])
def test_every_token_has_its_share_of_the_unit_interval(vocab_size):
  """Over an even grid of u the counts are the probabilities."""
  probs = np.random.default_rng(0).dirichlet(np.ones(vocab_size))
  grid = (np.arange(200_000) + 0.5) / 200_000
  log_probs = jnp.broadcast_to(jnp.asarray(np.log(probs), jnp.float32), (200_000, vocab_size))
  tokens = jax.jit(sampling.draw_tokens)(log_probs, jnp.asarray(grid, jnp.float32))
  counts = np.bincount(tokens, minlength=vocab_size)
  np.testing.assert_allclose(counts / 200_000, probs, atol=2e-5)


def test_tokens_cut_off_are_not_drawn_from_a_large_vocabulary():
  """Twenty tokens of 256128 have a probability; rounded sums rise and fall between them."""
  rng = np.random.default_rng(0)
  draw = jax.jit(sampling.draw_tokens)
  for _ in range(3):
    kept = rng.choice(256_128, 20, replace=False)
    log_probs = np.full(256_128, -np.inf, np.float32)
    log_probs[kept] = np.log(rng.dirichlet(np.full(20, 0.3)) + 1e-12)
    below = np.cumsum(np.exp(log_probs[np.sort(kept)]))  # The boundaries, and next to them.
    u = np.concatenate([below * (1 - 2e-7), below, below * (1 + 2e-7), [0, 1]])
    u = np.minimum(u, 1 - 2.0**-24).astype(np.float32)
    tokens = draw(jnp.broadcast_to(log_probs, (len(u), 256_128)), jnp.asarray(u))
    assert set(np.asarray(tokens).tolist()) <= set(kept.tolist())


def test_the_random_numbers_of_a_row_are_its_own():
  """Two prompts with the same text differ; a row drawn again beside others is the same."""
  model = MarkovChain(_random_table())
  keys = jax.random.split(jax.random.key(0), (3, 8))
  draw = lambda prompts, keys: sampling.sample(
    model,
    {},
    jnp.asarray(prompts),
    jnp.ones((len(prompts), 1), bool),
    keys,
    max_new_tokens=6,
    stop_ids=(1,),
  )[0]
  together = draw([[2], [2], [3]], keys)
  assert (together[0] != together[1]).any()
  assert len(np.unique(together[0], axis=0)) > 4
  np.testing.assert_array_equal(draw([[2]], keys[1:2])[0], together[1])
  np.testing.assert_array_equal(draw([[3], [0]], keys[jnp.array([2, 0])])[0], together[2])


def test_buckets():
  lengths = range(1, 5000)
  buckets = [sampling.bucket(length) for length in lengths]
  for length, size in zip(lengths, buckets, strict=True):
    assert length <= size <= max(16, 1.5 * length)
  assert len(set(buckets)) <= 2 * np.log2(5000 / 16) + 2
  assert buckets == sorted(buckets)
  for size in set(buckets):
    assert sampling.bucket(size) == size

"""The toy tasks' exact objectives and optima, against sampling and second routes; copying."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pkpo_jax.policies import Gaussian, SoftmaxBandit
from pkpo_jax.tasks.copy import Copy
from pkpo_jax.tasks.hidden_answer import HiddenAnswer
from pkpo_jax.tasks.parabola import Parabola
from pkpo_jax.tasks.safe_risky import SafeRisky
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Rollout

KS = (1, 2, 4, 8)


def _hidden_answer():
  return HiddenAnswer(num_contexts=2, num_arms=5, exponent=1.0)


def _safe_risky():
  return SafeRisky(num_contexts=2, win_probs=(1.0, 0.4, 0.1), prizes=(0.4, 0.6, 0.9), noise=0.05)


def _problem(name):
  """Returns a task, a policy for it and parameters that are nothing special."""
  if name == 'parabola':
    task = Parabola()
    policy = Gaussian(task, init_theta=0.8, sd=0.1)
    return task, policy, policy.init(jax.random.key(0))
  task = {'hidden_answer': _hidden_answer, 'safe_risky': _safe_risky}[name]()
  policy = SoftmaxBandit(task)
  return task, policy, {'logits': jax.random.normal(jax.random.key(1), (2, task.num_arms))}


@pytest.mark.parametrize('name', ['hidden_answer', 'safe_risky', 'parabola'])
def test_exact_objective_is_the_mean_of_the_maximum_of_k_samples(name):
  task, policy, params = _problem(name)
  keys = jax.random.split(jax.random.key(2), 3)
  num_problems = 100_000
  prompts = task.prompts(0, num_problems, keys[0])
  rollout = policy.sample(params, prompts, max(KS), keys[1])
  rewards = task.grade(prompts, rollout, keys[2]).rewards
  exact = task.exact_objective(policy, params, KS)
  for k, value in zip(KS, exact, strict=True):
    best = np.asarray(rewards)[:, :k].max(axis=1)
    error = best.std(ddof=1) / np.sqrt(num_problems)
    assert abs(best.mean() - value) < 4.5 * error, (k, best.mean(), value, error)


@pytest.mark.parametrize('name', ['hidden_answer', 'safe_risky', 'parabola'])
def test_prompts_are_the_same_for_the_same_key(name):
  task, _, _ = _problem(name)
  first, again = (task.prompts(3, 16, jax.random.key(5)) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert first.tokens.shape == (16, 1)


def test_hidden_answer_is_shared_by_the_samples_of_a_problem():
  task, policy, params = _problem('hidden_answer')
  prompts = task.prompts(0, 500, jax.random.key(0))
  rollout = policy.sample(params, prompts, 64, jax.random.key(1))
  rewards = np.asarray(task.grade(prompts, rollout, jax.random.key(2)).rewards)
  arms = np.asarray(rollout.completions[..., 0])
  assert set(np.unique(rewards)) == {0.0, 1.0}
  for p in range(500):
    assert len(set(arms[p][rewards[p] == 1])) <= 1


def test_hidden_answers_follow_q():
  task = _hidden_answer()
  prompts = task.prompts(0, 50_000, jax.random.key(0))
  contexts, answers = np.asarray(prompts.tokens[:, 0]), np.asarray(prompts.hidden)
  for context in range(2):
    counts = np.bincount(answers[contexts == context], minlength=5)
    expected = task.answer_probs[context] * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-4
  assert task.answer_probs.argmax(axis=1).tolist() == [0, 1], 'contexts must differ in their mode'


@pytest.mark.parametrize('k', [1, 2, 3, 8, 16])
def test_hidden_answer_optimum_meets_its_conditions(k):
  task = _hidden_answer()
  probs, q = task.best_action_probs(k), task.answer_probs
  np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)
  if k == 1:
    np.testing.assert_array_equal(probs.max(axis=1), 1)
    np.testing.assert_array_equal(probs.argmax(axis=1), q.argmax(axis=1))
    assert task.best_objective(None, 1) == pytest.approx(q.max(axis=1).mean())
    return
  slopes = q * k * (1 - probs) ** (k - 1)
  for c in range(2):
    level = slopes[c][probs[c] > 0]
    np.testing.assert_allclose(level, level[0], rtol=1e-6)
    assert np.all(slopes[c][probs[c] == 0] <= level[0] * (1 + 1e-9))


def test_hidden_answer_optimum_beats_every_policy_on_a_grid():
  task = HiddenAnswer(num_contexts=1, num_arms=3, exponent=1.5)
  q = task.answer_probs[0]
  grid = [(a, b, 20 - a - b) for a, b in itertools.product(range(21), repeat=2) if a + b <= 20]
  for k in (1, 2, 5):
    best_on_grid = max(np.sum(q * (1 - (1 - np.array(p) / 20) ** k)) for p in grid)
    assert best_on_grid <= task.best_objective(None, k) + 1e-12
    assert task.best_objective(None, k) - best_on_grid < 0.01


def test_safe_risky_optimum_beats_every_policy_on_a_grid():
  task = _safe_risky()
  policy = SoftmaxBandit(task)
  # Context 1 has the arms of context 0 rotated by one place.
  grid = [(a, b, 20 - a - b) for a, b in itertools.product(range(21), repeat=2) if a + b <= 20]
  tables = [np.stack([p, np.roll(p, 1)]) / 20 for p in grid]
  logits = jnp.log(jnp.maximum(jnp.asarray(tables), 1e-30))
  values = jax.vmap(lambda x: task.exact_objective(policy, {'logits': x}, KS))(logits)
  for i, k in enumerate(KS):
    best = task.best_objective(policy, k)
    assert values[:, i].max() <= best + 1e-5
    assert best - values[:, i].max() < 0.005


def test_safe_arm_is_best_for_the_mean_and_not_for_the_maximum():
  task = _safe_risky()
  assert task.best_objective(None, 1) == pytest.approx(0.4)  # The arm that always pays 0.4.
  assert task.best_objective(None, 8) > 0.6


@pytest.mark.parametrize('k', KS)
def test_parabola_optimum_beats_every_theta_on_a_grid(k):
  task, policy, _ = _problem('parabola')
  thetas = jnp.linspace(0.5, 1.3, 1601)
  values = jax.vmap(lambda theta: task.exact_objective(policy, {'theta': theta}, (k,))[0])(thetas)
  best = task.best_objective(policy, k)
  assert values.max() == pytest.approx(best, abs=2e-6)


def test_parabola_objective_against_adaptive_quadrature():
  task, policy, _ = _problem('parabola')
  u = np.linspace(0, 1, 200_001)
  for theta in (0.2, 0.9, 1.1):
    cdf = stats.norm(theta, 0.1).cdf
    for k in (1, 16):
      integrand = 2 * u * (1 - (1 - (cdf(1.0) - cdf(u))) ** k)
      exact = task.exact_objective(policy, {'theta': jnp.float32(theta)}, (k,))[0]
      assert exact == pytest.approx(np.trapezoid(integrand, u), abs=2e-6)


def test_copy_rewards_the_share_of_right_characters():
  task = Copy(CharacterTokenizer(), num_letters=3, alphabet_size=4)
  prompts = task.prompts(0, 5, jax.random.key(0))
  assert task.tokenizer.decode(prompts.tokens[0])[-1] == '='
  words = [task.tokenizer.decode(row)[:3] for row in prompts.tokens]
  assert len(set(prompts.ids.tolist())) == len(set(words))
  answers = [[word, word + 'a', word[:1], '', 'zzz', 'z' + word[1:]] for word in words]
  tokens, mask = np.zeros((5, 6, 5), np.int32), np.zeros((5, 6, 5), bool)
  for p, i in np.ndindex(5, 6):
    ids = [*task.tokenizer.encode(answers[p][i]), 1]
    tokens[p, i, : len(ids)], mask[p, i, : len(ids)] = ids, True
  rollout = Rollout(prompts.tokens, prompts.mask, tokens, mask, np.zeros(tokens.shape, np.float32))
  rewards = task.grade(prompts, rollout, jax.random.key(0)).rewards
  expected = np.asarray([1, 3 / 4, 1 / 3, 0, 0, 2 / 3], np.float32)
  np.testing.assert_array_equal(rewards, np.tile(expected, (5, 1)))


def test_copy_numbers_its_words_in_int32():
  with pytest.raises(ValueError, match=r'num_letters: expected fewer than 2\^31 words.*got 7'):
    Copy(CharacterTokenizer(), num_letters=7, alphabet_size=26)

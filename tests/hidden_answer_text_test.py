"""Hidden strings: objective by enumeration, by sampling and at the optimum; verdicts; Gemma-2."""

import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import hidden_answer_tiny
from pkpo_jax.metrics import read_metrics
from pkpo_jax.tasks.hidden_answer import HiddenAnswer
from pkpo_jax.tasks.hidden_answer_text import HiddenAnswerText
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Prompts, Rollout

KS = (1, 2, 3, 8)
LENGTH = 4  # Tokens of a completion: two letters, the end, and room for a wrong one.
PAD, END, BEGIN = range(3)
A, B = 69, 70  # 'a' and 'b' of the characters' tokenizer.
EQUALS = 33
TOKENS = (END, BEGIN, A, B)


def _task(**options):
  fields = dict(num_contexts=2, num_answers=3, answer_length=2, alphabet_size=2, exponent=1.5)
  return HiddenAnswerText(CharacterTokenizer(), **{'seed': 3, **fields, **options})


def _q(num_contexts=2, num_answers=3, exponent=1.5):
  """Returns `[C, A]`: answer (c + r) mod A has rank r in context c."""
  ranks = (np.arange(num_answers) - np.arange(num_contexts)[:, None]) % num_answers
  weights = (1.0 + ranks) ** -exponent
  return weights / weights.sum(axis=1, keepdims=True)


class _TablePolicy:
  """p(token | context, position, token before) from a table `[C, L, 4, 4]` over TOKENS."""

  max_new_tokens = LENGTH

  def log_probs_and_entropy(self, params, rollout):
    index_of = np.zeros(128, int)
    index_of[list(TOKENS)] = range(4)
    indices = jnp.asarray(index_of)[rollout.completions]
    before = jnp.concatenate([jnp.zeros_like(indices[..., :1]), indices[..., :-1]], axis=-1)
    contexts = rollout.prompt_tokens[:, -2] - (A - 32)  # Capitals are 32 before small letters.
    log_probs = jax.nn.log_softmax(params, axis=-1)
    found = log_probs[contexts[:, None, None], jnp.arange(LENGTH), before, indices]
    return found, jnp.zeros_like(found)


def _random_table(seed):
  table = 0.7 * np.random.default_rng(seed).normal(size=(2, LENGTH, 4, 4))
  table[..., 1] -= 2  # A rare token that no answer has.
  return table.astype(np.float32)


def _completions(table, stop_ids):
  """Returns every completion of one context's table, and its probability in float64."""
  probs = np.exp(table.astype(np.float64))
  probs /= probs.sum(axis=-1, keepdims=True)
  found, open_ones = {}, {(): 1.0}
  for position in range(LENGTH):
    longer = {}
    for row, p in open_ones.items():
      before = TOKENS.index(row[-1]) if row else 0
      for i, token in enumerate(TOKENS):
        longer[*row, token] = p * probs[position, before, i]
    found |= {row: p for row, p in longer.items() if row[-1] in stop_ids}
    open_ones = {row: p for row, p in longer.items() if row[-1] not in stop_ids}
  return found | open_ones


def _rollout(prompts, rows):
  """Returns a rollout of these token rows, `[P][N]`."""
  shape = (len(rows), len(rows[0]), LENGTH)
  tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
  for p, i in np.ndindex(shape[:2]):
    tokens[p, i, : len(rows[p][i])], mask[p, i, : len(rows[p][i])] = rows[p][i], True
  return Rollout(prompts.tokens, prompts.mask, tokens, mask, np.zeros(shape, np.float32))


def _problems(task, contexts, hidden):
  """Returns prompts of these contexts and hidden answers."""
  tokens = np.asarray([[PAD, BEGIN, A - 32 + context, EQUALS] for context in contexts])
  ids, mask = np.asarray(contexts), np.arange(4) + 0 * tokens >= 1
  return Prompts(ids=ids, tokens=tokens, mask=mask, hidden=np.asarray(hidden))


@pytest.mark.parametrize('stop_ids', [(END,), (END, BEGIN)])
def test_objective_is_that_of_all_completions(stop_ids):
  """Over every context, answer and k-tuple of completions, with the task's own rewards."""
  task, table = _task(), _random_table(0)
  task.tokenizer.stop_ids = stop_ids
  assert task.objectives == ('pass@k',)
  assert (task.num_problems, task.num_held_out) == (None, None)
  expected = np.zeros(len(KS))
  for context, hidden in itertools.product(range(2), range(3)):
    rows = _completions(table[context], stop_ids)
    assert sum(rows.values()) == pytest.approx(1)
    problem = _problems(task, [context], [hidden])
    (rewards,) = task.grade(problem, _rollout(problem, [list(rows)]), jax.random.key(0)).rewards
    assert rewards.sum() == len(stop_ids)
    p_right = sum(p for p, reward in zip(rows.values(), rewards, strict=True) if reward)
    for i, k in enumerate(KS):
      tuples = itertools.product([True, False], repeat=k)
      chances = [np.prod([p_right if is_right else 1 - p_right for is_right in t]) for t in tuples]
      expected[i] += 0.5 * _q()[context, hidden] * sum(chances[:-1])  # All but no right one.
  exact = jax.jit(lambda params: task.exact_objective(_TablePolicy(), params, KS))(table)
  np.testing.assert_allclose(exact, expected, rtol=2e-6)


def test_objective_is_the_mean_of_the_best_of_k_samples():
  task, table, num_problems = _task(), _random_table(1), 10_000
  prompts = task.prompts(0, num_problems, jax.random.key(0))
  rng, rows = np.random.default_rng(0), {}
  for context in range(2):
    found = _completions(table[context], (END,))
    drawn = rng.choice(len(found), (num_problems, max(KS)), p=np.asarray(list(found.values())))
    completions = list(found)
    rows[context] = [[completions[i] for i in group] for group in drawn]
  rollout = _rollout(prompts, [rows[int(c)][p] for p, c in enumerate(prompts.ids)])
  rewards = task.grade(prompts, rollout, jax.random.key(0)).rewards
  exact = task.exact_objective(_TablePolicy(), table, KS)
  for k, value in zip(KS, exact, strict=True):
    best = rewards[:, :k].max(axis=1)
    error = best.std(ddof=1) / num_problems**0.5
    assert abs(best.mean() - value) < 4.5 * error, (k, best.mean(), value, error)


@pytest.mark.parametrize('k', KS)
def test_optimum_is_the_bandits_and_a_policy_over_strings_has_it(k):
  task = _task()
  bandit = HiddenAnswer(num_contexts=2, num_arms=3, exponent=1.5)
  assert task.best_objective(_TablePolicy(), k) == bandit.best_objective(None, k)
  probs = bandit.best_action_probs(k)
  table = np.full((2, LENGTH, 4, 4), -60.0, np.float32)
  table[:, 2:, :, TOKENS.index(END)] = 0
  for context in range(2):
    for first in (A, B):
      i = TOKENS.index(first)
      of = {second: 1e-30 for second in (A, B)}
      for answer, p in zip(task.answers[context], probs[context], strict=True):
        letters = task.tokenizer.encode(answer)
        if letters[0] == first:
          of[letters[1]] += p
      table[context, 0, :, i] = np.log(sum(of.values()))
      for second, p in of.items():
        table[context, 1, i, TOKENS.index(second)] = np.log(p / sum(of.values()))
  reached = task.exact_objective(_TablePolicy(), table, (k,))[0]
  assert reached == pytest.approx(bandit.best_objective(None, k), rel=1e-6)


def test_prompts_are_the_bandits_in_text():
  task, bandit = _task(), HiddenAnswer(num_contexts=2, num_arms=3, exponent=1.5)
  first, again = (task.prompts(3, 64, jax.random.key(5)) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  expected = bandit.prompts(3, 64, jax.random.key(5))
  np.testing.assert_array_equal(first.ids, expected.ids)
  np.testing.assert_array_equal(first.hidden, expected.hidden)
  texts = [task.tokenizer.decode(row) for row in np.asarray(first.tokens)]
  assert texts == ['AB'[context] + '=' for context in expected.ids]


def test_strings_are_distinct_and_drawn_from_their_seed():
  task = _task(num_contexts=3, num_answers=16, answer_length=3, alphabet_size=4)
  again = _task(num_contexts=3, num_answers=16, answer_length=3, alphabet_size=4)
  other = _task(num_contexts=3, num_answers=16, answer_length=3, alphabet_size=4, seed=4)
  assert task.answers == again.answers != other.answers
  for answers in task.answers:
    assert len(set(answers)) == 16
    assert all(len(answer) == 3 and set(answer) <= set('abcd') for answer in answers)
  assert len({frozenset(answers) for answers in task.answers}) == 3
  # All strings of a full alphabet.
  (answers,) = _task(num_contexts=1, num_answers=4).answers
  assert sorted(answers) == ['aa', 'ab', 'ba', 'bb']


def test_verdicts():
  task = _task()
  problem = _problems(task, [0, 1], [2, 0])
  letters = [[tuple(task.tokenizer.encode(a)) for a in answers] for answers in task.answers]
  cases, kinds = [], []
  for context, hidden in ((0, 2), (1, 0)):
    own, wrong = letters[context][hidden], letters[context][1]
    (other,) = set(itertools.product((A, B), repeat=2)) - set(letters[context])
    cases.append(
      [
        (*own, END), (*wrong, END), (*other, END), (END,), (own[0], END), (*own, A, END),
        (*own, BEGIN, END), (BEGIN, *own, END), (*own, A, A), own,
      ]
    )  # fmt: skip
    kinds.append(['right', 'wrong', 'malformed', 'empty', *['malformed'] * 4, *['overlong'] * 2])
  rollout = _rollout(problem, cases)
  verdicts = task.verdicts(problem, rollout)
  assert [[verdict.kind for verdict in group] for group in verdicts] == kinds
  for group, answers, hidden in zip(verdicts, task.answers, (2, 0), strict=True):
    assert [verdict.answer for verdict in group] == [answers[hidden], answers[1], *[None] * 8]
  grades = task.grade(problem, rollout, jax.random.key(0))
  for values in (grades.rewards, grades.successes):
    np.testing.assert_array_equal(values, [[1] + 9 * [0]] * 2)
    assert values.dtype == np.float32
  assert grades.verdicts == verdicts


def test_demonstrations_are_uniform_over_the_strings_of_the_context():
  task = _task(num_answers=16, answer_length=3, alphabet_size=4)
  prompts = _problems(task, [0, 1, 0], [0, 0, 0])
  rollout = task.demonstrations(prompts, 4000, 5, jax.random.key(0))
  again = task.demonstrations(prompts, 4000, 5, jax.random.key(0))
  np.testing.assert_array_equal(rollout.completions, again.completions)
  assert np.all(rollout.completion_mask == (np.arange(5) < 4))
  for context, group in zip((0, 1, 0), task.verdicts(prompts, rollout), strict=True):
    counts = Counter(verdict.answer for verdict in group)
    assert counts.keys() == set(task.answers[context])
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_no_room_for_a_string_and_its_end():
  task, policy = _task(), _TablePolicy()
  policy.max_new_tokens = 2
  with pytest.raises(ValueError, match=r'policy.max_new_tokens: expected at least the 3 .*got 2'):
    task.exact_objective(policy, _random_table(0), KS)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('seed', -1, 'seed: expected at least 0, got -1'),
    ('num_contexts', 27, 'num_contexts: expected 1 to 26, got 27'),
    ('num_answers', 5, r'num_answers: expected 2 to alphabet_size \*\* answer_length = 4, got 5'),
    ('answer_length', 0, 'answer_length: expected 1 to 12, got 0'),
    ('alphabet_size', 27, 'alphabet_size: expected 1 to 26, got 27'),
    ('exponent', -1.0, r'exponent: expected a number >= 0, got -1\.0'),
  ],
)
def test_fields_out_of_range(field, value, message):
  with pytest.raises(ValueError, match=message):
    _task(**{field: value})


def test_gemma_samples_what_the_exact_objective_says(tmp_path, monkeypatch):
  """After a short warm start; teacher forcing of the strings and their end against sampling."""
  from pkpo_jax.train import train
  from tests.gemma_cases import SMALL, name_preset

  name_preset(monkeypatch, dataclasses.replace(SMALL, num_embed=128))
  config = hidden_answer_tiny.get_config('warm_quick')
  config.update_from_flattened_dict(
    {
      'num_train_steps': 60,
      'task.num_answers': 3,
      'task.answer_length': 2,
      'task.alphabet_size': 2,
      'policy.preset': 'small',
      'optimizer.learning_rate': 1e-2,
      'eval.every': 60,
      'eval.num_prompts': 256,
      'log.tensorboard': False,
    }
  )
  train(config, tmp_path)
  *_, before_last, last = read_metrics(tmp_path)
  assert 'train/pass@1_exact' in before_last and before_last['train/verdict_malformed'] == 0
  assert 0.02 < last['eval/pass@1_exact'] < 1 / 3 + 1e-3, 'at best 1/3, of 3 strings each'
  for k in (1, 4, 16):
    error = last[f'eval/pass@{k}_se']
    assert abs(last[f'eval/pass@{k}'] - last[f'eval/pass@{k}_exact']) < 4.5 * error


def test_variants():
  for arg in (None, '', 'warm', 'quick', 'warm_quick'):
    config = hidden_answer_tiny.get_config(arg)
    assert config.rollout.source == ('demonstrations' if 'warm' in (arg or '') else 'policy')
  with pytest.raises(ValueError, match="'warm_quick'.*got 'slow'"):
    hidden_answer_tiny.get_config('slow')

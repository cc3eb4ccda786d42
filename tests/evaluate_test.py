"""Evaluation: all numbers recomputed, the report, the command."""

import itertools
import json
import math
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluation_statistics_test import majority_by_enumeration

from configs import bandit, default
from pkpo_jax import evaluate
from pkpo_jax.evaluation import measure, report
from pkpo_jax.intervals import mean_interval, paired_interval
from pkpo_jax.metrics import read_metrics
from pkpo_jax.policies import POLICIES, Policy
from pkpo_jax.run import make_run
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.grades import KINDS, Verdict, grades_of
from pkpo_jax.train import train
from pkpo_jax.types import Rollout
from tests.sequence_policy import BagPolicy, CountTask, config_of

LENGTH = 4


class UnigramPolicy(Policy):
  """Tokens that are independent of the prompt and of each other; a stop token ends a completion."""

  completions = 'text'
  eval_fields = frozenset({'greedy'})
  max_new_tokens = LENGTH

  def __init__(self, task, greedy=False):
    self._tokenizer, self._greedy, self.samples_exactly = task.tokenizer, greedy, not greedy

  def init(self, key):
    moves, stops = self._tokenizer.encode('UDLR'), self._tokenizer.stop_ids
    logits = jnp.zeros(self._tokenizer.vocab_size)
    return {'logits': logits.at[jnp.asarray(moves)].set(6.0).at[jnp.asarray(stops)].set(7.0)}

  def sample(self, params, prompts, num_samples, key):
    shape = (len(prompts.tokens), num_samples, LENGTH)
    tokens = jax.random.categorical(key, params['logits'], shape=shape)
    if self._greedy:
      tokens = jnp.full(shape, jnp.argmax(params['logits']))
    stops = jnp.isin(tokens, jnp.asarray(self._tokenizer.stop_ids))
    mask = jnp.cumsum(stops, axis=-1) - stops == 0
    tokens = jnp.where(mask, tokens, 0)
    log_probs = jnp.where(mask, jax.nn.log_softmax(params['logits'])[tokens], 0)
    return Rollout(prompts.tokens, prompts.mask, tokens, mask, log_probs)

  def log_probs_and_entropy(self, params, rollout):
    """Returns an entropy that differs from token to token, to see what is averaged."""
    if self._greedy:
      return jnp.full(rollout.completions.shape, jnp.nan), jnp.full(
        rollout.completions.shape, jnp.nan
      )
    return jax.nn.log_softmax(params['logits'])[rollout.completions], rollout.completions / 100.0


@pytest.fixture
def toys(monkeypatch):
  """Makes the tests' own tasks and policies known to configs."""
  monkeypatch.setitem(TASKS, 'count', CountTask)
  monkeypatch.setitem(POLICIES, 'bag', BagPolicy)
  monkeypatch.setitem(POLICIES, 'unigram', UnigramPolicy)


def mazes_config(**overrides):
  config = default.get_config()
  config.task = default.task('maze')
  config.policy = {'name': 'unigram', 'tokenizer': {'name': 'characters'}}
  config.eval.policy = {'greedy': None}
  config.update_from_flattened_dict(
    {
      'num_train_steps': 2,
      'task.size': 2,
      'task.num_train': 3,
      'task.num_held_out': 12,
      'task.min_moves': 1,
      'task.max_moves': 2,
      'rollout.num_prompts': 3,
      'rollout.num_samples': 4,
      'advantage.k': 2,
      'eval.ks': (1, 3, 6),
      'eval.num_prompts': 12,
      'eval.num_samples': 6,
      'log.tensorboard': False,
    }
    | overrides
  )
  return config


def bandit_config(arg='hidden_answer', **overrides):
  config = bandit.get_config(f'{arg}_quick')
  config.update_from_flattened_dict(
    {'num_train_steps': 4, 'eval.num_prompts': 16, 'log.tensorboard': False} | overrides
  )
  return config


# Majority votes and diversity.


def recompute(run, params, keys, problems):
  """Returns the evaluation of these problems, in plain Python from the definitions.

  Args:
    keys: of samples.
    problems: their mazes, for each the index within its piece.
  """
  stop_ids, ks = run.task.tokenizer.stop_ids, run.settings.eval.ks
  prompts = run.task.prompts_of(run.task.num_problems + np.arange(12))
  size, rollouts = 12 // len(keys), []
  for i, key in enumerate(keys):
    piece = jax.tree.map(lambda x, i=i: x[i * size : (i + 1) * size], prompts)
    rollouts.append(run.eval_policy.sample(params, piece, run.settings.eval.num_samples, key))
  tokens = np.concatenate([x.completions for x in rollouts])
  masks = np.concatenate([x.completion_mask for x in rollouts])
  found = []
  for maze, rows, row_masks in zip(problems, tokens, masks, strict=True):
    samples = [row[mask].tolist() for row, mask in zip(rows, row_masks, strict=True)]
    kinds, contents, votes = [], [], []
    for sample in samples:
      text = run.task.tokenizer.decode(sample).strip()
      vote = None
      if sample[-1] not in stop_ids:
        kind = 'overlong'
      elif text == '':
        kind = 'empty'
      elif set(text) - set('UDLR'):
        kind = 'malformed'
      else:
        kind, vote = ('right' if leads_to_the_end(maze, text) else 'wrong'), text
      kinds.append(kind)
      votes.append(vote)
      contents.append(tuple(sample) if vote is None else vote)
    right = [kind == 'right' for kind in kinds]
    wrong = [content for content, one in zip(contents, right, strict=True) if not one]
    subsets = {k: list(itertools.combinations(right, k)) for k in ks}
    found.append(
      {
        'values': [np.mean([any(subset) for subset in subsets[k]]) for k in ks],
        'majority': [float(majority_by_enumeration(votes, right, k)) for k in ks],
        'entropy': np.mean([token / 100 for sample in samples for token in sample]),
        'completion_tokens': np.mean([len(sample) for sample in samples]),
        'truncation_share': kinds.count('overlong') / len(kinds),
        'answer_diversity': len(set(wrong)) / len(wrong) if wrong else np.nan,
        **{f'verdict_{kind}': kinds.count(kind) / len(kinds) for kind in KINDS},
      }
    )
  return {name: np.asarray([one[name] for one in found]) for name in found[0]}


def leads_to_the_end(maze, moves):
  """Returns whether the moves stay in a maze of 2 x 2, off its walls, and end on E."""
  cells = {(r, c): maze[r][c] for r in range(2) for c in range(2)}
  (at,) = (cell for cell, sign in cells.items() if sign == 'S')
  for move in moves:
    step = {'U': (-1, 0), 'D': (1, 0), 'L': (0, -1), 'R': (0, 1)}[move]
    at = at[0] + step[0], at[1] + step[1]
    if cells.get(at, '*') == '*':
      return False
  return cells[at] == 'E'


@pytest.mark.parametrize('num_pieces', [1, 3])
@pytest.mark.parametrize('greedy', [None, True])
def test_every_number_of_an_evaluation(greedy, num_pieces, toys):
  """Also that greedy decoding leaves the entropy that of the policy that is trained."""
  run = make_run(mazes_config(**{'eval.policy.greedy': greedy}))
  params, key = run.policy.init(jax.random.key(0)), jax.random.key(1)
  calls = []
  found = measure.make_evaluate(run)(
    params, 0, key, num_pieces, lambda *samples: calls.append(samples)
  )
  assert len(calls) == num_pieces
  for prompts, rollout, grades in calls:
    assert len(prompts.ids) == len(rollout.completions) == len(grades.rewards) == 12 // num_pieces
  sample_key = jax.random.split(key, 3)[1]
  pieces = [jax.random.fold_in(sample_key, i) for i in range(num_pieces)]
  problems = [run.task.prompt_text(maze).split('\n')[:2] for maze in run.task._problems[3:]]
  expected = recompute(run, params, pieces if num_pieces > 1 else [sample_key], problems)
  np.testing.assert_array_equal(found.ids, np.arange(3, 15))
  np.testing.assert_allclose(found.curves['pass@k'], expected['values'], rtol=1e-5)
  np.testing.assert_allclose(found.curves['maj@k'], expected['majority'], rtol=1e-12)
  assert list(found.curves) == ['pass@k', 'pass^k', 'maj@k']
  num_right, n = np.round(expected['values'][:, 0] * 6).astype(int), 6
  all_right = [[math.comb(c, k) / math.comb(n, k) for k in (1, 3, 6)] for c in num_right]
  np.testing.assert_allclose(found.curves['pass^k'], all_right, rtol=1e-5)
  assert found.statistics.keys() == expected.keys() - {'values', 'majority'}
  for name, values in found.statistics.items():
    np.testing.assert_allclose(values, expected[name], rtol=1e-5, err_msg=name)
  if not greedy:  # There is something to see.
    values, majority = found.curves['pass@k'], found.curves['maj@k']
    assert {0, 1} < set(values[:, 0]) | {0, 1}
    assert np.any(majority[:, 1] != values[:, 1])
    assert all(np.ptp(x) > 0 for x in (found.statistics['entropy'], values[:, 1]))
    for kind in ('right', 'wrong', 'empty', 'overlong'):
      assert np.mean(found.statistics[f'verdict_{kind}']) > 0
  metrics = measure.evaluation_metrics(found, run.settings.eval.ks)
  for i, k in enumerate((1, 3, 6)):
    assert metrics[f'eval/pass^{k}'] == pytest.approx(np.mean(all_right, axis=0)[i], rel=1e-5)
    assert metrics[f'eval/maj@{k}'] == pytest.approx(expected['majority'][:, i].mean())
    values = expected['values'][:, i]
    assert metrics[f'eval/pass@{k}'] == pytest.approx(values.mean(), rel=1e-5)
    error = np.sqrt(values.var() / (len(values) - 1))
    assert metrics[f'eval/pass@{k}_se'] == pytest.approx(error, rel=1e-5)
  diversity = expected['answer_diversity']
  assert metrics['eval/answer_diversity'] == pytest.approx(diversity[diversity == diversity].mean())


@pytest.mark.parametrize('kind', ['wrong', 'unjudged'])
def test_no_vote_over_all_problems_if_one_cannot_be_compared(kind, toys, monkeypatch):
  """A sample that was not judged has no answer either, but is missing everywhere."""
  run = make_run(mazes_config())
  grade = type(run.task).grade

  def without_an_answer(self, prompts, rollout, key):
    verdicts = grade(self, prompts, rollout, key).verdicts
    verdicts[4][2] = Verdict(kind)
    return grades_of(verdicts)

  monkeypatch.setattr(type(run.task), 'grade', without_an_answer)
  params = run.policy.init(jax.random.key(0))
  found = measure.make_evaluate(run)(params, 0, jax.random.key(1))
  assert list(found.curves) == ['pass@k', 'pass^k', *(['maj@k'] if kind == 'unjudged' else [])]
  assert np.isnan(found.curves['pass@k']).any() == (kind == 'unjudged')


def test_the_random_numbers_of_an_evaluation():
  """Of the prompts, the samples and the rewards, in this order, from one key."""
  run = make_run(bandit_config('safe_risky'))
  params, key = run.policy.init(jax.random.key(0)), jax.random.key(5)
  found = measure.make_evaluate(run)(params, 3, key)
  prompt_key, sample_key, reward_key = jax.random.split(key, 3)
  prompts = run.task.held_out(16, prompt_key)
  rollout = run.policy.sample(params, prompts, 16, sample_key)
  rewards = np.asarray(run.task.grade(prompts, rollout, reward_key).rewards)
  np.testing.assert_array_equal(found.ids, prompts.ids)
  assert found.curves.keys() == {'max@k'}
  np.testing.assert_allclose(found.curves['max@k'][:, 0], rewards.mean(axis=1), rtol=1e-6)
  np.testing.assert_allclose(found.curves['max@k'][:, -1], rewards.max(axis=1), rtol=1e-6)
  assert found.statistics.keys() == {'entropy', 'completion_tokens'}
  np.testing.assert_allclose(found.statistics['entropy'], np.log(4), rtol=1e-6)
  np.testing.assert_allclose(
    found.exact['max@k'],
    run.task.exact_objective(run.policy, params, run.settings.eval.ks),
    rtol=1e-6,
  )


def test_a_policy_that_does_not_sample_exactly_has_no_exact_value(toys, monkeypatch):
  exact = lambda self, policy, params, ks: jnp.zeros(len(ks))
  monkeypatch.setattr(TASKS['maze'], 'exact_objective', exact)
  for greedy, is_known in ((None, True), (True, False)):
    run = make_run(mazes_config(**{'eval.policy.greedy': greedy}))
    found = measure.make_evaluate(run)(run.policy.init(None), 0, jax.random.key(0))
    assert ('pass@k' in found.exact) == is_known


@pytest.mark.parametrize(
  'num_prompts, num_samples, max_completions, num_shards, expected',
  [
    (256, 16, 4096, 1, 1),
    (256, 256, 4096, 1, 16),
    (256, 16, 1000, 1, 8),
    (12, 8, 40, 4, 3),  # A piece is a multiple of 4 prompts: 12 or 4.
    (12, 8, 96, 4, 1),
    (7, 8, 20, 1, 7),
    (6, 8, 1, 2, 3),  # One prompt on each device is as small as it gets.
  ],
)
def test_count_pieces(num_prompts, num_samples, max_completions, num_shards, expected):
  found = measure.count_pieces(num_prompts, num_samples, max_completions, num_shards)
  assert found == expected


def test_no_more_is_in_memory_than_a_piece(toys, monkeypatch):
  """Prompts are sampled, and the entropy is computed, for few at a time."""
  sampled, forwarded = set(), set()
  sample, forward = UnigramPolicy.sample, UnigramPolicy.log_probs_and_entropy

  def watched_sample(self, params, prompts, num_samples, key):
    sampled.add(prompts.tokens.shape[0])
    return sample(self, params, prompts, num_samples, key)

  def watched_forward(self, params, rollout):
    forwarded.add(rollout.completions.shape[:2])
    return forward(self, params, rollout)

  run = make_run(mazes_config())
  monkeypatch.setattr(UnigramPolicy, 'sample', watched_sample)
  monkeypatch.setattr(UnigramPolicy, 'log_probs_and_entropy', watched_forward)
  measure.make_evaluate(run)(run.policy.init(None), 0, jax.random.key(0), 3)
  assert sampled == {4}
  assert forwarded == {(2, 6)}, 'an update has 3 * 4 completions'


# The command.


def test_a_checkpoint_is_evaluated_as_in_training(toys, tmp_path):
  """Restored parameters, frozen ones too, give what the run itself wrote last."""
  for name, frozen in (('all', False), ('frozen', True)):
    config = config_of(policy__freeze_cell=frozen)
    train(config, tmp_path / name)
    run = make_run(config)
    mesh = evaluate.sharding.make_mesh(run.settings.mesh)
    step, params = evaluate.restore(run, mesh, tmp_path / name, 'latest')
    assert step == 4
    eval_key = jax.random.split(jax.random.key(config.seed), 4)[2]
    found = measure.make_evaluate(run)(params, step, jax.random.fold_in(eval_key, step))
    metrics = measure.evaluation_metrics(found, run.settings.eval.ks)
    last = read_metrics(tmp_path / name)[-1]
    assert last['step'] == 4
    for metric in ('eval/max@1', 'eval/max@4', 'eval/max@4_se', 'eval/entropy'):
      assert metrics[metric] == pytest.approx(last[metric], rel=1e-6)


def evaluated(workdirs, config=None, checkpoint='latest', seed=0, **options):
  """Returns the report on workdirs with the first's own config."""
  if config is None:
    config = evaluate.read_config(workdirs[0])
  return evaluate.evaluate_workdirs(evaluate.as_dict(config), workdirs, checkpoint, seed, **options)


def test_report_of_a_text_task(toys, tmp_path):
  config = mazes_config(**{'checkpoint.every': 1})
  params = train(config, tmp_path / 'run').params
  found = evaluated([tmp_path / 'run'], seed=7)
  json.dumps(found, allow_nan=False)
  (run,) = found['runs']
  assert run['step'] == 2 and found['num_problems'] == 12 and found['num_samples'] == 6
  assert run['config']['eval']['ks'] == (1, 2, 3, 4, 6), 'powers of 2, N, and those of the config'
  eval_key, bootstrap_key = jax.random.split(jax.random.key(7))
  direct = measure.make_evaluate(make_run(run['config']))(params, 0, eval_key)
  assert run['problems']['id'] == list(range(3, 15))
  np.testing.assert_array_equal(run['problems']['pass@k'], direct.curves['pass@k'])
  np.testing.assert_array_equal(run['problems']['maj@k'], direct.curves['maj@k'])
  for curve, values in direct.curves.items():
    columns = run['curves'][curve]
    assert columns['k'] == [1, 2, 3, 4, 6]
    np.testing.assert_allclose(columns['mean'], values.mean(axis=0), rtol=1e-6)
    error = values.std(axis=0, ddof=1) / 12**0.5
    np.testing.assert_allclose(columns['standard_error'], error, rtol=1e-5)
    assert np.all(error > 0) or curve == 'pass^k'  # Of nothing all are right.
    _, low, high = mean_interval(values, bootstrap_key, level=0.95)
    np.testing.assert_allclose(columns['low'], low)
    np.testing.assert_allclose(columns['high'], high)
    assert 'exact' not in columns
  diversity = direct.statistics['answer_diversity']
  is_known = ~np.isnan(diversity)
  entry = run['statistics']['answer_diversity']
  assert entry['num_problems'] == is_known.sum()
  assert entry['mean'] == pytest.approx(diversity[is_known].mean())
  error = diversity[is_known].std(ddof=1) / is_known.sum() ** 0.5
  assert entry['standard_error'] == pytest.approx(error, rel=1e-5)
  known = [x for x in run['problems']['answer_diversity'] if x is not None]
  np.testing.assert_allclose(known, diversity[is_known])
  assert found['differences'] == {}
  # Another checkpoint with another seed; then more samples than in training.
  other = evaluated([tmp_path / 'run'], checkpoint=1, seed=8)['runs'][0]
  assert other['step'] == 1 and other['problems'] != run['problems']
  config.eval.num_samples = 20
  found = evaluated([tmp_path / 'run'], config)
  assert found['num_pieces'] == 4, 'of 3 * 20 completions; training had 12 * 6 at a time'
  assert found['runs'][0]['curves']['pass@k']['k'] == [1, 2, 3, 4, 6, 8, 16, 20]
  found = evaluated([tmp_path / 'run'], config, num_prompts_at_once=6)
  assert found['num_pieces'] == 2


def test_a_run_beside_itself_and_beside_another(tmp_path):
  """The same samples differ by 0, other problems by little; two runs by what their means do."""
  for name, k in (('k1', 1), ('k8', 8)):
    train(bandit_config(**{'advantage.k': k, 'optimizer.learning_rate': 0.5}), tmp_path / name)
  same = evaluated([tmp_path / 'k8', tmp_path / 'k8'])
  assert same['runs'][0]['problems'] == same['runs'][1]['problems']
  assert same['differences'].keys() == {'pass@k', 'pass^k'}
  no_difference = same['differences']['pass@k']
  assert no_difference['k'] == [1, 2, 4, 8, 16] and no_difference['mean'] == [0.0] * 5
  # One more problem would move the mean of 16 by no more.
  end = 1 - 0.025 ** (1 / 16)
  np.testing.assert_allclose(no_difference['low'], [-end] * 5, atol=0.01)
  np.testing.assert_allclose(no_difference['high'], [end] * 5, atol=0.01)
  found = evaluated([tmp_path / 'k8', tmp_path / 'k1'])
  assert found['runs'][0]['problems'] == same['runs'][0]['problems']
  first, second = (np.asarray(run['problems']['pass@k']) for run in found['runs'])
  assert found['runs'][0]['problems']['id'] == found['runs'][1]['problems']['id']
  difference = found['differences']['pass@k']
  np.testing.assert_allclose(difference['mean'], (first - second).mean(axis=0), atol=1e-6)
  interval_key = jax.random.split(jax.random.key(0))[1]
  values = (x.astype(np.float32) for x in (first, second))
  _, low, high = paired_interval(*values, interval_key, level=0.95)
  np.testing.assert_allclose(difference['low'], low, atol=1e-6)
  np.testing.assert_allclose(difference['high'], high, atol=1e-6)
  for each in found['runs']:
    assert len(each['curves']['pass@k']['exact']) == 5
  text = report.table(found)
  assert f'{found["runs"][1]["curves"]["pass@k"]["mean"][3]:.4f}' in text
  assert f'{difference["mean"][0]:+.4f}' in text and 'k8, step 4 minus k1, step 4' in text


def test_evaluation_on_a_mesh_equals_that_on_one_device(toys, tmp_path):
  config = config_of()
  train(config, tmp_path / 'run')
  one = evaluated([tmp_path / 'run'], config)
  config.mesh.data, config.mesh.fsdp = 2, 2
  many = evaluated([tmp_path / 'run'], config)
  for name in ('max@k', 'entropy'):
    np.testing.assert_allclose(
      many['runs'][0]['problems'][name], one['runs'][0]['problems'][name], rtol=1e-5
    )
  config.eval.num_prompts = 6
  with pytest.raises(ValueError, match=r'eval.num_prompts: expected a multiple of .* = 4, got 6'):
    evaluated([tmp_path / 'run'], config)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Returns the workdir of a trained bandit, not to be written to."""
  workdir = tmp_path_factory.mktemp('trained') / 'bandit'
  train(bandit_config(), workdir)
  return workdir


def test_errors_name_what_is_wrong(trained, tmp_path):
  other = tmp_path / 'other'
  other.mkdir()
  config = json.loads((trained / 'config.json').read_text())
  config['task'] |= {'num_arms': 8, 'exponent': 2.0}
  (other / 'config.json').write_text(json.dumps(config))
  words = r'other_workdir: expected a run on the same task \(task.exponent: 2.0 there, 1.0 here; '
  with pytest.raises(ValueError, match=words + 'task.num_arms: 8 there, 16 here'):
    evaluated([trained, other])
  config['task'] = {'name': 'parabola'}
  (other / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ValueError, match=r"\(task.name: 'parabola' there, 'hidden_answer' here\)"):
    evaluated([trained, other])
  with pytest.raises(ValueError, match=r'logits: expected .* shape \(4, 8\), found .* \(4, 16\)'):
    evaluated([trained], bandit_config(**{'task.num_arms': 8}))
  with pytest.raises(ValueError, match='num_prompts_at_once: expected at least 1, got 0'):
    evaluated([trained], num_prompts_at_once=0)
  with pytest.raises(ValueError, match='config.eval.num_samples: expected at least 1, got 0'):
    evaluated([trained], bandit_config(**{'eval.num_samples': 0}))
  with pytest.raises(FileNotFoundError, match='no checkpoint of step 3, only of .*4'):
    evaluated([trained], checkpoint=3)
  with pytest.raises(ValueError, match="workdir: expected the folder of a run, .* got '.*nope'"):
    evaluated([trained, tmp_path / 'nope'], bandit_config())


def main_with(monkeypatch, **flags):
  names = ('workdir', 'other_workdir', 'output', 'num_prompts_at_once', 'coordinator_address')
  flags = dict.fromkeys((*names, 'num_processes', 'process_id')) | {'distributed': False} | flags
  flags = {'seed': 0, 'checkpoint': 'latest', 'overwrite': False} | flags
  monkeypatch.setattr(evaluate.flags, 'FLAGS', SimpleNamespace(**flags))
  evaluate.main(['evaluate'])


def test_without_matplotlib_it_stops_before_sampling(trained, monkeypatch):
  def never(*args, **kwargs):
    raise AssertionError('went on')

  monkeypatch.setattr(evaluate, 'evaluate_workdirs', never)
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(SystemExit, match=r'the figure needs matplotlib: pip install .*figures'):
    main_with(monkeypatch, workdir=str(trained), config=bandit_config())


@pytest.mark.parametrize('name', ['newest', '-1', '1.5', ''])
def test_a_checkpoint_is_a_step_or_a_name(name, trained, monkeypatch):
  with pytest.raises(SystemExit, match="checkpoint: expected a step, 'latest' or 'best', got"):
    main_with(monkeypatch, workdir=str(trained), checkpoint=name, config=bandit_config())


def test_the_best_checkpoint(tmp_path):
  config = bandit_config(
    **{'eval.every': 2, 'checkpoint.every': 2, 'checkpoint.best_metric': 'eval/pass@1'}
  )
  train(config, tmp_path / 'run')
  scores = {
    line['step']: line['eval/pass@1']
    for line in read_metrics(tmp_path / 'run')
    if line['step'] > 0 and 'eval/pass@1' in line
  }
  best = max(scores, key=scores.get)
  assert evaluated([tmp_path / 'run'], checkpoint='best')['runs'][0]['step'] == best


def test_what_is_written_is_the_report(tmp_path):
  columns = {
    'k': [1, 3, 4],
    'mean': [0.1, 0.2, 0.4],
    'low': [0.0, 0.1, 0.3],
    'high': [0.2, 0.3, 0.6],
    'warnings': [None, 'the interval rests on 2 of 9 problems', None],
  }
  curves = {'pass@k': columns | {'standard_error': [0.05, 0.05, 0.1], 'exact': [0.1, 0.2, 0.3]}}
  curves['pass@k']['num_problems'] = 9
  curves['maj@k'] = columns | {'standard_error': [None, None, None], 'num_problems': 1}
  statistics = {
    'entropy': {'mean': 1.25, 'standard_error': 0.5, 'num_problems': 9},
    'answer_diversity': {'mean': 1.0, 'standard_error': None, 'num_problems': 1},
  }
  run = {'step': 3, 'config': {'a': {}, 'x': 'a [ b,\n  c ]', 'y': ['a  b', 'c']}}
  run |= {'curves': curves, 'statistics': statistics, 'problems': {'pass@k': [[0, 1], [1, 1]]}}
  whole = {
    'command': 'x --config.eval.ks=[ 1,  2 ]',
    'level': 0.9,
    'num_problems': 9,
    'num_samples': 4,
    'runs': [run | {'workdir': 'runs/a/k8'}, run | {'workdir': 'runs/b/k8'}],
    'differences': {'pass@k': columns | {'low': [-0.1, 0.1, 0.3]}},
  }
  means = {'first': [0.5, 0.6, 0.7], 'second': [0.4, 0.4, 0.3]}
  whole['differences']['pass@k'] |= means
  report.write_json(whole, tmp_path / 'x.json')
  text = (tmp_path / 'x.json').read_text()
  assert json.loads(text) == whole
  assert '"mean": [0.1, 0.2, 0.4]' in text
  assert report.run_names(whole) == ['runs/a/k8, step 3', 'runs/b/k8, step 3']
  lines = report.table(whole).splitlines()
  assert 'runs/a/k8, step 3: 9 problems, 4 samples of each' in lines
  assert any('90 % interval' in line for line in lines)
  assert any(
    line.split() == ['answer_diversity', '1.0000', 'of', '1', 'problems'] for line in lines
  )
  assert lines.count('  maj@k is over 1 of 9 problems') == 2
  assert any(line.split()[:4] == ['3', '0.6000', '0.4000', '+0.2000'] for line in lines)
  warning = 'k = 3: the interval rests on 2 of 9 problems'
  assert [line for line in lines if '!' in line] == [
    *[f'  ! pass@k, {warning}', f'  ! maj@k, {warning}'] * 2,
    f'  ! pass@k, {warning}',
  ]
  rows = [line for line in lines if line.endswith(']') or line.endswith('*')]
  is_marked = [line.endswith('*') for line in rows if '+' in line]
  assert is_marked == [False, True, True]
  for panels, part in (
    (2, whole),
    (1, whole | {'runs': [run | {'workdir': 'a'}], 'differences': {}}),
  ):
    report.draw(part, tmp_path / 'x.png')
    header = (tmp_path / 'x.png').read_bytes()[:24]
    assert header[:8] == b'\x89PNG\r\n\x1a\n'
    assert struct.unpack('>II', header[16:24]) == (150 * (1.5 + 5 * panels), 150 * 4.8)


def test_no_evaluation_is_written_over_silently(tmp_path):
  def fill(folder):
    folder.mkdir(exist_ok=True)
    (folder / 'evaluation.json').touch()
    return folder

  of = lambda output=None, overwrite=False: evaluate.output_folder(tmp_path, output, overwrite)
  assert of() == tmp_path / 'evaluation'
  fill(tmp_path / 'evaluation')
  assert of() == tmp_path / 'evaluation_2'
  fill(tmp_path / 'evaluation_2')
  assert of() == tmp_path / 'evaluation_3'
  assert of(overwrite=True) == tmp_path / 'evaluation'
  own = str(tmp_path / 'own')
  assert of(own) == tmp_path / 'own'
  fill(tmp_path / 'own')
  with pytest.raises(ValueError, match='output: expected a folder without an evaluation, or --ov'):
    of(own)
  assert of(own, overwrite=True) == tmp_path / 'own'


def test_command_line(trained, tmp_path):
  command = [
    sys.executable, '-m', 'pkpo_jax.evaluate', f'--workdir={trained}',
    f'--other_workdir={trained}', f'--output={tmp_path}/new/out', '--config.eval.num_samples=12',
    '--config.eval.ks=(2,5)', '--config.checkpoint.best_metric=eval/pass@1',
  ]  # fmt: skip
  run = subprocess.run(command, capture_output=True, text=True, check=True)
  assert 'bandit, step 4: 16 problems, 12 samples of each' in run.stdout
  assert '\r' not in run.stderr, 'lines, as there is no terminal'
  found = json.loads((tmp_path / 'new' / 'out' / 'evaluation.json').read_text())
  assert found['runs'][0]['curves']['pass@k']['k'] == [1, 2, 4, 5, 8, 12]
  assert found['runs'][0]['config']['checkpoint']['best_metric'] == 'eval/pass@1'
  assert '--config.eval.num_samples=12' in found['command']
  assert set(found['differences']['pass@k']['mean']) == {0.0}
  assert (tmp_path / 'new' / 'out' / 'evaluation.png').stat().st_size > 10_000
  assert not (trained / 'evaluation').exists()


@pytest.mark.parametrize(
  'argument, message',
  [
    ('--config.eval.nope=1', 'config.eval.nope: unknown field; expected one of'),
    ('--config=configs/nope.py', "--config: expected a file, .* got 'configs/nope.py'"),
    ('--workdir=runs/nope', "workdir: expected the folder of a run, .* got 'runs/nope'"),
  ],
)
def test_errors_of_the_command_line_are_one_line(argument, message, trained, monkeypatch):
  # The flags themselves are defined where the command starts.
  monkeypatch.setattr(evaluate.flags, 'mark_flag_as_required', lambda name: None)
  with pytest.raises(SystemExit) as stopped:
    evaluate._parse_flags(['evaluate', f'--workdir={trained}', argument])
  (line,) = stopped.value.code.splitlines()  # Of a text: printed, and the exit code is 1.
  assert re.search(message, line)


def test_a_command_that_fails_prints_one_line(trained):
  command = [sys.executable, '-m', 'pkpo_jax.evaluate', f'--workdir={trained}', '--checkpoint=77']
  bad = subprocess.run(command, capture_output=True, text=True, check=False)
  assert bad.returncode == 1
  (line,) = bad.stderr.splitlines()
  assert 'no checkpoint of step 77' in line

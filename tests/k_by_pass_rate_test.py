"""Runs that give each prompt its own k: by which samples, resumed, compiled once, refused."""

import collections
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import bandit
from pkpo_jax import ADVANTAGES, pkpo_loo_minus_one
from pkpo_jax.errors import FieldError
from pkpo_jax.metrics import read_metrics
from pkpo_jax.policies import POLICIES
from pkpo_jax.run import make_run
from pkpo_jax.samples import read_samples
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.train import train
from tests.interruptions import LastToken, Near, metrics_text, text_config

NUM_STEPS, NUM_PROMPTS, NUM_SAMPLES, LARGEST, TARGET, MEMORY = 9, 4, 8, 4, 0.5, 3.0


class Distances(Near):
  """A letter at a distance of 0, 6 or 12 is right; the judge fails at one letter and one prompt."""

  judge_fails = True

  def verify(self, problem, completion):
    if self.judge_fails and ('e' in completion or problem == 'h'):
      return Verdict('unjudged')
    distance = 6 * (ord(problem) % 3)
    is_right = any(abs(ord(letter) - ord(problem)) <= distance for letter in completion)
    return Verdict('right' if is_right else 'wrong', completion)


@pytest.fixture(scope='module', autouse=True)
def parts():
  """Makes the task and the policy known to configs."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(TASKS, 'near', Distances)
    patch.setitem(POLICIES, 'last_token', LastToken)
    yield


def _config(steps_ahead=0, **overrides):
  config = text_config()
  config.update_from_flattened_dict(
    {
      'num_train_steps': NUM_STEPS,
      'rollout.num_prompts': NUM_PROMPTS,
      'rollout.num_samples': NUM_SAMPLES,
      'rollout.steps_ahead': steps_ahead,
      'advantage.name': 'pkpo_loo_minus_one',
      'advantage.k': LARGEST,
      'loss.name': 'ppo' if steps_ahead else 'reinforce',
      'optimizer.decay': 'constant',
      'eval.every': 100,
      'checkpoint.every': 3,
      'checkpoint.best_metric': None,
      'checkpoint.max_to_keep': 5,
      'log.tensorboard': False,
      'log.samples_per_step': NUM_PROMPTS * NUM_SAMPLES,
    }
  )
  config.advantage.schedule = {'name': 'by_pass_rate', 'target': TARGET, 'memory': MEMORY}
  config.update_from_flattened_dict(overrides)
  return config


@pytest.fixture(scope='module', params=[0, 1], ids=['at_once', 'ahead'])
def whole(request, parts, tmp_path_factory):
  """The number of steps ahead, and the workdir of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp('whole')
  train(_config(request.param), workdir)
  return request.param, workdir


def _expected_k(visits):
  """Returns the k that visits, (right, judged) each, in order, give to the next one."""
  right = judged = 0.0
  for num_right, num_judged in visits:
    right = right * (1 - 1 / MEMORY) + num_right
    judged = judged * (1 - 1 / MEMORY) + num_judged
  rate = right / judged if judged else 0.0
  return next((k for k in range(1, LARGEST) if 1 - (1 - rate) ** k >= TARGET), LARGEST)


def test_each_prompt_gets_the_k_of_its_samples_in_the_steps_before(whole):
  _, workdir = whole
  samples, visits, kinds = read_samples(workdir, 'train'), collections.defaultdict(list), set()
  mean_ks = [line['train/k'] for line in read_metrics(workdir) if 'train/k' in line]
  assert len(samples) == NUM_STEPS * NUM_PROMPTS * NUM_SAMPLES
  for step in range(NUM_STEPS):
    groups = collections.defaultdict(list)
    for sample in samples:
      if sample['step'] == step:
        groups[sample['group']].append(sample)
    ks, seen = [], []
    for group in groups.values():
      problem = group[0]['prompt_id']
      expected = _expected_k(visits[problem])
      assert {sample['k'] for sample in group} == {expected}
      successes = [sample['success'] for sample in group if sample['success'] is not None]
      rewards = np.array([bool(sample['success']) for sample in group], np.float32)
      where = np.array([sample['success'] is not None for sample in group])
      advantages = pkpo_loo_minus_one(rewards, k=jnp.int32(expected), where=where)
      np.testing.assert_allclose([x['advantage'] for x in group], advantages, rtol=1e-5, atol=1e-6)
      kinds.add((len(visits[problem]) > 0, expected, len(successes) < NUM_SAMPLES))
      seen += [(problem, (sum(successes), len(successes)))] if successes else []
      ks.append(expected)
    for problem, visit in seen:
      visits[problem].append(visit)
    assert mean_ks[step] == pytest.approx(np.mean(ks), rel=1e-6)
  assert {k for was_seen, k, _ in kinds if was_seen} == {1, 2, 3, 4}
  assert {k for was_seen, k, _ in kinds if not was_seen} == {LARGEST}
  assert {is_masked for *_, is_masked in kinds} == {False, True}


@pytest.mark.parametrize('stop_at', [3, 6])
def test_a_resumed_run_chooses_the_same_ks(stop_at, whole, tmp_path):
  steps_ahead, workdir = whole
  # As if killed after that checkpoint.
  run = shutil.copytree(workdir, tmp_path / 'run')
  for path in (run / 'checkpoints').iterdir():
    if int(path.name) > stop_at:
      shutil.rmtree(path)
  train(_config(steps_ahead), run)
  assert metrics_text(run) == metrics_text(workdir)
  samples = [(folder / 'samples/train.jsonl').read_bytes() for folder in (run, workdir)]
  assert samples[0] == samples[1]
  ks = {x['k'] for x in read_samples(run, 'train') if x['step'] >= stop_at}
  assert len(ks) > 1, 'those of an empty tally would be one'


def test_no_k_compiles_anything_anew(tmp_path, monkeypatch):
  traced = []

  def watched(rewards, *, k, where=None):
    if isinstance(k, jax.core.Tracer):
      traced.append(k.shape)
    return pkpo_loo_minus_one(rewards, k=k, where=where)

  monkeypatch.setitem(ADVANTAGES, 'pkpo_loo_minus_one', watched)
  monkeypatch.setattr(Distances, 'judge_fails', False)  # With a mask it is another program.
  train(_config(), tmp_path)
  assert len({x['k'] for x in read_samples(tmp_path, 'train')}) > 1
  assert traced == [(NUM_PROMPTS,)]


def test_demonstrations_have_no_pass_rates(tmp_path, monkeypatch):
  class OfDemonstrations(LastToken):
    def log_probs_and_entropy(self, params, rollout):
      last = rollout.prompt_tokens[:, -1:]
      return super().log_probs_and_entropy(params, rollout.replace(prompt_tokens=last))

  monkeypatch.setitem(POLICIES, 'last_token', OfDemonstrations)
  monkeypatch.setattr(Distances, 'demonstrate', lambda self, problem, rng: problem)
  train(_config(**{'rollout.source': 'demonstrations', 'num_train_steps': 2}), tmp_path)
  assert {x['k'] for x in read_samples(tmp_path, 'train')} == {LARGEST}


def test_prompts_that_do_not_come_again_are_refused():
  config = bandit.get_config('hidden_answer')
  config.advantage.schedule = {'name': 'by_pass_rate'}
  with pytest.raises(FieldError) as raised:
    make_run(config)
  assert str(raised.value) == (
    'advantage.schedule.name: expected one that looks at the step alone, as the task '
    "'hidden_answer' has new prompts in each step, got 'by_pass_rate'."
  )


def test_samples_that_are_not_right_or_wrong_are_refused(monkeypatch):
  monkeypatch.setattr(Distances, 'objectives', ('max@k',))
  with pytest.raises(
    FieldError, match="schedule.name: .* as the task 'near' has samples that are not right or wrong"
  ):
    make_run(_config())


def test_an_advantage_that_takes_one_k_is_refused():
  with pytest.raises(
    FieldError,
    match='advantage.name: expected one that takes a k for each prompt, with '
    "advantage.schedule.name 'by_pass_rate', got 'passk_adaptive'",
  ):
    make_run(_config(**{'advantage.name': 'passk_adaptive'}))


def test_an_advantage_has_to_be_defined_for_all_ks_up_to_the_largest():
  config = _config(**{'advantage.name': 'order_statistic'})
  with config.unlocked():
    config.advantage.rank_weights = (0.0, 0.0, 0.0, 1.0)
  with pytest.raises(FieldError, match='advantage.rank_weights: expected k = 1 numbers'):
    make_run(config)
  config.advantage.schedule = {'name': 'constant'}
  make_run(config)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('target', 1, 'advantage.schedule.target: expected above 0 and below 1, got 1.0'),
    ('memory', 0, 'advantage.schedule.memory: expected at least 1, got 0.0'),
    ('memory', 'all', "advantage.schedule.memory: expected float, got 'all' of type str"),
    ('half', 1, r'advantage.schedule.half: unknown field.*memory.*target'),
  ],
)
def test_wrong_fields_are_named(field, value, message):
  config = _config()
  config.advantage.schedule = {'name': 'by_pass_rate', field: value}
  with pytest.raises(FieldError, match=message):
    make_run(config)

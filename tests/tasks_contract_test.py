"""Every task keeps the contract of tasks, with a policy of its kind, put together as in a run."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import default
from pkpo_jax.curves import curve
from pkpo_jax.errors import FieldError
from pkpo_jax.policies import POLICIES, Policy
from pkpo_jax.run import make_run
from pkpo_jax.settings import build
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.base import Task
from pkpo_jax.tasks.grades import Verdict, outcomes_of
from pkpo_jax.tokenizers import CharacterTokenizer
from tests.datasets_sources import arc_task, write_arc, write_json
from tests.gemma_cases import SMALL, name_preset

NUM_PROMPTS, NUM_SAMPLES, KS = 4, 3, (1, 2, 3)
KEY = jax.random.key(0)

POLICY_OF = {'text': 'language_model', 'arms': 'softmax_bandit', 'numbers': 'gaussian'}
# Changes of the defaults, for small problems. A task that is small by default needs no line.
CASES = {
  'arc': {'easy': False, 'prompt_format': 'plain'},
  'countdown': {'num_train': 20, 'num_held_out': 6},
  'hidden_answer_text': {'num_answers': 3, 'answer_length': 2},
  'maze': {'num_train': 20, 'num_held_out': 6, 'size': 3, 'min_moves': 2, 'max_moves': 4},
}
# Their verifiers are processes; see the tests of problems, of JSON lines and of puzzles.
WITH_PROCESSES = {'code_problems', 'jsonl_problems', 'math_problems', 'puzzles'}


@dataclasses.dataclass
class Case:
  """A task with a policy, and what they have made of some prompts."""

  name: str
  task: Task
  policy: Policy
  params: dict

  def __post_init__(self):
    self.prompts = self.task.prompts(0, NUM_PROMPTS, KEY)
    sample = jax.jit(self.policy.sample, static_argnums=2)
    self.sampled = sample(self.params, self.prompts, NUM_SAMPLES, KEY)
    self.rollout = self.task.trim(self.sampled)
    self.grades = self.task.grade(self.prompts, self.rollout, KEY)


@pytest.fixture(scope='module', params=sorted(TASKS.keys() - WITH_PROCESSES))
def case(request, tmp_path_factory):
  name, config = request.param, default.get_config()
  config.task = default.task(name, **CASES.get(name, {}))
  if name == 'arc':
    folder = tmp_path_factory.mktemp('arc')
    write_json(folder / 'evaluation' / 'ff111111.json', arc_task())
    config.task.update(source=write_arc(folder), data_dir=str(folder / 'data'))
  config.policy = default.policy(POLICY_OF[TASKS[name].completions])
  config.rollout.num_prompts, config.rollout.num_samples = NUM_PROMPTS, NUM_SAMPLES
  config.advantage.k, config.eval.num_prompts = 2, 2
  with pytest.MonkeyPatch.context() as patched:
    name_preset(patched, dataclasses.replace(SMALL, num_embed=128))
    if TASKS[name].completions == 'text':
      config.policy.preset = 'small'
    run = make_run(config)
  with run.task:
    yield Case(name, run.task, run.policy, run.policy.init(KEY))


def assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def is_same(first, second):
  return jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_cases_are_of_tasks():
  assert CASES.keys() | WITH_PROCESSES <= TASKS.keys()


def test_what_a_task_says_of_itself(case):
  task = case.task
  assert isinstance(task, TASKS[case.name]) and isinstance(task, Task)
  assert task.objectives in (('pass@k',), ('max@k',), ('pass@k', 'max@k'))
  low, high = task.reward_range
  assert low < high
  assert (task.num_problems is None) == (task.num_held_out is None)
  assert (task.fingerprint is None) == (task.num_problems is None)
  kinds = {policy.completions for policy in POLICIES.values()}
  assert task.completions == case.policy.completions
  assert task.completions in kinds


def check_prompts(task, prompts, num_prompts):
  ids, tokens, mask = (np.asarray(x) for x in (prompts.ids, prompts.tokens, prompts.mask))
  assert (ids.shape, ids.dtype) == ((num_prompts,), np.int32)
  assert tokens.shape == mask.shape == (num_prompts, tokens.shape[1])
  assert (tokens.dtype, mask.dtype) == (np.int32, bool)
  assert mask.any(axis=1).all()
  # Padding is on the left, so that the last token is one.
  assert (np.diff(mask.astype(int), axis=1) >= 0).all() and mask[:, -1].all()
  for leaf in jax.tree.leaves(prompts.hidden):
    assert len(leaf) == num_prompts
  if task.completions == 'text':
    # Everything that the policy reads is under the mask: the text with its beginning.
    for row, has_token in zip(tokens, mask, strict=True):
      ids = row[has_token].tolist()
      assert ids == [task.tokenizer.bos_id, *task.tokenizer.encode(task.tokenizer.decode(ids))]


def test_prompts(case):
  task = case.task
  check_prompts(task, case.prompts, NUM_PROMPTS)
  check_prompts(task, task.prompts(3, 2, KEY), 2)
  assert_same(task.prompts(0, NUM_PROMPTS, KEY), case.prompts)
  if case.name != 'parabola':  # It has one prompt.
    others = [task.prompts(step, NUM_PROMPTS, jax.random.key(7)) for step in range(4)]
    assert not all(is_same(case.prompts, other) for other in others)
    assert not all(is_same(others[0], other) for other in others[1:])
  if task.num_problems is not None:
    ids = [task.prompts(step, task.num_problems, KEY).ids.tolist() for step in range(2)]
    assert sorted(ids[0]) == sorted(ids[1]) == list(range(task.num_problems))


def test_held_out_prompts(case):
  task = case.task
  num_prompts = task.num_held_out or NUM_PROMPTS
  prompts = task.held_out(num_prompts, KEY)
  check_prompts(task, prompts, num_prompts)
  assert_same(task.held_out(num_prompts, KEY), prompts)
  other = task.held_out(num_prompts, jax.random.key(1))
  if task.num_held_out is None:
    assert is_same(other, prompts) == (case.name == 'parabola')
    return
  assert_same(other, prompts)
  assert prompts.ids.tolist() == [task.num_problems + i for i in range(num_prompts)]
  with pytest.raises(FieldError, match=f'at most task.num_held_out = {num_prompts}') as error:
    task.held_out(num_prompts + 1, KEY)
  assert error.value.field == 'eval.num_prompts'


def test_trim_only_takes_tokens_off_the_end(case):
  before, after = (np.asarray(x.completion_mask) for x in (case.sampled, case.rollout))
  assert_same(case.rollout.replace(completion_mask=case.sampled.completion_mask), case.sampled)
  assert (after <= before).all() and after[..., 0].all()
  assert (np.diff(after.astype(int), axis=-1) <= 0).all()
  assert case.policy.max_new_tokens == after.shape[-1]
  assert_same(case.task.trim(case.rollout), case.rollout)


def check_grades(task, grades, num_samples):
  rewards, shape = np.asarray(grades.rewards), (NUM_PROMPTS, num_samples)
  assert (rewards.shape, rewards.dtype) == (shape, np.float32)
  where = np.ones(shape, bool) if grades.where is None else np.asarray(grades.where)
  assert (where.shape, where.dtype) == (shape, bool)
  low, high = task.reward_range
  assert (low <= rewards[where]).all() and (rewards[where] <= high).all()
  assert (grades.successes is not None) == ('pass@k' in task.objectives)
  if grades.successes is not None:
    successes = np.asarray(grades.successes)
    assert (successes.shape, successes.dtype) == (shape, np.float32)
    assert set(np.unique(successes)) <= {0, 1}
    if task.objectives == ('pass@k',):
      np.testing.assert_array_equal(successes[where], rewards[where])
  if grades.verdicts is not None:
    kinds = [[verdict.is_success for verdict in group] for group in grades.verdicts]
    np.testing.assert_array_equal(kinds, grades.successes)
    assert isinstance(grades.verdicts[0][0], Verdict)
  for name, outcomes in outcomes_of(grades, task.objectives).items():
    values = np.asarray(curve(outcomes, KS, grades.where))
    assert np.isfinite(values).all(), name


def test_grades(case):
  check_grades(case.task, case.grades, NUM_SAMPLES)
  again = case.task.grade(case.prompts, case.rollout, KEY)
  assert_same(again[:3], case.grades[:3])
  assert again.verdicts == case.grades.verdicts
  # On the host as on the device.
  on_host = case.task.grade(*jax.device_get((case.prompts, case.rollout)), KEY)
  assert_same(on_host[:3], case.grades[:3])


def test_demonstrations(case):
  task, num_samples, length = case.task, 3, 24
  if type(task).demonstrations is Task.demonstrations:
    for ask in (
      lambda: task.demonstrations(case.prompts, num_samples, length, KEY),
      lambda: task.check_demonstrations(length, KEY),
    ):
      with pytest.raises(FieldError, match=f'{type(task).__name__} has no demonst') as error:
        ask()
      assert error.value.field == 'rollout.source'
    return
  task.check_demonstrations(length, KEY)
  rollout = task.demonstrations(case.prompts, num_samples, length, KEY)
  assert_same(task.demonstrations(case.prompts, num_samples, length, KEY), rollout)
  shape = (NUM_PROMPTS, num_samples, length)
  assert rollout.completions.shape == rollout.completion_mask.shape == shape
  assert (rollout.sampling_log_probs == np.zeros(shape, np.float32)).all()
  assert_same(rollout.prompt_tokens, case.prompts.tokens)
  assert_same(rollout.prompt_mask, case.prompts.mask)
  assert_same(task.trim(rollout), rollout)
  assert not task.is_truncated(rollout).any()
  check_grades(task, task.grade(case.prompts, rollout, KEY), num_samples)
  with pytest.raises(FieldError) as error:
    task.check_demonstrations(1, KEY)
  assert error.value.field == 'policy.max_new_tokens'


def test_truncation_and_texts(case):
  task = case.task
  is_truncated = task.is_truncated(case.rollout)
  if is_truncated is not None:
    assert (is_truncated.shape, is_truncated.dtype) == ((NUM_PROMPTS, NUM_SAMPLES), bool)
    # A policy that was not trained hardly ever stops in time.
    assert is_truncated.any()
  prompts, completions = task.texts(case.prompts, case.rollout)
  assert len(prompts) == len(completions) == NUM_PROMPTS
  assert all(isinstance(text, str) and text for text in prompts)
  for group in completions:
    assert len(group) == NUM_SAMPLES
    assert all(isinstance(text, str) for text in group)
  json.dumps([prompts, completions])
  if task.completions == 'text':
    decode = task.tokenizer.decode
    assert prompts == [decode(row) for row in np.asarray(case.prompts.tokens)]
  else:
    values = np.asarray(case.rollout.completions)[..., 0]
    np.testing.assert_allclose(np.asarray(completions, float), values, rtol=1e-5)


def test_exact_and_best_objective(case):
  task = case.task
  exact = jax.jit(lambda params: task.exact_objective(case.policy, params, KS))(case.params)
  best = [task.best_objective(case.policy, k) for k in KS]
  if exact is None:
    assert best == [None] * len(KS)
    return
  low, high = task.reward_range
  assert exact.shape == (len(KS),)
  assert (np.diff([low, *exact, high]) >= 0).all()
  assert (np.asarray(exact) <= np.asarray(best) + 1e-6).all()
  assert (np.diff([low, *best, high]) >= 0).all()


def test_close_may_come_twice(case):
  with case.task as task:
    assert task is case.task
  task.close()


@pytest.mark.parametrize('kind', POLICY_OF)
def test_a_policy_of_another_kind_is_refused_by_name(kind):
  config = default.get_config()
  config.task = default.task('copy' if kind != 'text' else 'parabola')
  config.policy = default.policy(POLICY_OF[kind])
  suited = 'language_model' if kind != 'text' else 'gaussian'
  with pytest.raises(ValueError, match=rf"policy.name: expected one of \['{suited}'\] for this"):
    make_run(config)


def test_a_tokenizer_is_for_text_alone():
  config = default.get_config()
  with config.unlocked():
    config.policy.tokenizer = default.tokenizer('characters')
  with pytest.raises(ValueError, match='policy.tokenizer: expected none'):
    make_run(config)
  config.task, config.policy = default.task('copy'), default.policy('language_model')
  config.policy.tokenizer.name = 'letters'
  with pytest.raises(ValueError, match="policy.tokenizer.name: .*'characters'.*'letters'"):
    make_run(config)


def test_a_task_reads_and_writes_with_the_policys_tokenizer():
  tokenizer = CharacterTokenizer()
  task = build('task', {'name': 'copy'}, TASKS, tokenizer=tokenizer)
  assert task.tokenizer is tokenizer

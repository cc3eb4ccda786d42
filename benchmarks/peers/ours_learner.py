"""pkpo_jax: its training loop, whole and in pieces."""

import copy
import pathlib
import tempfile
import time

import jax
import numpy as np

import pkpo_jax.session
import pkpo_jax.train
from benchmarks import packing
from benchmarks.peers import gate, ours, tiny_gemma2
from configs import default
from pkpo_jax import sharding
from pkpo_jax.curves import group_metrics
from pkpo_jax.keys import step_keys
from pkpo_jax.metrics import MetricWriter
from pkpo_jax.policies import POLICIES
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.run import jit_train_step, make_init, make_run
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.base import DrawnTask
from pkpo_jax.tasks.grades import Grades, check_finite, outcomes_of
from pkpo_jax.tasks.text import host_rng
from pkpo_jax.types import Prompts

COMPLETIONS = 'tokens'  # Of no tokenizer.


class Task(DrawnTask):
  """Random prompts; the reward is worked out on the host: whether most tokens are small."""

  completions = COMPLETIONS
  num_tokens = 0  # Of the completions that were graded last.

  def __init__(self, vocab_size: int, prompt_length: int):
    self._vocab_size, self._prompt_length = vocab_size, prompt_length

  def draw(self, num_prompts, key):
    rng = host_rng(key)
    shape = (num_prompts, self._prompt_length)
    tokens = rng.integers(1, self._vocab_size, shape).astype(np.int32)
    ids = np.arange(num_prompts, dtype=np.int32)
    return Prompts(ids=ids, tokens=tokens, mask=np.ones(shape, bool), hidden=())

  def grade(self, prompts, rollout, key):
    tokens = np.asarray(rollout.completions)
    Task.num_tokens = int(np.sum(rollout.completion_mask))
    is_right = (np.mean(tokens < self._vocab_size / 2, axis=-1) > 0.5).astype(np.float32)
    return Grades(rewards=is_right, successes=is_right)


class Policy(LanguageModel):
  """LanguageModel that starts from the weights of the benchmark.

  Where the workload has lengths, the stop token is forced where a completion has its length: while
  sampling alone, as the update is given the tokens.
  """

  completions = COMPLETIONS

  def init(self, key):
    return ours.params(self.workload)

  def sample(self, params, prompts, num_samples, key):
    if self.workload['lengths'] is None:
      return super().sample(params, prompts, num_samples, key)
    # An evaluation has fewer prompts and samples.
    lengths = np.array(self.workload['lengths'])[: len(prompts.ids), :num_samples]
    forced = copy.copy(self)
    forced.model = packing.ForcedLengths(self.model, lengths, tiny_gemma2.STOP_ID)
    return LanguageModel.sample(forced, params, prompts, num_samples, key)


def config(workload):
  """Returns the config of a training run: the defaults, but for what the workload says."""

  class OfWorkload(Policy):
    """The policy of this workload, which is no part of the config."""

    def __init__(self, task):
      stop_id = tiny_gemma2.NEVER if workload['lengths'] is None else tiny_gemma2.STOP_ID
      num_packings = workload['num_packings']
      ours.policy(workload, super().__init__, stop_id=stop_id, num_packings=num_packings)
      self.workload = workload

  TASKS['benchmark'], POLICIES['benchmark'] = Task, OfWorkload
  run = default.get_config()
  run.task = {
    'name': 'benchmark',
    'vocab_size': workload['sizes']['vocab_size'],
    'prompt_length': workload['prompt_length'],
  }
  run.policy = {'name': 'benchmark'}
  run.num_train_steps = 10**4
  run.rollout.num_prompts = workload['num_prompts']
  run.rollout.num_samples = workload['num_samples']
  run.advantage.k = workload['num_samples'] // 2
  run.loss.update(workload['loss'])
  run.optimizer.learning_rate = workload['learning_rate']
  run.eval.num_prompts, run.eval.num_samples = 2, 2
  run.eval.ks = (1, 2)
  run.eval.every = run.checkpoint.every = 10**4
  run.log.every = 1
  return run


class Learner:
  """pkpo_jax.train.train, with a line of metrics every step: one call is one step of its loop."""

  about = ours.ABOUT

  def __init__(self, workload):
    self._workdir = tempfile.TemporaryDirectory()
    self._gate = gate.Gate()
    self._progress = pkpo_jax.session.progress
    pkpo_jax.session.progress = lambda *_: _Turnstile(self._gate)
    run = config(workload)
    self._gate.start(lambda: pkpo_jax.train.train(run, self._workdir.name))

  def __call__(self):
    self._gate.step()
    return {'num_tokens': Task.num_tokens}

  def close(self):
    self._gate.close()
    pkpo_jax.session.progress = self._progress
    self._workdir.cleanup()


class _Turnstile:
  """In place of the progress bar, which the loop opens first and moves after each step."""

  def __init__(self, loop_gate: gate.Gate):
    self._gate = loop_gate

  def __enter__(self):
    self.update()
    return self

  def __exit__(self, *_):
    pass

  def note(self, text):
    pass

  def update(self):
    if not self._gate.is_open():
      raise SystemExit


class Phases:
  """The same step by hand, waiting after each part; a call returns the seconds of each.

  Waiting keeps the host from working ahead of the device, so the sum is no less than a step's.
  """

  about = ours.ABOUT

  def __init__(self, workload):
    self._run = run = make_run(config(workload))
    settings = run.settings
    mesh = sharding.make_mesh(settings.mesh)
    self._over_prompts = sharding.over_prompts(mesh)
    self._train_step = jit_train_step(run.policy, run.optimizer, run.settings.loss, mesh)
    self._state, self._frozen = make_init(run.policy, run.optimizer, mesh)(jax.random.key(0))
    self._sample = jax.jit(run.policy.sample, static_argnums=2, out_shardings=self._over_prompts)
    self._advantages = jax.jit(run.advantage_fn, out_shardings=self._over_prompts)
    self._group_metrics = jax.jit(group_metrics, static_argnums=4)
    self._workdir = tempfile.TemporaryDirectory()
    workdir = pathlib.Path(self._workdir.name)
    self._writer = MetricWriter(workdir, 0, settings.log.tensorboard).__enter__()
    self._step = 0

  def close(self):
    self._writer.__exit__(None, None, None)
    self._workdir.cleanup()

  def __call__(self):
    clock = [time.perf_counter()]

    def tick(arrays):
      jax.block_until_ready(arrays)
      clock.append(time.perf_counter())

    run, settings, step = self._run, self._run.settings, self._step
    train_key = jax.random.key(0)
    keys = step_keys(train_key, step)
    params = self._frozen | self._state.params
    prompts = run.task.prompts(step, settings.rollout.num_prompts, train_key)
    prompts = jax.device_put(prompts, self._over_prompts)
    tick((keys, prompts))
    rollout = self._sample(params, prompts, settings.rollout.num_samples, keys.sample)
    tick(rollout)
    rollout = run.task.trim(rollout)
    grades = run.task.grade(prompts, rollout, keys.grade)
    check_finite(grades, prompts.ids, step)
    rewards, where = jax.device_put((grades.rewards, grades.where), self._over_prompts)
    k = run.k_schedule(step)
    tick((rewards, k))
    advantages = self._advantages(params, rollout, rewards, where, k, keys.advantages)
    tick(advantages)
    self._state, metrics = self._train_step(
      self._state, self._frozen, rollout, advantages, keys.update
    )
    tick((self._state, metrics))
    outcomes = outcomes_of(grades, run.task.objectives)
    metrics |= self._group_metrics(outcomes, rewards, where, k, settings.eval.ks)
    self._writer.write(step, {f'train/{name}': value for name, value in metrics.items()})
    tick(metrics)
    self._step += 1
    names = ('prompts', 'rollout', 'rewards', 'advantages', 'update', 'metrics')
    return dict(zip(names, np.diff(clock).tolist(), strict=True))

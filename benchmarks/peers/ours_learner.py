"""pkpo_jax: its training loop, whole and in pieces."""

import pathlib
import tempfile
import time

import jax
import numpy as np

import pkpo_jax.train
from benchmarks.peers import gate, ours
from configs import default
from pkpo_jax import sharding
from pkpo_jax.metrics import MetricWriter
from pkpo_jax.policies import POLICIES
from pkpo_jax.policies.language_model import Gemma2Policy
from pkpo_jax.tasks import TASKS
from pkpo_jax.train_step import check_rewards, reward_metrics
from pkpo_jax.types import Prompts


class Task:
  """Random prompts; the reward is worked out on the host: whether most tokens are small."""

  is_binary = True

  def __init__(self, vocab_size: int, prompt_length: int):
    self._vocab_size, self._prompt_length = vocab_size, prompt_length

  def prompts(self, step, num_prompts, key):
    rng = np.random.default_rng(int(step))
    shape = (num_prompts, self._prompt_length)
    tokens = rng.integers(1, self._vocab_size, shape).astype(np.int32)
    return Prompts(ids=np.arange(num_prompts, dtype=np.int32), tokens=tokens, hidden=None)

  def rewards(self, prompts, rollout, key):
    tokens = np.asarray(rollout.completions)
    return (np.mean(tokens < self._vocab_size / 2, axis=-1) > 0.5).astype(np.float32)


class Policy(Gemma2Policy):
  """Gemma2Policy that starts from the weights of the benchmark."""

  def init(self, key):
    return ours.params(self.workload)


def config(workload):
  """Returns the config of a training run: the defaults, but for task, policy and sizes."""

  def make_policy(task):
    policy = ours.policy(workload, Policy)
    policy.workload = workload
    return policy

  TASKS['benchmark'], POLICIES['benchmark'] = Task, make_policy
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
    self._progress = pkpo_jax.train.progress
    pkpo_jax.train.progress = lambda *_: _Turnstile(self._gate)
    run = config(workload)
    self._gate.start(lambda: pkpo_jax.train.train(run, self._workdir.name))

  def __call__(self):
    self._gate.step()

  def close(self):
    self._gate.close()
    pkpo_jax.train.progress = self._progress
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

  def update(self):
    if not self._gate.is_open():
      raise SystemExit


class Phases:
  """The same step by hand, waiting after each part; a call returns the seconds of each.

  Waiting keeps the host from working ahead of the device, so the sum is no less than a step's.
  """

  about = ours.ABOUT

  def __init__(self, workload):
    self._run = run = pkpo_jax.train.make_run(config(workload))
    settings, policy = run.settings, run.policy
    mesh = sharding.make_mesh(settings.mesh)
    self._over_prompts = sharding.over_prompts(mesh)
    init, self._train_step = pkpo_jax.train.compile_step(policy, run.optimizer, settings.loss, mesh)
    self._state, self._frozen = init(jax.random.key(0))
    self._sample = jax.jit(policy.sample, static_argnums=2, out_shardings=self._over_prompts)
    self._advantages = jax.jit(run.advantage_fn, out_shardings=self._over_prompts)
    self._group_metrics = jax.jit(reward_metrics, static_argnums=(3, 4))
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
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), 5)
    params = self._frozen | self._state.params
    prompts = run.task.prompts(step, settings.rollout.num_prompts, keys[0])
    prompts = jax.device_put(prompts, self._over_prompts)
    tick((keys, prompts))
    rollout = self._sample(params, prompts, settings.rollout.num_samples, keys[1])
    tick(rollout)
    rewards = jax.device_put(run.task.rewards(prompts, rollout, keys[2]), self._over_prompts)
    check_rewards(rewards, prompts.ids, step)
    k = run.k_schedule(step)
    tick((rewards, k))
    advantages = self._advantages(params, rollout, rewards, k, keys[3])
    tick(advantages)
    self._state, metrics = self._train_step(self._state, self._frozen, rollout, advantages, keys[4])
    tick((self._state, metrics))
    metrics |= self._group_metrics(rewards, None, k, settings.eval.ks, run.task.is_binary)
    self._writer.write(step, {f'train/{name}': value for name, value in metrics.items()})
    tick(metrics)
    self._step += 1
    names = ('prompts', 'rollout', 'rewards', 'advantages', 'update', 'metrics')
    return dict(zip(names, np.diff(clock).tolist(), strict=True))

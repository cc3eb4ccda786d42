"""Rollouts that are sampled a step ahead: by which policy, resumed, extended and refused."""

import shutil

import jax
import numpy as np
import pytest

from configs import bandit
from pkpo_jax.errors import FieldError
from pkpo_jax.keys import run_keys, step_keys
from pkpo_jax.metrics import read_metrics
from pkpo_jax.run import jit_train_step, make_run
from pkpo_jax.train import train
from tests.interruptions import metrics_text

SMALL = {
  'num_train_steps': 6,
  'rollout.num_prompts': 8,
  'rollout.num_pieces': 2,
  'rollout.steps_ahead': 1,
  'loss.name': 'ppo',
  'optimizer.decay_steps': 100,
  'eval.every': 3,
  'eval.num_prompts': 8,
  'checkpoint.every': 2,
  'checkpoint.max_to_keep': 5,
  'log.every': 1,
  'log.tensorboard': False,
}


def _config(**overrides):
  config = bandit.get_config('hidden_answer')
  config.update_from_flattened_dict(SMALL | overrides)
  return config


@pytest.mark.parametrize('steps_ahead', [0, 1])
def test_each_step_learns_from_samples_of_the_policy_that_the_config_says(
  steps_ahead, tmp_path, monkeypatch
):
  seen = []

  def watched(*arguments):
    step = jit_train_step(*arguments)

    def train_step(state, frozen, rollout, advantages, key):
      seen.append(jax.device_get((state.params, rollout)))
      return step(state, frozen, rollout, advantages, key)

    return train_step

  monkeypatch.setattr('pkpo_jax.train.jit_train_step', watched)
  config = _config(**{'rollout.steps_ahead': steps_ahead, 'rollout.num_pieces': 1})
  train(config, tmp_path)
  run, key = make_run(config), run_keys(jax.random.key(0)).train
  assert len(seen) == 6
  differ = 0
  for step, (_, rollout) in enumerate(seen):
    of = lambda s, step=step: run.policy.sample(
      seen[max(s, 0)][0], run.task.prompts(step, 8, key), 16, step_keys(key, step).sample
    )
    expected, other = of(step - steps_ahead), of(step - 1 + steps_ahead)
    np.testing.assert_array_equal(rollout.completions, expected.completions)
    np.testing.assert_allclose(rollout.sampling_log_probs, expected.sampling_log_probs, rtol=1e-6)
    differ += not np.allclose(expected.sampling_log_probs, other.sampling_log_probs, rtol=1e-5)
  assert differ == 5, 'the policies of all steps but the first differ from those before'
  ratios = [x['train/log_ratio_max'] for x in read_metrics(tmp_path) if 'train/loss' in x]
  assert all((ratio > 1e-3) == (steps_ahead == 1) for ratio in ratios[1:]), ratios


@pytest.mark.parametrize('stop_at', [2, 6])
def test_a_resumed_run_goes_on_with_what_was_sampled_ahead(stop_at, tmp_path):
  train(_config(num_train_steps=8), tmp_path / 'whole')
  # As if killed after that checkpoint; a run that is over is extended.
  train(_config(), tmp_path / 'run')
  for path in (tmp_path / 'run/checkpoints').iterdir():
    if int(path.name) > stop_at:
      shutil.rmtree(path)
  train(_config(num_train_steps=8), tmp_path / 'run')
  whole, run = (metrics_text(tmp_path / name).splitlines() for name in ('whole', 'run'))
  # The shorter run was evaluated at its end, which is none of the longer one's.
  assert [line for line in run if '"step": 6, "eval' not in line] == [
    line for line in whole if '"step": 6, "eval' not in line
  ]


def test_without_a_correction_it_is_refused():
  with pytest.raises(
    FieldError, match=r"rollout.steps_ahead: expected 0, or 1 with loss.name 'ppo'"
  ):
    make_run(_config(**{'loss.name': 'reinforce'}))
  config = _config(**{'loss.name': 'reinforce', 'advantage.name': 'max_at_k_off_policy'})
  assert make_run(config).settings.rollout.steps_ahead == 1
  with pytest.raises(FieldError, match='steps_ahead: expected 0 to 1'):
    make_run(_config(**{'rollout.steps_ahead': 2}))

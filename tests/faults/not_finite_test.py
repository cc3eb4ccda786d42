"""Gradients that are NaN: the update is left out and counted, up to a limit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pkpo_jax.metrics import read_metrics
from pkpo_jax.run import jit_train_step
from pkpo_jax.train import train
from tests.faults.cases import make_config
from tests.interruptions import metrics_text


@pytest.fixture
def bad_steps(monkeypatch):
  """Makes the advantages of these steps NaN, and keeps the states around each update."""
  bad, states = set(), []

  def disturbed(*arguments):
    step = jit_train_step(*arguments)

    def train_step(state, frozen, rollout, advantages, key):
      before = jax.device_get((state.params, state.opt_state))
      if int(state.step) in bad:
        advantages = jnp.full_like(advantages, jnp.nan)
      state, metrics = step(state, frozen, rollout, advantages, key)
      states.append((before, jax.device_get((state.params, state.opt_state))))
      return state, metrics

    return train_step

  monkeypatch.setattr('pkpo_jax.train.jit_train_step', disturbed)
  return bad, states


@pytest.mark.parametrize('loss', ['reinforce', 'ppo'])
def test_an_update_that_is_not_finite_is_left_out_and_counted(loss, bad_steps, tmp_path, capfd):
  bad, states = bad_steps
  bad.update({2, 5})
  train(make_config(**{'loss.name': loss}), tmp_path)
  lines = {x['step']: x for x in read_metrics(tmp_path) if 'train/reward_mean' in x}
  counts = [lines[step]['train/skipped_updates'] for step in range(8)]
  assert counts == [0, 0, 1, 1, 1, 2, 2, 2]
  assert 'train/loss' not in lines[2] and 'train/grad_norm' not in lines[2]
  assert 'train/loss' in lines[3]
  for step, (before, after) in enumerate(states):
    is_same = all(map(np.array_equal, *map(jax.tree.leaves, (before[0], after[0]))))
    assert is_same == (step in bad)
  said = capfd.readouterr().err
  assert re.search(
    r'gradient of step 2 is NaN or infinite.*left out.* Prompts of the step: \[', said
  )
  assert 'gradient of step 5' in said


def test_one_too_many_stops_the_run_with_its_prompts_and_the_rerun_is_exact(bad_steps, tmp_path):
  bad, _ = bad_steps
  config = make_config(**{'optimizer.max_skipped_updates': 1})
  train(config, tmp_path / 'whole')
  bad.update({3, 4})
  words = r'gradient of step 4 is NaN.*left out: 2 so far, with .*updates = 1. Prompts .*: \['
  with pytest.raises(FloatingPointError, match=words):
    train(config, tmp_path / 'run')
  saved = sorted(int(x.name) for x in (tmp_path / 'run/checkpoints').iterdir())
  assert saved[-1] == 4  # Step 4 is not saved as done.
  # What was wrong is mended, but the checkpoint knows of step 3, whose update was left out.
  bad.clear()
  train(config, tmp_path / 'run')
  lines = [x for x in read_metrics(tmp_path / 'run') if 'train/loss' in x or 'train/k' in x]
  assert [x['step'] for x in lines] == list(range(8))
  assert lines[-1]['train/skipped_updates'] == 1


def test_a_limit_of_zero_stops_at_the_first(bad_steps, tmp_path):
  bad, _ = bad_steps
  bad.add(7)  # The last step: nothing comes after it that would look.
  with pytest.raises(FloatingPointError, match='gradient of step 7'):
    train(make_config(**{'optimizer.max_skipped_updates': 0}), tmp_path)
  saved = sorted(int(x.name) for x in (tmp_path / 'checkpoints').iterdir())
  assert saved[-1] == 6
  bad.clear()
  train(make_config(**{'optimizer.max_skipped_updates': 0}), tmp_path)
  train(make_config(**{'optimizer.max_skipped_updates': 0}), tmp_path.parent / 'whole')
  assert metrics_text(tmp_path) == metrics_text(tmp_path.parent / 'whole')

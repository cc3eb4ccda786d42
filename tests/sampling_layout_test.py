"""Parameters that are gathered once for a rollout: the same run, with no gathering by token."""

import jax
import numpy as np
import pytest

from pkpo_jax import sharding
from pkpo_jax.keys import run_keys
from pkpo_jax.metrics import read_metrics
from pkpo_jax.planning.hlo import work_of
from pkpo_jax.run import make_init, make_run, make_sampling_layout
from pkpo_jax.train import train
from tests.processes_config import get_config


def _config(gather, **mesh):
  config = get_config()
  config.mesh = {'data': 1, 'fsdp': 1, 'tensor': 1, **mesh, 'gather_for_sampling': gather}
  return config


def _in_loops(text):
  """Returns how many collectives each token takes."""
  once, twice = (
    sum(count for count, _ in work_of(text, trips, operand_bytes=4).collectives.values())
    for trips in (1, 2)
  )
  return twice - once


@pytest.mark.parametrize('tensor', [1, 2])
def test_nothing_is_gathered_for_each_token(tensor):
  counts, drawn = {}, {}
  for gather in (False, True):
    run = make_run(_config(gather, fsdp=4, tensor=tensor))
    mesh = sharding.make_mesh(run.settings.mesh)
    over_prompts = sharding.over_prompts(mesh)
    state, _ = make_init(run.policy, run.optimizer, mesh)(jax.random.key(0))
    params = make_sampling_layout(run, mesh)(state.params)
    prompts = jax.device_put(
      run.task.prompts(0, 8, run_keys(jax.random.key(0)).train), over_prompts
    )
    sample = jax.jit(run.policy.sample, static_argnums=2, out_shardings=over_prompts)
    compiled = sample.lower(params, prompts, 4, jax.random.key(1)).compile()
    counts[gather] = _in_loops(compiled.as_text())
    drawn[gather] = jax.device_get(compiled(params, prompts, jax.random.key(1)))
    kernel = params['weights']['layer_0']['mlp']['down']['kernel']
    shape = kernel.addressable_shards[0].data.shape
    assert np.prod(shape) * (tensor if gather else 4 * tensor) == kernel.size
  assert counts[False] > 5
  assert counts[True] == 0 or tensor > 1 and counts[True] < counts[False]
  np.testing.assert_array_equal(drawn[True].completions, drawn[False].completions)
  np.testing.assert_allclose(
    drawn[True].sampling_log_probs, drawn[False].sampling_log_probs, atol=1e-5
  )


def test_a_run_is_the_same(tmp_path):
  lines = {}
  for gather in (False, True):
    train(_config(gather, fsdp=2), tmp_path / str(gather))
    lines[gather] = [
      {name: value for name, value in line.items() if not name.startswith('time/')}
      for line in read_metrics(tmp_path / str(gather))
    ]
  for ours, theirs in zip(lines[True], lines[False], strict=True):
    assert ours == pytest.approx(theirs, rel=2e-5, abs=2e-6)

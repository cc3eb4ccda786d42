"""Plans: what is counted from shapes, what is read off programs, the command."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import plan_tables
from configs import gemma2_2b_math, llama3_1_8b_math
from pkpo_jax import sharding
from pkpo_jax.errors import FieldError
from pkpo_jax.flags import overridden
from pkpo_jax.planning import estimate
from pkpo_jax.planning.advice import advise
from pkpo_jax.planning.chips import CHIPS
from pkpo_jax.planning.hlo import work_of
from pkpo_jax.planning.programs import compiled, make_subject
from pkpo_jax.settings import MeshSettings

ROOT = Path(__file__).parent.parent
SMALL = {'policy.preset': 'llama_micro', 'rollout.num_pieces': 1, 'policy.remat': True}


def small_config(**changes):
  """Returns a config of a Llama with two layers."""
  config = llama3_1_8b_math.get_config('tiny')
  return overridden(config, SMALL | {k.replace('__', '.'): x for k, x in changes.items()})


@functools.cache
def small_plan(**changes):
  """Returns the config, the subject and the plan."""
  config = small_config(**changes)
  subject = make_subject(config, 32)
  return config, subject, estimate.plan(subject)


def num_bytes(tree):
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_memory_is_that_of_the_program_and_its_parts_add_up():
  _, subject, phases = small_plan(mesh__fsdp=2)
  memory = compiled(subject.update()).memory_analysis()
  whole = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  # Metrics, keys and the prompts, which are tokens alone, are less than a kilobyte apart.
  assert phases['update'].peak == pytest.approx(whole, abs=2048)
  for phase in phases.values():
    assert phase.peak == sum(phase.memory.values())
    assert min(phase.memory.values()) >= 0
  state, _ = subject.state()
  # Over two devices, but for norms and step counts.
  kept = phases['rollout'].memory['parameters'] + phases['rollout'].memory['optimizer state']
  whole = num_bytes((state.params, state.opt_state))
  assert whole / 2 < kept < 0.52 * whole


def test_caches_have_the_models_shapes():
  _, subject, phases = small_plan(mesh__fsdp=2)
  model, rollout = subject.policy.model, subject.settings.rollout
  caches = model.empty_cache(
    rollout.num_prompts, rollout.num_samples, subject.policy.max_new_tokens
  )
  numbers = num_bytes([(layer.keys, layer.values) for layer in caches])
  assert phases['rollout'].memory['completion cache'] == numbers / 2


def test_a_line_through_two_depths_is_near_all_layers():
  changes = {'mesh__fsdp': 2, 'policy__max_new_tokens': 4, 'policy__log_prob_chunk': 2}
  subject = make_subject(small_config(**changes), 16).with_layers(6)
  planned = estimate.update_of(subject, (3, 4))
  whole = estimate.update_of(subject, (6,))
  assert planned.peak == pytest.approx(whole.peak, rel=0.01)
  assert planned.work.flops == pytest.approx(whole.work.flops)
  for name, size in estimate.resident(subject).items():
    assert planned.memory[name] == whole.memory[name] == size


def test_update_of_many_layers_is_compiled_with_fewer():
  of = lambda preset: make_subject(
    overridden(gemma2_2b_math.get_config('tiny'), {'policy.preset': preset}), 32
  )
  assert estimate.update_depths(of('gemma2_tiny')) == (4,)
  assert estimate.update_depths(of('gemma2_27b')) == (14, 20)
  assert estimate.update_depths(of('gemma3_4b')) == (18, 24)
  assert of('gemma3_4b').pattern == 6


def test_loops_count_as_often_as_they_run():
  def fn(x, w):
    known, _ = lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)
    going = lambda carry: (carry[0] < 9) & ~jnp.any(carry[1] > 1e3)
    return lax.while_loop(going, lambda c: (c[0] + 1, jnp.tanh(c[1] @ w[0])), (0, known))[1]

  shapes = (
    jax.ShapeDtypeStruct((48, 32), jnp.float32),
    jax.ShapeDtypeStruct((5, 32, 32), jnp.float32),
  )
  text = jax.jit(fn).lower(*shapes).compile().as_text()
  once, size = 2.0 * 48 * 32 * 32, 2.0 * (48 * 32 + 32 * 32) + 4 * 48 * 32
  work = work_of(text, unknown_trips=9, operand_bytes=2)
  assert (work.flops, work.bytes) == (14 * once, 14 * size)
  assert work.seconds(once, 1e30, 1.0) == pytest.approx(14)
  assert work.seconds(1e30, size, 1.0) == pytest.approx(14)


def test_of_branches_the_costliest_counts():
  def fn(x, w):
    branches = [lambda x, n=n: functools.reduce(jnp.matmul, [w] * n, x) for n in (0, 3, 1)]
    return lax.scan(lambda x, i: (lax.switch(i, branches, x), None), x, jnp.arange(5) % 3)[0]

  shape = jax.ShapeDtypeStruct((32, 32), jnp.float32)
  text = jax.jit(fn).lower(shape, shape).compile().as_text()
  assert work_of(text, unknown_trips=1, operand_bytes=4).flops == 5 * 3 * 2 * 32**3


def test_collectives_are_counted():
  mesh = sharding.make_mesh(MeshSettings(data=1, fsdp=2, tensor=1, gather_for_sampling=False))
  split = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
  product = jax.jit(
    jnp.matmul, in_shardings=(split(None, 'fsdp'), split('fsdp')), out_shardings=split()
  )
  shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  work = work_of(product.lower(shape, shape).compile().as_text(), 1, 4)
  assert work.collectives == {'all-reduce': (1, 4 * 64 * 64)}
  assert work.flops == 2 * 64 * 64 * 32
  assert work.sent == 2 * 4 * 64 * 64


def test_parameters_are_gathered_once_for_a_rollout():
  _, subject, plans = small_plan(mesh__fsdp=2)
  _, _, gathered = small_plan(mesh__fsdp=2, mesh__gather_for_sampling=True)
  before, after = plans['rollout'], gathered['rollout']
  params = num_bytes(subject.state()[0].params)
  assert after.memory['gathered parameters'] == params
  assert after.work.sent == params < before.work.sent
  assert 'gathered parameters' not in before.memory
  assert gathered['update'].peak == plans['update'].peak


def test_what_is_frozen_has_no_state():
  whole = make_subject(small_config(), 32)
  lora = make_subject(small_config(policy__lora_rank=2), 32)
  sizes, of_lora = map(estimate.resident, (whole, lora))
  assert of_lora['frozen parameters'] == sizes['parameters']
  layers = len(lora.policy.model.windows)
  adapters = sum(4 * 2 * sum(x) for x in lora.policy.architecture.linear_sizes.values()) * layers
  assert of_lora['parameters'] == adapters
  assert of_lora['optimizer state'] == pytest.approx(2 * adapters, abs=64)
  assert estimate.gradients(lora) == adapters

  frozen = make_subject(small_config(policy__freeze_embedding=True), 32)
  table = 4 * frozen.policy.architecture.num_embeddings * frozen.policy.architecture.width
  of_frozen = estimate.resident(frozen)
  assert of_frozen['frozen parameters'] == table
  assert of_frozen['parameters'] == sizes['parameters'] - table
  assert sizes['optimizer state'] - of_frozen['optimizer state'] == 2 * table


def test_reference_policy_is_kept():
  sizes = estimate.resident(make_subject(small_config(loss__kl_coef=0.1), 32))
  assert sizes['reference policy'] == sizes['parameters']


def test_advice_names_fields_and_needs_less():
  config, subject, phases = small_plan(mesh__fsdp=2)
  advice = advise(config, subject, phases)
  peak = max(phase.peak for phase in phases.values()) / estimate.GIB
  assert {'loss.num_microbatches', 'policy.max_new_tokens', 'mesh.tensor'} <= {
    field for each in advice for field in each.changes
  }
  for each in advice:
    overridden(config, each.changes)  # Raises for a field that is not there.
    assert each.gib is None or each.gib < peak


@pytest.mark.parametrize(
  ('changes', 'prompt_tokens', 'message'),
  [
    ({}, None, '--prompt_tokens: expected a number of tokens'),
    ({}, 0, '--prompt_tokens: expected at least 1'),
    ({'policy.preset': 'gemma9'}, 8, 'policy.preset: expected one of'),
    ({'policy.preset': None, 'policy.weights': 'nowhere'}, 8, 'policy.preset: expected one of'),
    ({'mesh.fsdp': 3}, 8, 'rollout.num_prompts: expected a multiple of'),
    ({'optimizer.name': 'lion'}, 8, 'optimizer.name: expected one of'),
  ],
)
def test_wrong_fields_are_named(changes, prompt_tokens, message):
  config = overridden(small_config(), changes)
  with pytest.raises(FieldError, match=re.escape(message)):
    make_subject(config, prompt_tokens)


def test_chips_have_plausible_numbers():
  for chip in CHIPS.values():
    assert 10 < chip.hbm_gib < 200
    assert 1e14 < chip.flops < 2e15
    assert 100 < chip.flops / chip.bandwidth < 700
    assert 3 < chip.bandwidth / chip.link < 12


def run_command(*words):
  command = [sys.executable, '-m', 'pkpo_jax.plan', '--config=configs/llama3_1_8b_math.py:tiny']
  return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)


def test_command_takes_overrides_and_says_what_to_change():
  words = ('--devices=4', '--chip=v5e', '--hbm_gib=0.001', '--prompt_tokens=16')
  words += (
    '--config.mesh.fsdp=2',
    '--config.rollout.num_pieces=1',
    '--config.rollout.num_samples=3',
  )
  run = run_command(*words)
  assert run.returncode == 0, run.stderr
  assert 'llama_micro, 2 layers, on 2 devices (data 1 * fsdp 2 * tensor 1), v5e' in run.stdout
  assert '4 prompts of 16 tokens, 3 completions' in run.stdout
  assert 'DOES NOT FIT' in run.stdout
  assert '2 devices are not used' in run.stdout
  assert '--config.policy.lora_rank=16' in run.stdout


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('--chip=v1',), "--chip: expected one of ['a100_80'"),
    ((), '--hbm_gib: expected the memory of a device, or --chip, got neither.'),
    (('--chip=v5e', '--devices=0'), '--devices: expected at least 1, got 0.'),
  ],
)
def test_wrong_flags_are_one_line(words, message):
  run = run_command(*words, '--prompt_tokens=16')
  assert run.returncode == 1
  assert message in run.stderr
  assert len(run.stderr.strip().splitlines()) == 1


def test_tables_are_written(tmp_path):
  plan_tables.main(['--quick', '--outdir', str(tmp_path)])
  text = (tmp_path / 'plan.md').read_text()
  assert '| llama_micro | 2 x v5e | 2 |' in text
  assert '| gemma2_tiny | 1 | 6 | 2 and 4 |' in text
  assert '| llama_micro | 2 | True |' in text

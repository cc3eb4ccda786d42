"""What training would cost on several machines, as planned: python -m benchmarks.plan_tables.

Released models with the config `gemma2_2b_math`, one prompt at a time on each device (but for
sampling), on 1, 8 and 64 devices that share the state (mesh.fsdp). Nothing is run: the programs are
compiled for virtual CPU devices, with all layers. A second table has the rollouts on 8 devices with
parameters gathered once for each (mesh.gather_for_sampling), and where they are used. A third says
how far a plan of the update from two depths would be off, as it is made without `--full`. Results
go to OUTDIR/plan.csv, .md. `--quick` shows that it runs.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from benchmarks import common
from configs import gemma2_2b_math
from pkpo_jax.flags import overridden
from pkpo_jax.planning.chips import CHIPS
from pkpo_jax.planning.estimate import GIB, plan, rollout_of, update_of
from pkpo_jax.planning.programs import make_devices, make_subject

MODELS = ('gemma2_2b', 'gemma2_9b', 'llama3_1_8b', 'qwen2_5_7b', 'gemma2_27b')
# Chips of a machine, by how many there are.
MACHINES = {1: ('h100_80', 'h200_141'), 8: ('v5e', 'h100_80', 'h200_141'), 64: ('v5e', 'v5p')}
LAYOUT_CHIPS = ('v5e', 'h100_80')
PARTS = {
  'state_gib': ('parameters', 'optimizer state'),
  'gradients_gib': ('gradients',),
  'cache_gib': ('completion cache', 'prompt memory'),
}
TABLES = {
  'plan': (
    *('model', 'machine', 'mesh_fsdp', 'prompts', 'pieces', 'microbatches', *PARTS),
    *('rollout_gib', 'update_gib', 'gib', 'fits', 'rollout_s', 'update_s'),
  ),
  'layouts': (
    *('model', 'mesh_fsdp', 'gather_for_sampling', 'collectives', 'collectives_per_token'),
    *('sent_gb', 'gib', *(f'{chip}_s' for chip in LAYOUT_CHIPS)),
  ),
  'comparison': (
    *('model', 'mesh_fsdp', 'layers', 'compiled_with', 'planned_gib', 'compiled_gib', 'off_by'),
    *('plan_s', 'compile_s'),
  ),
}
CAPTIONS = {
  'plan': (
    '16 completions of 512 tokens of each prompt of up to 384, bfloat16, float32 masters, Adam, '
    'remat, log_prob_chunk 16. Memory is that of one device as XLA plans it for CPU devices; '
    'rollout_gib and update_gib are the wholes of the two phases, with the state. Seconds are '
    'those of a training step at the peak of chip, memory and links, the least possible.'
  ),
  'layouts': (
    'A rollout: collectives and sent_gb are those of one device and a training step; seconds as '
    'above.'
  ),
  'comparison': (
    'The update compiled with all layers, against the plan from two depths: memory of the phase on '
    'one device. off_by: planned over compiled, less 1.'
  ),
}


def config_of(model: str, devices: int):
  """Returns the config of a model on so many devices."""
  prompts = max(16, devices)
  return overridden(
    gemma2_2b_math.get_config(),
    {
      'policy.preset': model,
      'policy.log_prob_chunk': 16,
      'rollout.num_prompts': prompts,
      'rollout.num_pieces': 2 if prompts % (2 * devices) == 0 else 1,
      'loss.num_microbatches': prompts // devices,
      'mesh.fsdp': devices,
      'eval.num_prompts': 448,
    },
  )


def small_config(model: str, devices: int):
  """Returns a config for `--quick`."""
  changes = {'policy.preset': model, 'mesh.fsdp': devices, 'rollout.num_pieces': 1}
  return overridden(gemma2_2b_math.get_config('tiny'), changes)


def plan_rows(model, devices, config, machines):
  """Returns the rows of a model on so many devices, one a chip."""
  subject = make_subject(config, 384)
  phases = plan(subject, (subject.num_layers,))
  gib = {name: phase.peak / GIB for name, phase in phases.items()}
  sizes = {
    column: sum(phases[phase].memory.get(name, 0) for name in names) / GIB
    for (column, names), phase in zip(PARTS.items(), ('update', 'update', 'rollout'), strict=True)
  }
  for name in machines:
    chip = CHIPS[name]
    yield {
      **{'model': model, 'machine': f'{devices} x {name}', 'mesh_fsdp': devices},
      **{'prompts': config.rollout.num_prompts, 'pieces': config.rollout.num_pieces},
      'microbatches': config.loss.num_microbatches,
      **sizes,
      **{f'{phase}_gib': size for phase, size in gib.items()},
      **{'gib': chip.hbm_gib, 'fits': max(gib.values()) <= chip.hbm_gib},
      **{f'{phase}_s': each.seconds(chip) for phase, each in phases.items()},
    }


def layout_rows(model, devices, config):
  """Returns the rows of the rollout of a model, without and with parameters gathered once."""
  for gather in (False, True):
    subject = make_subject(overridden(config, {'mesh.gather_for_sampling': gather}), 384)
    phase = rollout_of(subject)
    number = sum(count for count, _ in phase.work.collectives.values())
    tokens = config.rollout.num_pieces * subject.policy.max_new_tokens
    yield {
      **{'model': model, 'mesh_fsdp': devices, 'gather_for_sampling': gather},
      **{'collectives': number, 'collectives_per_token': number / tokens},
      **{'sent_gb': phase.work.sent / 1e9, 'gib': phase.peak / GIB},
      **{f'{name}_s': phase.seconds(CHIPS[name]) for name in LAYOUT_CHIPS},
    }


def comparison(model, devices, config, depths, num_layers=None):
  """Returns the row that says how far a plan is from the program with all layers."""
  subject = make_subject(config, 384)
  if num_layers is not None:
    subject = subject.with_layers(num_layers)
  start = time.perf_counter()
  planned = update_of(subject, depths)
  between = time.perf_counter()
  compiled = update_of(subject, (subject.num_layers,))
  end = time.perf_counter()
  return {
    **{'model': model, 'mesh_fsdp': devices, 'layers': subject.num_layers},
    'compiled_with': ' and '.join(map(str, planned.depths)),
    **{'planned_gib': planned.peak / GIB, 'compiled_gib': compiled.peak / GIB},
    'off_by': planned.peak / compiled.peak - 1,
    **{'plan_s': between - start, 'compile_s': end - between},
  }


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='tiny models: shows that it runs')
  parser.add_argument('--models', nargs='+', default=list(MODELS))
  parser.add_argument('--devices', nargs='+', type=int, default=[8, 1, 64])
  parser.add_argument('--laid_out', type=int, default=8, help='devices of the layouts; 0: none')
  parser.add_argument('--compared', nargs='*', type=int, default=[1, 8], help='devices, of 2B')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  make = config_of
  if options.quick:
    options.models, options.devices, options.compared = ['llama_micro'], [2], []
    options.laid_out = 2
    make = small_config
  make_devices(max([*options.devices, *options.compared, options.laid_out, 1]))
  header = common.describe('benchmarks.plan_tables', arguments, 'seed: none; shapes alone')
  tables = {name: [] for name in TABLES}

  def keep(name, rows):
    tables[name] += rows
    common.write('Plans', tables, TABLES, CAPTIONS, header, options.outdir / 'plan')
    common.print_table(TABLES[name], tables[name][-len(rows) :])
    sys.stdout.flush()

  for devices in options.devices:
    for model in options.models:
      machines = MACHINES.get(devices, ('v5e',))
      keep('plan', list(plan_rows(model, devices, make(model, devices), machines)))
  for model in options.models if options.laid_out else ():
    config = make(model, options.laid_out)
    keep('layouts', list(layout_rows(model, options.laid_out, config)))
  # The tiny model with more layers than it has.
  tiny, layers = small_config('gemma2_tiny', 1), ((2, 4), 6) if options.quick else ((14, 20), 26)
  keep('comparison', [comparison('gemma2_tiny', 1, tiny, *layers)])
  for devices in options.compared:
    row = comparison('gemma2_2b', devices, config_of('gemma2_2b', devices), (14, 20))
    keep('comparison', [row])


if __name__ == '__main__':
  main()

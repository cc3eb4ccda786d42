"""Shows a plan as text."""

from collections.abc import Mapping, Sequence

from pkpo_jax.planning.advice import Advice
from pkpo_jax.planning.chips import Chip
from pkpo_jax.planning.estimate import GIB, Phase
from pkpo_jax.planning.programs import Subject

NOTES = (
  'Memory is what XLA plans for virtual CPU devices; an accelerator orders and fuses its work in '
  'its own way. It was not compared with one.',
  'Work counts the products of matrices, loop bodies as often as they run; completions are taken '
  'to have full length.',
  'Seconds are the least possible: products at the peak or at the speed of the memory, whichever '
  'is slower, then the links, with nothing at the same time.',
  'Not counted: evaluation, grading, log-probabilities of a reference policy, the start.',
)


def table(
  subject: Subject,
  phases: Mapping[str, Phase],
  chip_name: str | None,
  chip: Chip | None,
  hbm_gib: float,
) -> str:
  """Returns the plan of a run; the whole is on each device."""
  mesh, rollout = subject.mesh, subject.settings.rollout
  axes = ' * '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  lines = [
    f'{subject.policy.architecture.name}, {subject.num_layers} layers, on {mesh.size} devices '
    f'({axes}){f", {chip_name}" if chip else ""}',
    f'{rollout.num_prompts} prompts of {subject.prompt_tokens} tokens, {rollout.num_samples} '
    f'completions of each of {subject.policy.max_new_tokens} tokens; all figures are those of one '
    'device',
    '',
    _row('GiB', phases),
  ]
  parts = dict.fromkeys(part for phase in phases.values() for part in phase.memory)
  for part in parts:
    sizes = [phase.memory.get(part, 0) / GIB for phase in phases.values()]
    if any(sizes):
      lines.append(_row(part, [f'{size:.3g}' for size in sizes]))
  lines.append(_row('in all', [f'{phase.peak / GIB:.3g}' for phase in phases.values()]))
  works = [phase.work for phase in phases.values()]
  lines += [
    '',
    _row('a training step', phases),
    _row('TFLOP', [f'{work.flops / 1e12:.4g}' for work in works]),
    _row('GB read and written', [f'{work.bytes / 1e9:.4g}' for work in works]),
  ]
  for kind in sorted({kind for work in works for kind in work.collectives}):
    cells = [work.collectives.get(kind, (0, 0)) for work in works]
    lines.append(_row(f'{kind}: number, GB', [f'{n:.0f}, {size / 1e9:.3g}' for n, size in cells]))
  if chip is not None:
    seconds = [f'{phase.seconds(chip):.3g}' for phase in phases.values()]
    lines.append(_row('seconds, at least', seconds))
  peak = max(phase.peak for phase in phases.values()) / GIB
  verdict = 'fits' if peak <= hbm_gib else 'DOES NOT FIT'
  lines += ['', f'{verdict}: {peak:.3g} GiB of {hbm_gib:g} GiB.']
  depths = phases['update'].depths
  if len(depths) > 1:
    few, more = depths
    lines.append(f'The update was compiled with {few} and with {more} layers, and extended.')
  return '\n'.join([*lines, *NOTES])


def advice_lines(advice: Sequence[Advice], hbm_gib: float) -> list[str]:
  """Returns one line for each change."""
  lines = [
    '',
    'To need less memory (about, GiB on each device; plan the changed config to be sure):',
  ]
  for each in advice:
    words = ' '.join(f'--config.{field}={value}' for field, value in each.changes.items())
    figure = '' if each.gib is None else f'{each.gib:.3g}{" fits" if each.gib <= hbm_gib else ""}'
    lines.append(f'  {words:42}{figure:>14}  {each.why}')
  return lines


def _row(name, cells):
  return f'  {name:34}' + ''.join(f'{cell:>16}' for cell in cells)

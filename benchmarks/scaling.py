"""How a training step grows with its sizes, with devices and with processes.

  python -m benchmarks.scaling [--quick] [--parts sweeps devices processes]

Sweeps: rollout, advantages and update of the tiny Gemma-2, compiled and called as training does.
The samples n of a prompt, k, the tokens L of a completion, the vocabulary V and the number of
prompts vary one at a time around a base point; all values of a sweep take turns. Devices: what a
device holds and sends, read off programs for virtual devices, which are not run: on a few cores
their time says nothing. Processes: real ones train one run, each bound to a core, with as many
prompts each. Linux alone. Results go to OUTDIR/scaling_BACKEND.csv, .md and .png.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common, weak_scaling
from benchmarks.common import Row
from configs import maze_tiny
from pkpo_jax import sharding
from pkpo_jax.flags import overridden
from pkpo_jax.models.gemma import PRESETS, Gemma
from pkpo_jax.planning import estimate
from pkpo_jax.planning.programs import Subject, make_devices, make_subject
from pkpo_jax.train_step import make_advantage_fn, make_forward
from pkpo_jax.types import Prompts

MIB = 2**20
PROMPT_TOKENS = 16


class Point(NamedTuple):
  """Sizes of a step, by the names of the tables."""

  n: int = 16
  k: int = 4
  L: int = 32
  V: int = 1024
  prompts: int = 8


SWEEPS = {
  'n': (4, 8, 16, 32, 64),
  'k': (1, 2, 4, 8, 16),
  'L': (8, 16, 32, 64, 128),
  'V': (256, 512, 1024, 2048, 4096),
  'prompts': (2, 4, 8, 16, 32),
}
QUICK_BASE = Point(n=4, k=2, L=4, V=128, prompts=2)
QUICK_SWEEPS = {'n': (2, 4), 'k': (1, 2)}
PHASES = ('rollout', 'advantages', 'update')
TIMES, MEMORY = [f'{x}_ms' for x in (*PHASES, 'step')], [f'{x}_mib' for x in PHASES]
MOST_SHARE, MOST_SLOPE, MOST_SLOPE_OF_K = 0.01, 1.1, 0.05
TABLES = {
  'sweeps': ('varied', *Point._fields, *TIMES, 'estimator_share', *MEMORY),
  'slopes': ('varied', 'over', *TIMES, *MEMORY),
  'targets': ('target', 'measured', 'bound', 'reached'),
  'devices': (
    *('program', 'axis', 'devices', 'prompts', 'kept_mib', 'planned_mib', 'of_one', 'sent_mib'),
    'sent/parameters',
  ),
  'processes': weak_scaling.COLUMNS,
}
CAPTIONS = {
  'sweeps': (
    'Median time of each part, all values of a sweep in turns; step_ms: their sum; '
    'estimator_share: median over turns of the share of advantages_ms in it, with the transfer of '
    'the rewards; mib: temporary memory that XLA plans. k is traced: it changes no program, so '
    'that rollout and update show in its rows how much other work on the machine disturbs.'
  ),
  'slopes': (
    'Exponents: 1 is proportional, 0 does not grow. Of times the median over turns of the line '
    'through the logarithms of one turn; over all values, and over the last doubling alone.'
  ),
  'targets': 'What was to be reached.',
  'devices': (
    'The programs of a step of the base point for virtual devices, which share its prompts; not '
    'run. fsdp splits parameters, data copies them. Of one device: kept_mib: parameters and '
    'optimizer state; planned_mib: with all temporaries; of_one: over that of one device; '
    'sent_mib: over its link in a step; sent/parameters: over the bytes of all parameters.'
  ),
  'processes': weak_scaling.CAPTION,
}


def subject_of(preset: str, point: Point, **mesh: int) -> Subject:
  """Returns what a step of these sizes is compiled from."""
  config = overridden(
    maze_tiny.get_config(),
    {
      'policy.preset': preset,
      'policy.max_new_tokens': point.L,
      'rollout.num_prompts': point.prompts,
      'rollout.num_samples': point.n,
      'advantage.k': point.k,
      **{f'mesh.{axis}': size for axis, size in mesh.items()},
    },
  )
  subject = make_subject(config, PROMPT_TOKENS)
  architecture = Gemma(dataclasses.replace(PRESETS[preset], num_embed=point.V), preset)
  return subject._replace(policy=subject.policy.with_architecture(architecture))


class Step:
  """The compiled parts of a training step of one size, and its state."""

  def __init__(self, preset: str, point: Point):
    subject = subject_of(preset, point)
    settings, rng = subject.settings, np.random.default_rng(0)
    self._over_prompts, self._key = sharding.over_prompts(subject.mesh), jax.random.key(0)
    # Without the initializers of the model, which take as long to compile as the update.
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    noise = lambda x: zeros(x) + rng.normal(0, 0.05, x.shape).astype(x.dtype)
    state, self._frozen = jax.tree.map(zeros, subject.state())
    self._state = state.replace(params=jax.tree.map(noise, state.params))
    tokens = rng.integers(3, point.V, (point.prompts, subject.prompt_tokens)).astype(np.int32)
    ids, mask = np.arange(point.prompts, dtype=np.int32), np.ones(tokens.shape, bool)
    prompts = Prompts(ids=ids, tokens=tokens, mask=mask, hidden=())
    self._prompts = jax.device_put(prompts, self._over_prompts)
    self._rewards = rng.integers(0, 2, (point.prompts, point.n)).astype(np.float32)

    self._sample, self._update = subject.rollout().compile(), subject.update().compile()
    forward, ks = make_forward(subject.policy, settings.loss), np.array([point.k])
    advantage_fn = make_advantage_fn(settings.advantage, forward, ks, point.n)
    advantage_fn = jax.jit(advantage_fn, out_shardings=self._over_prompts)
    inputs = *self._sampled(), self._put_rewards(), None, jnp.int32(1), self._key
    self._advantages = advantage_fn.lower(*inputs).compile()
    programs = zip(MEMORY, (self._sample, self._advantages, self._update), strict=True)
    self.memory = {x: fn.memory_analysis().temp_size_in_bytes / MIB for x, fn in programs}
    self(point.k)  # What comes with a first call.

  def _sampled(self):
    params = self._frozen | self._state.params
    return params, jax.block_until_ready(self._sample(params, self._prompts, self._key))

  def _put_rewards(self):
    return jax.device_put(self._rewards, self._over_prompts)

  def __call__(self, k: int) -> list[float]:
    """Trains a step; returns the seconds of each part, in the order of PHASES."""
    k = jnp.int32(k)
    times = [time.perf_counter()]
    params, rollout = self._sampled()
    times.append(time.perf_counter())
    advantages = self._advantages(params, rollout, self._put_rewards(), None, k, self._key)
    jax.block_until_ready(advantages)
    times.append(time.perf_counter())
    updated = self._update(self._state, self._frozen, rollout, advantages, self._key)
    self._state, _ = jax.block_until_ready(updated)
    times.append(time.perf_counter())
    return list(np.diff(times))


def sweep(
  varied: str, points: Sequence[Point], step_of: Callable[[Point], Step], turns: int
) -> tuple[list[Row], list[Row]]:
  """Returns a row for each point, and the slopes over them."""
  steps = [step_of(point._replace(k=1)) for point in points]
  each_turn = lambda: [step(point.k) for step, point in zip(steps, points, strict=True)]
  seconds = np.array([each_turn() for _ in range(turns)])  # [turn, point, phase]
  whole = seconds.sum(-1, keepdims=True)
  share = np.median(seconds[..., PHASES.index('advantages')] / whole[..., 0], axis=0)
  times = 1e3 * np.concatenate([seconds, whole], axis=-1)
  rows = [
    {'varied': varied, **point._asdict()}
    | dict(zip(TIMES, np.median(times[:, i], axis=0).tolist(), strict=True))
    | {'estimator_share': float(share[i]), **steps[i].memory}
    for i, point in enumerate(points)
  ]
  sizes = [getattr(point, varied) for point in points]
  slopes = []
  for over, kept in (('all', slice(None)), ('last two', slice(-2, None))):
    row = {'varied': varied, 'over': over}
    for i, name in enumerate(TIMES):
      of_turns = [slope(sizes[kept], turn[kept, i]) for turn in times]
      row[name] = statistics.median(of_turns)
    for name in MEMORY:
      memory = [each[name] for each in rows]
      if min(memory) > 0:
        row[name] = slope(sizes[kept], memory[kept])
    slopes.append(row)
  return rows, slopes


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
  """Returns the exponent of the power law that fits best."""
  return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 4) + 0.0


def target_rows(rows: Sequence[Row], slopes: Sequence[Row]) -> Iterator[Row]:
  """Yields what was to be reached: a small estimator, and no growth faster than the sizes."""

  def row(target, measured, bound):
    is_reached = 'yes' if measured <= bound else 'no'
    return {'target': target, 'measured': measured, 'bound': f'<= {bound:g}', 'reached': is_reached}

  for varied in dict.fromkeys(row['varied'] for row in rows):
    share = max(row['estimator_share'] for row in rows if row['varied'] == varied)
    yield row(f'largest share of the estimator over {varied}', share, MOST_SHARE)
  for each in slopes:
    if each['over'] == 'all' and each['varied'] == 'k':
      yield row('slope of the time over k, its size', abs(each['step_ms']), MOST_SLOPE_OF_K)
    elif each['over'] == 'all' and each['varied'] != 'L':
      yield row(f'slope of the time over {each["varied"]}', each['step_ms'], MOST_SLOPE)
      planned = max(each['rollout_mib'], each['update_mib'])
      yield row(f'larger slope of planned memory over {each["varied"]}', planned, MOST_SLOPE)


def device_rows(preset: str, base: Point, counts: Sequence[int]) -> list[Row]:
  """Returns what a device holds and sends, where there is one and where there are `counts`."""
  make_devices(max(counts))

  def rows_of(axis, count):
    subject = subject_of(preset, base, **{axis: count})
    shapes = jax.tree.leaves(subject.state()[0].params)
    parameters = sum(x.size * x.dtype.itemsize for x in shapes)
    for program, phase in estimate.plan(subject).items():
      yield {
        **{'program': program, 'axis': axis, 'devices': count, 'prompts': base.prompts},
        'kept_mib': sum(estimate.resident(subject).values()) / MIB,
        'planned_mib': phase.peak / MIB,
        'of_one': phase.peak / MIB / alone.get(program, phase.peak / MIB),
        'sent_mib': phase.work.sent / MIB,
        'sent/parameters': phase.work.sent / parameters,
      }

  alone = {}
  rows = list(rows_of('data', 1))
  alone |= {row['program']: row['planned_mib'] for row in rows}
  rows += [row | {'axis': 'fsdp'} for row in rows]
  for axis in ('data', 'fsdp'):
    for count in counts:
      rows += rows_of(axis, count)
  return sorted(rows, key=lambda row: (row['program'], row['axis']))


def apart(fn: Callable, *arguments):
  """Returns `fn(*arguments)` from a process of its own, whose devices do not become this one's."""
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
    return pool.submit(fn, *arguments).result()


def draw(tables: dict[str, list[Row]], path: pathlib.Path) -> None:
  """Draws time and memory of each sweep, log-log, then devices and processes."""
  from experiments import style

  figure, axes = style.plt.subplots(3, 5, figsize=(style.WIDTH_3, 9.5))
  colors = dict(zip(PHASES, (style.BLUE, style.VERMILION, style.GREEN), strict=True))

  def lines(axis, rows, x, y, title, **looks):
    sizes = [row[x] for row in rows]
    axis.plot(sizes, [row[y] for row in rows], marker='o', **looks)
    axis.set(title=title, xlabel=x, xscale='log')
    axis.set_xticks(sizes, map(str, sizes))
    axis.minorticks_off()

  for i, varied in enumerate(dict.fromkeys(row['varied'] for row in tables.get('sweeps', ()))):
    rows = [row for row in tables['sweeps'] if row['varied'] == varied]
    for j, (title, unit) in enumerate((('time', 'ms'), ('memory', 'mib'))):
      axis = axes[j, i]
      # What the advantages need is too little to be seen beside the others.
      for phase in PHASES if unit == 'ms' else ('rollout', 'update'):
        looks = {'color': colors[phase], 'label': phase}
        lines(axis, rows, varied, f'{phase}_{unit}', f'{title} over {varied}', **looks)
      axis.set_yscale('log')
      axis.set_ylabel('' if i else {'ms': 'ms', 'mib': 'planned, MiB'}[unit])
  panels = [(y, axis) for y in ('planned_mib', 'sent_mib') for axis in ('data', 'fsdp')]
  for axis, (y, name) in zip(axes[2], panels if tables.get('devices') else (), strict=False):
    for program in ('rollout', 'update'):
      where = {'program': program, 'axis': name}
      rows = [row for row in tables['devices'] if where.items() <= row.items()]
      title = f'{"planned" if y == "planned_mib" else "sent"} by each, mesh.{name}'
      lines(axis, rows, 'devices', y, title, color=colors[program], label=program)
    axis.set(ylim=(0, None), ylabel='MiB')
  if rows := tables.get('processes'):
    ideal = [row | {'ideal': row['cores'] * rows[0]['prompts_per_s']} for row in rows]
    one = [row for row in ideal if row['runs'] == 1]
    apart = [row for row in ideal if row['runs'] == row['processes']]
    for shown, y, look, label in (
      (one, 'prompts_per_s', '-', 'one run'),
      (apart, 'prompts_per_s', '--', 'a run each'),
      (one, 'ideal', ':', 'one process times cores'),
    ):
      looks = {'color': style.BLACK, 'linestyle': look, 'label': label}
      lines(axes[2, 4], shown, 'processes', y, 'weak scaling', **looks)
    axes[2, 4].set(ylim=(0, None), ylabel='prompts a second')
  for axis in axes.flat:
    axis.set_visible(axis.has_data())
  for axis in (axes[0, 0], axes[1, 0], axes[2, 0], axes[2, 4]):
    if axis.lines:  # In the first, between the advantages and the rest.
      axis.legend(fontsize=8, loc=(0.38, 0.2) if axis is axes[0, 0] else 'best')
  style.save(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
  """Measures, and writes the tables and the figure."""
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parts = ('sweeps', 'devices', 'processes')
  parser.add_argument(
    '--quick', action='store_true', help='a smaller model, and a bandit: shows that it runs'
  )
  parser.add_argument('--parts', nargs='+', choices=parts, default=parts)
  parser.add_argument('--preset', choices=['gemma2_tiny', 'gemma2_micro'], default='gemma2_tiny')
  parser.add_argument('--turns', type=int, default=7, help='of a sweep')
  parser.add_argument('--runs', type=int, default=2, help='of each number of processes')
  parser.add_argument('--steps', type=int, default=10, help='of such a run')
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  base, sweeps, devices, processes = Point(), SWEEPS, (2, 4, 8), (1, 2, 4)
  if options.quick:
    base, sweeps, devices, processes = QUICK_BASE, QUICK_SWEEPS, (2,), (2,)
    options.preset, options.turns, options.runs, options.steps = 'gemma2_micro', 2, 1, 4
  preset = options.preset
  header = common.describe(
    'benchmarks.scaling',
    arguments,
    f'seed: 0; {preset}, random weights, float32; base point {base._asdict()}, prompts of '
    f'{PROMPT_TOKENS} tokens; {options.turns} turns',
  )
  print('\n'.join(header), flush=True)
  tables, path = {}, options.outdir / f'scaling_{jax.default_backend()}'

  def keep(name, rows):
    tables[name] = list(rows)
    common.write('Scaling of a training step', tables, TABLES, CAPTIONS, header, path)
    common.print_table(TABLES[name], tables[name])
    sys.stdout.flush()

  if 'sweeps' in options.parts:
    step_of, rows, slopes = functools.cache(functools.partial(Step, preset)), [], []
    for varied, values in sweeps.items():
      points = [base._replace(**{varied: value}) for value in values]
      found = sweep(varied, points, step_of, options.turns)
      rows += found[0]
      slopes += found[1]
    keep('sweeps', rows)
    keep('slopes', slopes)
    keep('targets', target_rows(rows, slopes))
  if 'devices' in options.parts:
    keep('devices', apart(device_rows, preset, base, devices))
  if 'processes' in options.parts:
    fields = {'rollout.num_samples': base.n, 'advantage.k': base.k}
    if not options.quick:
      fields |= {'policy.preset': preset, 'policy.max_new_tokens': base.L}
    config = 'configs/bandit.py' if options.quick else weak_scaling.CONFIG
    sizes = processes, base.prompts, options.steps, options.runs
    keep('processes', weak_scaling.rows(config, fields, *sizes))
  draw(tables, path.with_suffix('.png'))


if __name__ == '__main__':
  main()

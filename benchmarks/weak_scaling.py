"""Trains one run in 1, 2, 4 processes on this machine, each with as many prompts; for `scaling`.

And as many runs that know nothing of each other: what processes that share caches and memory lose
without a word between them.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import common
from benchmarks.common import Row

CONFIG = 'configs/maze_tiny.py'
COLUMNS = (
  *('processes', 'runs', 'cores', 'prompts', 'steps', 'step_s', 'least_s', 'rollout_s'),
  *('update_s', 'rest_s', 'prompts_per_s', 'efficiency', 'efficiency_of_least', 'apart/one'),
)
CAPTION = (
  f'One run of {CONFIG} in several processes on this machine, each bound to a core, which several '
  'share where there are fewer; runs take turns. step_s: median of the timed parts of a step; '
  'prompts_per_s: by step_s; efficiency: prompts_per_s over that of one process, and over cores; '
  'efficiency_of_least: the same by least_s, which other work on the machine disturbs less. '
  'runs: 1, or as many as processes, a run each; apart/one: step_s of those over that of one run.'
)
_NUM_COMPILING = 2  # First steps, which do not count.


def rows(
  config: str,
  fields: Mapping[str, Any],
  counts: Sequence[int],
  prompts: int,
  num_steps: int,
  turns: int,
) -> list[Row]:
  """Returns a row for each number of processes, and one for as many runs apart.

  Args:
    config: file of the run's config.
    fields: of it that are changed, by their paths.
    counts: numbers of processes; the first is what the others are compared with.
    prompts: of a step, for each process.
    num_steps: of a run.
    turns: runs of each number of processes.
  """
  cores = sorted(os.sched_getaffinity(0))
  steps = {(count, runs): [] for count in counts for runs in dict.fromkeys((1, count))}
  with tempfile.TemporaryDirectory() as folder:
    for turn in range(turns):
      for count, runs in steps:
        changes = {'rollout.num_prompts': count // runs * prompts, 'num_train_steps': num_steps}
        workdir = pathlib.Path(folder) / f'{count}_{runs}_{turn}'
        steps[count, runs] += train(config, fields | changes, count, runs, cores, workdir)
  found = {}
  for (count, runs), each in steps.items():
    row = _row(count, min(count, len(cores)), count * prompts, each)
    found[count, runs] = row | {'runs': runs}
    _compare(found[count, runs], found[counts[0], 1])
  for (count, _), row in found.items():
    row['apart/one'] = found[count, count]['step_s'] / found[count, 1]['step_s']
  return list(found.values())


def _row(count, cores, prompts, steps):
  seconds = [sum(step.values()) for step in steps]
  row = {'processes': count, 'cores': cores, 'prompts': prompts, 'steps': len(steps)}
  row |= {'step_s': statistics.median(seconds), 'least_s': min(seconds)}
  for name in ('rollout_s', 'update_s'):
    row[name] = statistics.median(step[f'time/{name}'] for step in steps)
  row['rest_s'] = row['step_s'] - row['rollout_s'] - row['update_s']
  return row | {'prompts_per_s': prompts / row['step_s']}


def _compare(row, first):
  work = row['prompts'] / first['prompts'] / (row['cores'] / first['cores'])
  row['efficiency'] = work * first['step_s'] / row['step_s']
  row['efficiency_of_least'] = work * first['least_s'] / row['least_s']


def train(
  config: str,
  fields: Mapping[str, Any],
  count: int,
  runs: int,
  cores: Sequence[int],
  workdir: pathlib.Path,
) -> list[dict[str, float]]:
  """Returns the seconds of the parts of each step, but for the steps that compile.

  Args:
    config: file of the config.
    fields: of it that are changed.
    count: processes.
    runs: 1, which all processes train, or `count`, one for each.
    cores: to bind processes to.
    workdir: folder of the runs' workdirs.
  """
  fixed = {
    **{'eval.num_prompts': 4, 'eval.num_samples': 2, 'eval.ks': '(1,)'},
    **{'mesh.data': -1, 'log.every': 1, 'log.tensorboard': False},
  }
  command = [sys.executable, '-m', 'pkpo_jax.main', f'--config={config}']
  command += [f'--config.{name}={value}' for name, value in {**fixed, **fields}.items()]
  is_one = count > 1 and runs == 1
  if is_one:
    command += [f'--coordinator_address=127.0.0.1:{common.free_port()}', f'--num_processes={count}']
  with contextlib.ExitStack() as stack:
    running = []
    for i in range(count):
      output = stack.enter_context(tempfile.TemporaryFile('w+'))
      own = [f'--workdir={workdir / str(i % runs)}', *([f'--process_id={i}'] if is_one else [])]
      process = subprocess.Popen(
        [*command, *own], cwd=common.FOLDER.parent, stdout=output, stderr=subprocess.STDOUT
      )
      stack.callback(process.kill)
      os.sched_setaffinity(process.pid, {cores[i % len(cores)]})  # Before it has threads.
      running.append((process, output))
    for process, output in running:
      if process.wait(timeout=600) != 0:
        output.seek(0)
        raise RuntimeError(f'{" ".join(command)} failed: {output.read()[-2000:]}')
  return [step for i in range(runs) for step in times(workdir / str(i) / 'metrics.jsonl')]


def times(metrics: pathlib.Path) -> list[dict[str, float]]:
  """Returns the seconds of the parts of each step that counts."""
  lines = map(json.loads, metrics.read_text().splitlines())
  steps = [x for x in lines if 'train/loss' in x and x['step'] >= _NUM_COMPILING]
  is_part = lambda name: name.startswith('time/') and name != 'time/tokens_per_s'
  return [{name: x for name, x in step.items() if is_part(name)} for step in steps]

"""Evaluates a checkpoint from the command line, alone or beside that of another run.

python -m pkpo_jax.evaluate --workdir=runs/maze_k8 --config.eval.num_samples=64 \
  --other_workdir=runs/maze_k1
"""

import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict, config_flags

from pkpo_jax import sharding
from pkpo_jax.checkpoints import flatten, restore_params
from pkpo_jax.errors import expect
from pkpo_jax.estimators import standard_error
from pkpo_jax.evaluation import report
from pkpo_jax.evaluation.measure import Evaluation, count_pieces, make_evaluate
from pkpo_jax.flags import check_overrides, flag_value, parse_flags, read_config
from pkpo_jax.intervals import (
  bootstrap_interval,
  mean_interval,
  paired_bootstrap,
  paired_interval,
)
from pkpo_jax.progress import progress
from pkpo_jax.run import Run, compile_step, make_run
from pkpo_jax.settings import as_dict
from pkpo_jax.tasks import has_success, in_use
from pkpo_jax.typing import Key

LEVEL = 0.95  # Of the intervals.


def evaluate_workdirs(
  config: Mapping[str, Any],
  workdirs: Sequence[pathlib.Path],
  checkpoint: int | str,
  seed: int,
  num_prompts_at_once: int | None = None,
) -> dict[str, Any]:
  """Returns a report on a trained policy, or on two and how they differ.

  See `pkpo_jax.evaluation.report`.

  Args:
    config: of the first. Its `eval` and `mesh` hold for the second, too, and 1, 2, 4, ... and
      num_samples join its ks.
    workdirs: where the first, and perhaps the second, were trained. What else the second's config
      is, its config.json says.
    checkpoint: a step, 'latest' or 'best'.
    seed: of all that is drawn: problems, where the task draws them, samples and resamples.
    num_prompts_at_once: how many prompts to sample at a time; None is as many as have no more
      completions than an evaluation had while the first was trained.

  Raises:
    ValueError, TypeError: if a config is wrong, the second's task is another, or the checkpoint
      does not fit the config.
    FileNotFoundError: if there is no such checkpoint.
  """
  config = _with_more_ks(config)
  own_configs = [_own_config(workdir).to_dict() for workdir in workdirs]
  configs = [config]
  for workdir, own in zip(workdirs[1:], own_configs[1:], strict=True):
    _check_same_task(workdir, own, config)
    configs.append({**own, 'eval': config['eval'], 'mesh': config['mesh']})
  runs = [make_run(each) for each in configs]
  settings, mesh = runs[0].settings.eval, sharding.make_mesh(runs[0].settings.mesh)
  num_shards = sharding.num_prompt_shards(mesh)
  is_multiple = settings.num_prompts % num_shards == 0
  multiple = f'a multiple of mesh.data * mesh.fsdp = {num_shards}'
  expect(is_multiple, 'eval.num_prompts', multiple, settings.num_prompts)
  # Of the first alone, whose samples so do not depend on what it is compared with.
  max_completions = own_configs[0]['eval']['num_prompts'] * own_configs[0]['eval']['num_samples']
  if num_prompts_at_once is not None:
    expect(num_prompts_at_once >= 1, 'num_prompts_at_once', 'at least 1', num_prompts_at_once)
    max_completions = num_prompts_at_once * settings.num_samples
  num_pieces = count_pieces(settings.num_prompts, settings.num_samples, max_completions, num_shards)

  eval_key, bootstrap_key = jax.random.split(jax.random.key(seed))
  found, summaries = [], []
  for run, workdir, each in zip(runs, workdirs, configs, strict=True):
    step, params = restore(run, mesh, workdir, checkpoint)
    evaluate = make_evaluate(run, sharding.over_prompts(mesh))
    # Step 0 whatever the checkpoint: the problems are the same.
    with in_use(run.task), progress(0, num_pieces, workdir.name) as bar:
      found.append(evaluate(params, 0, eval_key, num_pieces, bar.update))
    del params  # Two may be more than the devices hold.
    summary = summarize(found[-1], settings.ks, has_success(run.task), bootstrap_key)
    summaries.append({'workdir': str(workdir), 'step': step, 'config': each, **summary})
  is_binary = has_success(runs[0].task)
  return {
    'seed': seed,
    'level': LEVEL,
    'num_problems': settings.num_prompts,
    'num_samples': settings.num_samples,
    'num_pieces': num_pieces,
    'runs': summaries,
    'differences': compare(*found, settings.ks, is_binary, bootstrap_key) if found[1:] else {},
  }


def restore(run: Run, mesh: Mesh, workdir: pathlib.Path, checkpoint: int | str) -> tuple[int, Any]:
  """Returns a checkpoint's step and the parameters, those that were not trained too."""
  policy = run.policy
  # The first key is of the initial parameters, as in training.
  key = jax.random.split(jax.random.key(run.settings.seed), 4)[0]
  shapes = jax.eval_shape(policy.init, key)
  shardings = sharding.tree_shardings(shapes, mesh, policy.partition_rules)
  like = sharding.with_shardings(shapes, shardings)
  trained = {name: like[name] for name in like.keys() - policy.frozen}
  step, params = restore_params(workdir, trained, None if checkpoint == 'latest' else checkpoint)
  if policy.frozen:
    init, _ = compile_step(policy, run.optimizer, run.settings.loss, mesh)
    params |= init(key)[1]
  return step, params


def curves(evaluation: Evaluation, is_binary: bool) -> dict[str, Float[np.ndarray, 'P K']]:
  """Returns of each problem pass@k (where `is_binary`) or max@k, and max@k, maj@k where known."""
  found = {'pass@k' if is_binary else 'max@k': evaluation.values}
  if evaluation.shaped is not None:
    found['max@k'] = evaluation.shaped
  return found if evaluation.majority is None else found | {'maj@k': evaluation.majority}


def summarize(
  evaluation: Evaluation, ks: Sequence[int], is_binary: bool, key: Key
) -> dict[str, Any]:
  """Returns the curves, statistics and problems of a report; `key` draws the resamples."""
  by_problem, found = curves(evaluation, is_binary), {}
  for name, values in by_problem.items():
    # The range of shaped rewards is not known.
    interval = bootstrap_interval if name == 'max@k' else mean_interval
    mean, low, high = interval(values, key, level=LEVEL)
    found[name] = {'k': ks, 'mean': mean, 'standard_error': standard_error(values)}
    found[name] |= {'low': low, 'high': high}
    if evaluation.exact is not None and values is evaluation.values:
      found[name]['exact'] = evaluation.exact
  statistics = {}
  for name, values in evaluation.statistics.items():
    known = values[~np.isnan(values)]
    if known.size:
      error = standard_error(known) if known.size > 1 else None
      statistics[name] = {
        'mean': np.mean(known),
        'standard_error': error,
        'num_problems': known.size,
      }
  problems = {'id': evaluation.ids, **by_problem, **evaluation.statistics}
  return _plain({'curves': found, 'statistics': statistics, 'problems': problems})


def compare(
  evaluation: Evaluation, other: Evaluation, ks: Sequence[int], is_binary: bool, key: Key
) -> dict[str, Any]:
  """Returns the differences of a report; `key` draws the resamples."""
  others, found = curves(other, is_binary), {}
  for name, values in curves(evaluation, is_binary).items():
    if name in others:
      interval = paired_bootstrap if name == 'max@k' else paired_interval
      mean, low, high = interval(values, others[name], key, level=LEVEL)
      found[name] = _plain({'k': ks, 'mean': mean, 'low': low, 'high': high})
  return found


def _plain(tree: Any) -> Any:
  """Returns nested dicts of arrays as nested dicts of lists, None for what is not a number."""
  if isinstance(tree, Mapping):
    return {name: _plain(value) for name, value in tree.items()}
  if tree is None:
    return None
  listed = np.asarray(tree).tolist()
  known = lambda x: None if isinstance(x, float) and np.isnan(x) else x
  return [known(x) for x in listed] if isinstance(listed, list) else known(listed)


def _with_more_ks(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config with 1, 2, 4, ..., num_samples and those of its ks that are no larger."""
  n = config['eval']['num_samples']
  powers = (2**i for i in range(n.bit_length()))
  ks = sorted({*powers, n, *(k for k in config['eval']['ks'] if k <= n)})
  return {**config, 'eval': {**config['eval'], 'ks': tuple(ks)}}


def _own_config(workdir: pathlib.Path) -> ConfigDict:
  path = workdir / 'config.json'
  expect(path.is_file(), 'workdir', 'the folder of a run, with its config.json', str(workdir))
  return read_config(path)


def _check_same_task(workdir: pathlib.Path, own: Mapping, config: Mapping) -> None:
  """Raises ValueError that names the fields in which the tasks differ, if they do."""
  there, here = flatten({'task': own['task']}), flatten({'task': config['task']})
  fields = sorted(f for f in there.keys() | here.keys() if there.get(f) != here.get(f))
  if 'task.name' in fields:
    fields = ['task.name']
  differences = '; '.join(f'{f}: {there.get(f)!r} there, {here.get(f)!r} here' for f in fields)
  expect(not fields, 'other_workdir', f'a run on the same task ({differences})', str(workdir))


def main(argv: list[str]) -> None:
  """Evaluates, prints the table, writes JSON and figure."""
  if len(argv) > 1:
    raise app.UsageError(f'expected only flags, got {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # Less would let the checkpointer talk all the way.
  args = flags.FLAGS
  workdirs = [pathlib.Path(x) for x in (args.workdir, args.other_workdir) if x is not None]
  try:
    report.require_matplotlib()
    checkpoint = _checkpoint(args.checkpoint)
    config = as_dict(args.config)
    found = evaluate_workdirs(config, workdirs, checkpoint, args.seed, args.num_prompts_at_once)
  except (ValueError, TypeError, ImportError, OSError) as error:
    sys.exit(str(error))
  found = {'command': f'python -m pkpo_jax.evaluate {shlex.join(sys.argv[1:])}', **found}
  output = pathlib.Path(args.output) if args.output else workdirs[0] / 'evaluation'
  output.mkdir(parents=True, exist_ok=True)
  report.write_json(found, output / 'evaluation.json')
  report.draw(found, output / 'evaluation.png')
  print(report.table(found))
  print(
    f'All of it, problem by problem: {output}/evaluation.json    Figure: {output}/evaluation.png'
  )


def run() -> None:
  """The console script."""
  # Not at the top, as another command has flags of the same names.
  define = flags.DEFINE_string
  define('workdir', None, 'Folder of the run.')
  define('checkpoint', 'latest', "Which checkpoint: a step, 'latest' or 'best'.")
  define('other_workdir', None, 'Folder of a run to compare with, on the same problems.')
  define('output', None, 'Folder for JSON and figure; workdir/evaluation if not given.')
  flags.DEFINE_integer('seed', 0, 'Of all that the evaluation draws.', lower_bound=0)
  flags.DEFINE_integer(
    'num_prompts_at_once',
    None,
    'Prompts to sample at a time; as many as have no more completions than an evaluation during '
    'training had, if not given.',
    lower_bound=1,
  )
  app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; --config is workdir/config.json, open to overrides, if it is not given."""
  workdir = flag_value(argv, 'workdir')
  text = 'Config file, workdir/config.json if not given; override with --config.group.field=value.'
  if workdir is None or flag_value(argv, 'config') is not None:
    config_flags.DEFINE_config_file('config', None, text)
  else:
    try:
      config = _own_config(pathlib.Path(workdir))
    except ValueError as error:
      sys.exit(str(error))
    check_overrides(argv, config)
    config_flags.DEFINE_config_dict('config', config, text)
  flags.mark_flag_as_required('workdir')
  return parse_flags(argv)


def _checkpoint(name: str) -> int | str:
  is_known = name in ('latest', 'best') or name.isdigit()
  expect(is_known, 'checkpoint', "a step, 'latest' or 'best'", name)
  return int(name) if name.isdigit() else name


if __name__ == '__main__':
  run()

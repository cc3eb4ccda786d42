"""Evaluates a checkpoint from the command line, alone or beside that of another run.

python -m pkpo_jax.evaluate --workdir=runs/maze_k8 --config.eval.num_samples=64 \
  --other_workdir=runs/maze_k1
"""

import itertools
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from jax.sharding import Mesh

from pkpo_jax import processes, sharding
from pkpo_jax.checkpoints import restore_params
from pkpo_jax.errors import CONFIG_ERRORS, expect
from pkpo_jax.evaluation import report
from pkpo_jax.evaluation.measure import AfterPiece, count_pieces, make_evaluate
from pkpo_jax.evaluation.summary import LEVEL, compare, summarize
from pkpo_jax.flags import (
  connect_by_flags,
  define_process_flags,
  expand,
  flag_value,
  from_json,
  parse_flags,
)
from pkpo_jax.keys import run_keys
from pkpo_jax.own_code import import_file
from pkpo_jax.parts import complete
from pkpo_jax.progress import progress
from pkpo_jax.run import Run, make_init, make_run
from pkpo_jax.sample_writer import SampleWriter
from pkpo_jax.settings import as_dict
from pkpo_jax.workdir import config_file_of, flatten, keep_compilations, read_config


def evaluate_workdirs(
  config: Mapping[str, Any],
  workdirs: Sequence[pathlib.Path],
  checkpoint: int | str,
  seed: int,
  num_prompts_at_once: int | None = None,
  output: pathlib.Path | None = None,
) -> dict[str, Any]:
  """Returns a report on one trained policy, or on two policies and their difference.

  See `pkpo_jax.evaluation.report`.

  Args:
    config: the first run's. Its `eval` and `mesh` are used for the second run, too. The values
      1, 2, 4, ... and num_samples are added to `eval.ks`.
    workdirs: the folder of the first run, and that of the second if there is one. The rest of the
      second run's config is read from its config.json.
    checkpoint: a step, 'latest' or 'best'.
    seed: of all random draws: samples, resamples, and problems if the task draws them.
    num_prompts_at_once: prompts that are sampled at a time. None takes the largest number that
      holds no more completions than an evaluation did while the first run was trained.
    output: folder for the samples: samples.jsonl has those of the first run, other_samples.jsonl
      those of the second. log.max_samples_mib bounds each file. None keeps no samples.

  Raises:
    ValueError, TypeError: if a config is wrong, the second's task is another, or the checkpoint
      does not fit the config.
    FileNotFoundError: if there is no such checkpoint.
  """
  config = _with_more_ks(complete(config))
  own_configs = [complete(read_config(workdir)) for workdir in workdirs]
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
  # From the first run alone, so that its samples do not depend on what it is compared with.
  max_completions = own_configs[0]['eval']['num_prompts'] * own_configs[0]['eval']['num_samples']
  if num_prompts_at_once is not None:
    expect(num_prompts_at_once >= 1, 'num_prompts_at_once', 'at least 1', num_prompts_at_once)
    max_completions = num_prompts_at_once * settings.num_samples
  num_pieces = count_pieces(settings.num_prompts, settings.num_samples, max_completions, num_shards)

  eval_key, bootstrap_key = jax.random.split(jax.random.key(seed))
  evaluations, summaries = [], []
  for run, workdir, each in zip(runs, workdirs, configs, strict=True):
    step, params = restore(run, mesh, workdir, checkpoint)
    evaluate = make_evaluate(run, sharding.over_prompts(mesh))
    samples = None
    if output is not None and processes.is_first():
      path = output / ('other_samples.jsonl' if evaluations else 'samples.jsonl')
      samples = SampleWriter(path, run.task, 'eval', run.settings.log)
    # Step 0 whatever the checkpoint: the problems are the same.
    with run.task, progress(0, num_pieces, workdir.name) as bar:
      after_piece = _after_piece(bar, samples, step)
      evaluations.append(evaluate(params, 0, eval_key, num_pieces, after_piece))
    if samples is not None:
      samples.write()
    del params  # Two may be more than the devices hold.
    summary = summarize(evaluations[-1], settings.ks, bootstrap_key)
    summaries.append({'workdir': str(workdir), 'step': step, 'config': each, **summary})
  return {
    'seed': seed,
    'level': LEVEL,
    'num_problems': settings.num_prompts,
    'num_samples': settings.num_samples,
    'num_pieces': num_pieces,
    'runs': summaries,
    'differences': (compare(*evaluations, settings.ks, bootstrap_key) if evaluations[1:] else {}),
  }


def _after_piece(bar: Any, samples: SampleWriter | None, step: int) -> AfterPiece:
  """Returns a function that keeps the samples of one piece and moves the bar."""

  def after_piece(prompts, rollout, grades):
    if samples is not None:
      samples.add(step, prompts, rollout, grades)
    bar.update()

  return after_piece


def restore(
  run: Run, mesh: Mesh, workdir: pathlib.Path, checkpoint: int | str, trained_only: bool = False
) -> tuple[int, Any]:
  """Returns a checkpoint's step and all parameters, or only those that were trained."""
  policy = run.policy
  key = run_keys(jax.random.key(run.settings.seed)).init
  shapes = jax.eval_shape(policy.init, key)
  shardings = sharding.tree_shardings(shapes, mesh, policy.partition_rules)
  like = sharding.with_shardings(shapes, shardings)
  trained = {name: like[name] for name in like.keys() - policy.frozen}
  step, params = restore_params(workdir, trained, None if checkpoint == 'latest' else checkpoint)
  if policy.frozen and not trained_only:
    params |= make_init(policy, run.optimizer, mesh)(key)[1]
  return step, params


def _with_more_ks(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config with 1, 2, 4, ..., num_samples and those of its ks that are no larger."""
  n = config['eval']['num_samples']
  powers = (2**i for i in range(n.bit_length()))
  ks = sorted({*powers, n, *(k for k in config['eval']['ks'] if k <= n)})
  return {**config, 'eval': {**config['eval'], 'ks': tuple(ks)}}


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
  keep_compilations(workdirs[0])
  try:
    connect_by_flags()
    report.require_matplotlib()
    checkpoint = read_checkpoint_name(args.checkpoint)
    output = output_folder(workdirs[0], args.output, args.overwrite)
    results = evaluate_workdirs(
      as_dict(args.config), workdirs, checkpoint, args.seed, args.num_prompts_at_once, output
    )
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  if not processes.is_first():
    return
  results = {'command': f'python -m pkpo_jax.evaluate {shlex.join(sys.argv[1:])}', **results}
  output.mkdir(parents=True, exist_ok=True)
  report.write_json(results, output / 'evaluation.json')
  report.draw(results, output / 'evaluation.png')
  print(report.table(results))
  print(
    f'All of it, problem by problem: {output}/evaluation.json    Figure: {output}/evaluation.png'
  )
  if (output / 'samples.jsonl').is_file():
    print(f'What was sampled: python -m pkpo_jax.samples {shlex.quote(str(output))}')


def output_folder(workdir: pathlib.Path, output: str | None, overwrite: bool) -> pathlib.Path:
  """Returns where an evaluation is written: never over another, unless that is asked for.

  Args:
    workdir: the first run's.
    output: a folder by name; None is workdir/evaluation, or the first free of evaluation_2, ...
    overwrite: write over what is there.

  Raises:
    FieldError: if the folder by name holds an evaluation.
  """
  if output is not None:
    is_free = overwrite or not (pathlib.Path(output) / 'evaluation.json').exists()
    expect(is_free, 'output', 'a folder without an evaluation, or --overwrite', output)
    return pathlib.Path(output)
  names = itertools.chain(['evaluation'], (f'evaluation_{i}' for i in itertools.count(2)))
  folders = (workdir / name for name in names)
  return next(x for x in folders if overwrite or not (x / 'evaluation.json').exists())


def run() -> None:
  """The console script."""
  # Not at the top, as another command has flags of the same names.
  define_process_flags()
  define = flags.DEFINE_string
  define('workdir', None, 'Folder of the run.')
  define('checkpoint', 'latest', "Which checkpoint: a step, 'latest' or 'best'.")
  define('other_workdir', None, 'Folder of a run to compare with, on the same problems.')
  define('output', None, 'Folder for JSON, figure, samples; workdir/evaluation or the next free.')
  flags.DEFINE_boolean('overwrite', False, 'Write over an evaluation that is there.')
  flags.DEFINE_integer('seed', 0, 'Of all that the evaluation draws.', lower_bound=0)
  flags.DEFINE_integer(
    'num_prompts_at_once',
    None,
    'Prompts that are sampled at a time. If not given, no more completions are held than in an '
    'evaluation during training.',
    lower_bound=1,
  )
  app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; --config is workdir/config.json, open to overrides, if it is not given."""
  flags.mark_flag_as_required('workdir')
  config = None
  try:
    words = expand(argv)
    workdir = flag_value(words, 'workdir')
    if workdir is not None and flag_value(words, 'config') is None:
      file = config_file_of(pathlib.Path(workdir))
      if file is not None:
        import_file(file)  # It may register a task or a policy.
      config = from_json(complete(read_config(pathlib.Path(workdir))))
  except CONFIG_ERRORS as error:
    sys.exit(str(error))
  return parse_flags(argv, config)


def read_checkpoint_name(name: str) -> int | str:
  """Returns a step, 'latest' or 'best', as a flag names it."""
  is_known = name in ('latest', 'best') or name.isdigit()
  expect(is_known, 'checkpoint', "a step, 'latest' or 'best'", name)
  return int(name) if name.isdigit() else name


if __name__ == '__main__':
  run()

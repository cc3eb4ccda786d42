"""A run's folder: whose it is, with which config, and what of that may change."""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from pkpo_jax import processes
from pkpo_jax.errors import WorkdirError

# Fields that change no number of a training, so that a resumed run may have others. Those of the
# mesh and those that only save memory or time change the order of sums, and so the last bits.
# log.rolling_steps is none of them: it is the length of a window that is saved.
_FREE = re.compile(
  r'log\.(?!rolling_steps).*|checkpoint\..*|mesh\..*|eval\.every'
  r'|task\.(num_workers|deadline_s|data_dir|(\w+_)?source)'
  r'|loss\.num_(microbatches|sample_blocks|lengths)|policy\.(remat|log_prob_chunk|num_packings)'
)
# Paths; others are as good if their files are the same.
_PATHS = ('policy.weights', 'policy.tokenizer.path', 'warm_start')
_HEAD_BYTES = 2**20  # Of each file, beside its name and size, what is compared.


def keep_compilations(workdir: pathlib.Path) -> None:
  """Makes jax keep compiled programs in .jax_cache beside workdir, for the next start of any run.

  Where JAX_COMPILATION_CACHE_DIR says another folder, it is that one. To be called before anything
  is compiled. An entry is for one version of jax and one kind of machine; others compile anew.
  """
  if jax.config.jax_compilation_cache_dir is None:
    folder = workdir.absolute().parent / '.jax_cache'
    jax.config.update('jax_compilation_cache_dir', str(folder))
    # A run compiles many programs that take less than a second each.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def check_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Returns the fields in which this config differs from that of the run in `workdir`.

  Only fields that change no number may differ: log, checkpoint, mesh, when the run is evaluated,
  the workers of the judge, what only saves memory or time, and paths of the same files; and
  num_train_steps, if the learning rate does not depend on it. Changes nothing.

  Args:
    workdir: the folder, which need not be there.
    config: the whole config, with all fields.

  Returns: for each field by its dotted name the old value and the new one; {} where there is no run
    yet.

  Raises:
    WorkdirError: if the folder belongs to another run; names the fields that differ.
  """
  if not (workdir / 'config.json').exists():
    return {}
  config = json.loads(json.dumps(config))
  contents = _contents(config)
  old, new = flatten(read_config(workdir)), flatten(config)
  changed = sorted(f for f in old.keys() | new.keys() if old.get(f) != new.get(f))
  known = _read_json(workdir / 'origin.json', {'contents': {}})
  refused = [field for field in changed if not _may_change(field, config, contents, known)]
  if refused:
    differences = '; '.join(f'{f}: {old.get(f)!r} there, {new.get(f)!r} now' for f in refused)
    raise WorkdirError(f'workdir: {workdir} holds a run with another config: {differences}.')
  reached = _last_saved_step(workdir)
  if config['num_train_steps'] < reached:
    raise WorkdirError(
      f'workdir: {workdir} holds a run that has come to step {reached}, beyond '
      f'num_train_steps = {config["num_train_steps"]}.'
    )
  return {field: (old.get(field), new.get(field)) for field in changed}


def check_same_config(config: Mapping[str, Any]) -> None:
  """Raises WorkdirError that names a field if a process of the run has another config."""
  own = flatten(config)
  first, *_ = processes.gather(own)
  for field in sorted(own.keys() | first.keys()):
    if own.get(field) != first.get(field):
      raise WorkdirError(
        f'config.{field}: expected the same in all processes, got {first.get(field)!r} in the '
        f'first and {own.get(field)!r} in process {jax.process_index()}.'
      )


def claim_workdir(
  workdir: pathlib.Path, config: Mapping[str, Any], config_file: str | None = None
) -> None:
  """Makes `workdir` that of a run with this config, or lets its run go on with this config.

  What has changed is printed and added to workdir/config_history.jsonl. Another process must not
  train there: call it while the workdir is locked.

  Args:
    workdir: the folder, which is there.
    config: the whole config, with all fields.
    config_file: the file that it came from, kept for `pkpo_jax.evaluate`.

  Raises:
    WorkdirError: see `check_workdir`; or if the folder cannot be written to.
  """
  processes.by_first(lambda: _claim(workdir, config, config_file))


def _claim(workdir: pathlib.Path, config: Mapping[str, Any], config_file: str | None) -> None:
  """Does what `claim_workdir` says, in one process."""
  changed = check_workdir(workdir, config)
  path, is_new = workdir / 'config.json', not (workdir / 'config.json').exists()
  if not (is_new or changed):
    return
  try:
    if is_new:
      file = config_file and str(pathlib.Path(config_file.split(':')[0]).absolute())
      origin = {'config_file': file, 'contents': _contents(config)}
      _write(workdir / 'origin.json', origin)
    for field, (old, new) in changed.items():
      print(f'{field}: {old!r} until now, {new!r} from here on.')
    if changed:
      entry = {'step': _last_saved_step(workdir), 'changed': changed}
      with (workdir / 'config_history.jsonl').open('a') as history:
        history.write(json.dumps(entry) + '\n')
    _write(path, config)
  except OSError as error:
    raise WorkdirError(f'workdir: cannot write to {workdir}: {error.strerror}.') from error


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the config of the run in `workdir`.

  Raises:
    WorkdirError: if there is none, or it cannot be read.
  """
  path = workdir / 'config.json'
  if not path.is_file():
    raise WorkdirError(
      f'workdir: expected the folder of a run, with its config.json, got {str(workdir)!r}.'
    )
  return _read_json(path)


def config_file_of(workdir: pathlib.Path) -> pathlib.Path | None:
  """Returns the config file that the run in `workdir` was started with, None if it is unknown."""
  name = _read_json(workdir / 'origin.json', {}).get('config_file')
  return pathlib.Path(name) if name and pathlib.Path(name).is_file() else None


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps `workdir` to this run while in the `with` statement; makes it if need be.

  Of several processes of the run the first has the lock.

  Raises:
    WorkdirError: if another run has it, or it cannot be written to.
  """
  with contextlib.ExitStack() as stack:
    processes.by_first(lambda: stack.enter_context(_lock(workdir)))
    yield


@contextlib.contextmanager
def _lock(workdir: pathlib.Path) -> Iterator[None]:
  """Does what `lock_workdir` says, in one process."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = (workdir / 'lock').open('w')
  except OSError as error:
    raise WorkdirError(f'workdir: cannot write to {workdir}: {error.strerror}.') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise WorkdirError(f'workdir: another process trains in {workdir}.') from error
    yield


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns nested dicts as one dict with dotted names; an empty one inside stays as it is."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping) and value:
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def _may_change(
  field: str, config: Mapping[str, Any], contents: Mapping[str, Any], known: Mapping[str, Any]
) -> bool:
  """Returns whether a run may go on with another value of a field.

  Args:
    field: its dotted name.
    config: the new config.
    contents: of the paths in it.
    known: workdir/origin.json, with the contents when the run began.
  """
  if field == 'num_train_steps':
    optimizer = config['optimizer']
    return optimizer['decay'] == 'constant' or optimizer['decay_steps'] is not None
  if field in _PATHS:
    return contents.get(field) is not None and contents[field] == known['contents'].get(field)
  return _FREE.fullmatch(field) is not None


def _last_saved_step(workdir: pathlib.Path) -> int:
  """Returns the step of the newest checkpoint, 0 if there is none."""
  names = (path.name for path in (workdir / 'checkpoints').glob('*'))
  return max((int(name) for name in names if name.isdigit()), default=0)


def _contents(config: Mapping[str, Any]) -> dict[str, str | None]:
  """Returns hashes of what is at the paths in a config, by field."""
  flat = flatten(config)
  return {field: _content(flat[field]) for field in _PATHS if flat.get(field) is not None}


def _content(path: str) -> str | None:
  """Returns a hash of a file's, or a folder's, names, sizes and first bytes; None: not there."""
  root = pathlib.Path(path).expanduser()
  if not root.exists():
    return None
  digest = hashlib.sha256()
  for each in sorted(root.rglob('*')) if root.is_dir() else [root]:
    if each.is_file():
      name = str(each.relative_to(root)) if root.is_dir() else ''
      digest.update(f'{name} {each.stat().st_size} '.encode())
      with each.open('rb') as file:
        digest.update(file.read(_HEAD_BYTES))
  return digest.hexdigest()


def _read_json(path: pathlib.Path, default: Any = None) -> Any:
  """Returns what a file holds; `default`, if there is one, where it is missing."""
  if default is not None and not path.exists():
    return default
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise WorkdirError(
      f'{path}: expected JSON, got {error}. Put a good copy there, or use another workdir.'
    ) from error
  if not isinstance(value, dict):
    raise WorkdirError(f'{path}: expected a JSON object, got {value!r}.')
  return value


def _write(path: pathlib.Path, value: Any) -> None:
  """Writes JSON: the whole file or nothing, should the process be killed here."""
  scratch = path.with_suffix('.tmp')
  scratch.write_text(json.dumps(value, indent=2) + '\n')
  scratch.replace(path)

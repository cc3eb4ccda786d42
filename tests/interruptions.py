"""Trainings in processes of their own, of which some are interrupted at a chosen moment."""

import atexit
import contextlib
import dataclasses
import multiprocessing
import os
import re
import sys
import threading
from pathlib import Path

import jax

from configs import bandit, default
from pkpo_jax import main
from pkpo_jax.policies import POLICIES
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import TextProblems, decode_completions
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.train import train
from tests.sequence_policy import BagPolicy

ROOT = Path(__file__).parent.parent

# A server that has imported all this forks the processes, so that they start at once.
_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload([__name__])


def metrics_text(workdir):
  """Returns metrics.jsonl byte for byte, but for how long things took."""
  return re.sub(r', "time/[^,}]*', '', (workdir / 'metrics.jsonl').read_text())


def verifiers_of(pid):
  """Returns the worker processes of a process's pool."""
  for path in Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      parent = path.read_text().rpartition(')')[2].split()[1]
      if int(parent) == pid and 'worker_main.py' in (path.parent / 'cmdline').read_text():
        yield int(path.parent.name)


@dataclasses.dataclass(frozen=True)
class Interruption:
  """A signal that a process sends itself at the first of these moments.

  Attributes:
    signal: which.
    seconds: so long after it has begun.
    operation: at the so manieth operation on a file of the workdir, counted from 1; those that
      Python does, in all its threads, not those in the C++ of the checkpointer.
    rename: when this path in the workdir is about to get its name.
  """

  signal: int
  seconds: float | None = None
  operation: int | None = None
  rename: str | None = None


class Near(TextProblems):
  """The prompt is a letter; a completion is right if that letter or a neighbour is in it."""

  def __init__(self, tokenizer: Tokenizer, num_held_out: int = 4):
    super().__init__(tokenizer, 'abcdefghijklmnop', num_held_out)
    self.vocab_size = self.tokenizer.vocab_size

  def prompt_text(self, problem):
    return problem

  def verify(self, problem, completion):
    is_right = any(abs(ord(letter) - ord(problem)) <= 1 for letter in completion)
    return Verdict('right' if is_right else 'wrong', completion)

  def verdicts(self, prompts, rollout):  # Of completions that have come to no end, too.
    texts = decode_completions(self.tokenizer, rollout)
    problems = [self._problems[i] for i in prompts.ids]
    return [
      [self.verify(p, text) for text in group] for p, group in zip(problems, texts, strict=True)
    ]

  def demonstrate(self, problem, rng):
    raise NotImplementedError


class LastToken(BagPolicy):
  """BagPolicy after the last token of a prompt."""

  completions = 'text'

  def sample(self, params, prompts, num_samples, key):
    prompts = prompts.replace(tokens=prompts.tokens[:, -1:], mask=prompts.mask[:, -1:])
    return super().sample(params, prompts, num_samples, key)


def bandit_config():
  config = bandit.get_config('hidden_answer')
  config.update_from_flattened_dict({**_SMALL, 'task.num_contexts': 2, 'task.num_arms': 4})
  return config


def text_config():
  config = default.get_config()
  config.task = {'name': 'near'}
  config.policy = {'name': 'last_token', 'width': 8, 'tokenizer': {'name': 'characters'}}
  config.update_from_flattened_dict({**_SMALL, 'rollout.num_samples': 8})
  return config


_SMALL = {
  'num_train_steps': 6,
  'rollout.num_prompts': 4,
  'rollout.num_samples': 4,
  'advantage.name': 'mean_centered',
  'advantage.k': 1,
  'eval.every': 2,
  'eval.ks': (1, 2),
  'eval.num_prompts': 4,
  'eval.num_samples': 2,
  'checkpoint.every': 2,
  'checkpoint.best_metric': 'eval/pass@1',
  'log.every': 1,
  'log.rolling_steps': 3,
}


def train_in_process(workdir, make_config, interruption=None):
  """Returns the exit code of a process that trains, and how many operations on files it did."""
  os.environ['PYTHONPATH'] = str(ROOT)  # Of the server, which is started with the first process.
  num_operations = _context.Value('i', 0)
  arguments = workdir, make_config, interruption, num_operations
  process = _context.Process(target=_train, args=arguments)
  process.start()
  process.join()
  return process.exitcode, num_operations.value


def command_process(arguments, output, prepare=None):
  """Returns a process that runs `pkpo_jax.main` with these arguments, once it has begun.

  Args:
    arguments: the command line.
    output: the file of its stdout and stderr.
    prepare: what it calls first.
  """
  os.environ['PYTHONPATH'] = str(ROOT)
  process = _context.Process(target=_command, args=(arguments, output, prepare))
  process.start()
  return process


def run_command(arguments, output, prepare=None):
  """Returns the exit code of `command_process`, and what it printed."""
  process = command_process(arguments, output, prepare)
  process.join()
  return process.exitcode, Path(output).read_text()


def _command(arguments, output, prepare):
  _set_up(output)
  if prepare is not None:
    prepare()
  os.chdir(ROOT)
  sys.argv = ['main', *arguments]
  try:
    main.run()
  finally:
    atexit._run_exitfuncs()  # A process of `multiprocessing` would leave without.


def _set_up(output):
  """Gives a process one device, the compiled programs of the tests, and a file for its output."""
  os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
  jax.config.update('jax_compilation_cache_dir', str(ROOT / '.jax_cache'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(file, 1)
  os.dup2(file, 2)


def _train(workdir, make_config, interruption, num_operations):
  TASKS['near'], POLICIES['last_token'] = Near, LastToken
  workdir.parent.mkdir(exist_ok=True)
  _set_up(workdir.with_suffix('.log'))
  if interruption is not None and interruption.seconds is not None:
    threading.Timer(interruption.seconds, os.kill, (os.getpid(), interruption.signal)).start()

  def watch(event, args):
    is_ours = args and isinstance(args[0], str | Path) and str(args[0]).startswith(str(workdir))
    if event not in ('open', 'os.mkdir', 'os.remove', 'os.rename', 'os.rmdir') or not is_ours:
      return
    with num_operations.get_lock():  # Several threads write.
      num_operations.value += 1
      number = num_operations.value
    if interruption is not None and (
      number == interruption.operation
      or event == 'os.rename'
      and interruption.rename is not None
      and str(args[1]) == str(workdir / interruption.rename)
    ):
      os.kill(os.getpid(), interruption.signal)

  sys.addaudithook(watch)
  train(make_config(), workdir)

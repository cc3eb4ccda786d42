"""Candidates in processes of their own that take turns at the same work.

A candidate is a class: built from a workload (a mapping of JSON values), each call of it does the
work once, waits for the result and may return a mapping of JSON values. It may have `about`, such a
mapping that says what it is, and `close`, which is called at the end. Each lives in a process of
its own, with the interpreter that has what it needs, so that the first call of each is a cold one
and none sees what another left behind. Only the standard library is used here: a candidate's
interpreter may be an older Python without JAX.

    python -m benchmarks.turns benchmarks.peers.gemma_library:Sampler '{"num_prompts": 8, ...}'

is what `Candidate` starts; it reads requests, and writes replies, one line of JSON each.
"""

import importlib
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Missing(Exception):
  """A candidate cannot run here: its interpreter or a package is not there."""


class Candidate:
  """A candidate in a process of its own; a context manager.

  Attributes:
    missing: why it cannot run, or None.
  """

  def __init__(self, target, workload, python=sys.executable, timeout=600.0):
    """Starts `python -m benchmarks.turns target workload` in the root of the repository.

    Args:
      target: 'module:Class'.
      workload: what the class is built from.
      python: the interpreter, which has what the module imports; None if there is none.
      timeout: seconds that any one reply may take.
    """
    self.missing = None
    self._process = None
    self._timeout = timeout
    self._errors = tempfile.TemporaryFile()  # noqa: SIM115
    if python is None:
      self.missing = 'no interpreter was given for it'
      return
    # A cache of compiled programs would warm the first call.
    environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
    environment['TORCHINDUCTOR_FORCE_DISABLE_CACHES'] = '1'
    command = [str(python), '-m', 'benchmarks.turns', target, json.dumps(workload)]
    try:
      self._process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
      )
    except OSError as error:
      self.missing = f'{python}: {error.strerror}'
      return
    try:
      self.about = self._reply()
    except Missing as error:
      self.missing = str(error)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._process is not None:
      self._process.stdin.close()
      try:
        self._process.wait(timeout=20)
      except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
      self._process.stdout.close()
    self._errors.close()

  def call(self):
    """Does the work once; returns what the call returned, 'seconds' and 'cpu_seconds'.

    The second are those of all threads of its process, which other work disturbs less.
    """
    return self._ask('__call__')

  def ask(self, method, *arguments):
    """Returns what a method of the candidate returns, under 'result'."""
    return self._ask(method, *arguments)['result']

  def _ask(self, method, *arguments):
    self._process.stdin.write(json.dumps([method, *arguments]).encode() + b'\n')
    self._process.stdin.flush()
    return self._reply()

  def _reply(self):
    ready, _, _ = select.select([self._process.stdout], [], [], self._timeout)
    line = self._process.stdout.readline() if ready else b''
    if not line:
      self._process.kill()
      self._errors.seek(0)
      said = self._errors.read().decode(errors='replace')[-3000:]
      why = 'ended' if ready else f'did not reply within {self._timeout:.0f} s'
      raise RuntimeError(f'{" ".join(self._process.args)} {why}:\n{said}')
    reply = json.loads(line)
    if 'missing' in reply:
      raise Missing(reply['missing'])
    return reply


def take_turns(candidates, repeats, pause=0.05):
  """Returns the replies to `repeats` calls of each candidate, one after another: A B C A B C ...

  Args:
    candidates: mapping of name to Candidate, none missing.
    repeats: calls of each.
    pause: seconds before each call, for the threads of the one before to fall asleep.
  """
  replies = {name: [] for name in candidates}
  for _ in range(repeats):
    for name, candidate in candidates.items():
      time.sleep(pause)
      replies[name].append(candidate.call())
  return replies


def median(replies, key='seconds'):
  """Returns the median of one value over the replies of one candidate."""
  return statistics.median(reply[key] for reply in replies)


def serve(target, workload):
  """Builds a candidate and answers requests until there are no more."""
  # What libraries print must not mix with the replies.
  replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def reply(**values):
    print(json.dumps(values), file=replies, flush=True)

  module, _, name = target.partition(':')
  try:
    candidate = getattr(importlib.import_module(module), name)(workload)
  except ImportError as error:
    reply(missing=str(error))
    return
  reply(**getattr(candidate, 'about', {}))
  for line in sys.stdin:
    method, *arguments = json.loads(line)
    if method == '__call__':
      start, cpu_start = time.perf_counter(), time.process_time()
      found = candidate() or {}
      cpu_seconds = time.process_time() - cpu_start
      reply(seconds=time.perf_counter() - start, cpu_seconds=cpu_seconds, **found)
    else:
      reply(result=getattr(candidate, method)(*arguments))
  getattr(candidate, 'close', lambda: None)()


if __name__ == '__main__':
  serve(sys.argv[1], json.loads(sys.argv[2]))

"""What a worker of `pkpo_jax.workers.pool` does for `verifier.py`; imported by nobody.

It runs the tests; the completion runs in another process. Without the rest of pkpo_jax, which takes
long to import.
"""

import importlib.util
import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

OWN_CPU_S = 3.0  # For parsing a completion and comparing what it returns, without running it.


def _load(path: Path) -> ModuleType:
  """Imports a file by its path, as this process has no package on its path."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


_WORKERS = Path(__file__).parents[2] / 'workers'
sandbox = _load(_WORKERS / 'sandbox.py')
remote_calls = _load(_WORKERS / 'remote_calls.py')
programs = _load(Path(__file__).with_name('programs.py'))


def make_handler(command: str, is_sandboxed: str, deadline_s: str) -> Callable[[dict], list]:
  """Returns what judges an item.

  Args:
    command: JSON; what `sandbox.start` starts.
    is_sandboxed: 'True' or 'False'; of that, too.
    deadline_s: seconds that a completion may run.
  """

  def handle(item: dict[str, Any]) -> list:
    """Returns kind, answer and score of a verdict; item has a completion and `UnitTests`."""
    # The kernel ends this process, and with it the sandbox, where what a completion is or returns
    # takes that long to read: a set of numbers that share one hash, for one.
    signal.setitimer(signal.ITIMER_VIRTUAL, OWN_CPU_S)
    try:
      return judge(item['completion'], programs.UnitTests(**item['tests']))
    finally:
      signal.setitimer(signal.ITIMER_VIRTUAL, 0)

  def judge(completion: str, tests) -> list:
    code = programs.extract_code(completion, tests.prompt)
    try:
      answer = code and programs.normalized(code)
    except (RecursionError, ValueError):  # Nested deeply; an integer with thousands of digits.
      answer = None
    if answer is None:
      return ['malformed', None, 0.0]
    guest = sandbox.start(json.loads(command), is_sandboxed == 'True')
    try:
      program = remote_calls.RemoteProgram(guest.requests, guest.replies)
    except remote_calls.Ended as end:
      raise RuntimeError(f'{end} at its start: {guest.kill()}') from None
    try:
      passed = run_tests(program, code, tests, float(deadline_s))
    finally:
      guest.kill()
    if program.ended:
      return [program.ended, answer, 0.0]
    return ['right' if all(passed) else 'wrong', answer, tests.score(passed)]

  return handle


def run_tests(program, code: str, tests, deadline_s: float) -> list[bool]:
  """Returns which tests pass.

  Args:
    program: a RemoteProgram; if it has ended, what is returned does not count.
    code: of the completion.
    tests: of the problem.
    deadline_s: seconds that the completion may run, in all tests together.

  Raises:
    RuntimeError: if the tests are at fault.
  """
  passed = [False] * len(tests.tests)
  try:
    if not program.load(code, deadline_s):
      return passed
  except remote_calls.Ended:
    return passed
  for i, test in enumerate(tests.tests):
    namespace = {'__name__': 'tests'}
    exec(tests.setup_code, namespace)
    namespace |= {name: _remote_function(program, name) for name in tests.functions}
    try:
      exec(test, namespace)
      passed[i] = not program.ended  # A bare `except:` in a test may have hidden that.
    except remote_calls.CannotCrossError as error:
      raise RuntimeError(f'{test!r}: {error}') from error
    except BaseException:  # Of the completion, and of comparing what it returned.
      pass
    if program.ended:
      break
  return passed


def _remote_function(program, name: str) -> Callable:
  return lambda *args, **kwargs: program.call(name, args, kwargs)

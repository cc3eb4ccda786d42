#!/usr/bin/env python
"""Runs the commands that the READMEs and configs tell readers to run, in a fresh clone, in small.

  python tools/check_commands.py [--venv=.venv] [--list] [--only=REGEX] [--max_seconds=60]

reads every command out of the files, makes a clone of the last commit, and runs there what RULES
makes of each. A command that no rule knows is a failure, so that none is added unchecked. Exits
with 1 if a command fails.
"""

import argparse
import ast
import glob
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The small forms of some commands look at the run that docs/training.md begins with.
TEXTS = ('README.md', 'docs/training.md', 'docs/*.md', 'experiments/README.md')
TEXTS += ('experiments/*/README.md', 'benchmarks/README.md', 'launch/README.md')
CONFIGS = 'configs/*.py'
_STARTS = re.compile(r'(python -m |make\b(?! TARGET)|pip install|uv pip|\.venv/bin/|bash )')
# What may stand before a command and changes nothing of what it does.
_PREFIX = re.compile(r'(\w+=\S+ )*(nice (-n \d+ )?)?(?=python -m )')
_TIMEOUT_S = 1800
_TAIL = 15  # Lines of a failed command's output that are shown.
# What stands for something that the reader has and a clone does not.
_PLACEHOLDER = re.compile(r'=(FOLDER|FILE|DIR)$')
# Configs of released weights, which have a variant ':tiny' that needs none.
_RELEASED = '(gemma2_(2b|9b|maze)|llama3_1_8b|qwen2_5_7b)'
_WITH_CONFIG = r'python -m (pkpo_jax\.main|experiments\.launcher) --config=configs/'
_TWO_STEPS = (
  '--config.num_train_steps=2 --config.optimizer.warmup_steps=0 --config.eval.num_prompts=16 '
  '--config.log.tensorboard=False'
).split()


class Rule(NamedTuple):
  """What is run in place of the commands that a pattern matches from their beginning.

  Attributes:
    pattern: a regular expression.
    small: fn(words) -> words of the small form; or a text: why there is none.
    seconds: about how long it takes on two cores.
  """

  pattern: str
  small: Callable[[list[str]], list[str]] | str
  seconds: int = 0


class Command(NamedTuple):
  """A command and where it stands: a file, relative to the root."""

  source: str
  text: str


def as_written(words: list[str]) -> list[str]:
  """Returns the command itself."""
  return words


def two_steps(words: list[str]) -> list[str]:
  """Returns a training of two steps."""
  return [*words, *_TWO_STEPS]


def tiny(words: list[str]) -> list[str]:
  """Returns the variant ':tiny', which needs no weights, without what a clone does not have."""
  kept = [word for word in words if not _PLACEHOLDER.search(word)]
  return [re.sub(r'^(--config=[\w/]+\.py)(:quick)?$', r'\1:tiny', word) for word in kept]


def tiny_sweep(words: list[str]) -> list[str]:
  """Returns one run of a sweep of the variant ':tiny'."""
  kept = [word for word in tiny(words) if not word.startswith('--only=')]
  name = next(re.search(r'configs/(\w+)', word)[1] for word in kept if 'configs/' in word)
  return [
    *kept,
    '--num_seeds=1',
    f'--only={"analytical" if re.search("maze|puzzles", name) else "k1"}',
  ]


def evaluation(words: list[str]) -> list[str]:
  """Returns the evaluation of a run beside itself: the bandit's, which is trained first."""
  run = 'runs/k4'
  return [re.sub(r'(workdir)=.*', rf'\1={run}', word) for word in words]


def replaced(text: str) -> Callable[[list[str]], list[str]]:
  """Returns what gives the same words for every command."""
  return lambda words: shlex.split(text)


def with_words(text: str) -> Callable[[list[str]], list[str]]:
  """Returns what adds words to a command."""
  return lambda words: [*words, *shlex.split(text)]


# The first that matches counts. `make` would install into a clone what the given environment has:
# in its place the command of the target is run.
RULES = (
  Rule(
    rf'make quickstart-pretrained|{_WITH_CONFIG}(gemma3_270m|smollm2_135m)',
    'needs the packages that ship models; tests train a model on their task',
  ),
  Rule(
    r'make quickstart|python -m experiments\.quickstart',
    replaced('python -m experiments.quickstart --smoke'),
    90,
  ),
  Rule(r'make (docs|test|lint|notebooks)\b|bash \.ci/run', 'a step of .ci/run by itself'),
  Rule(r'make bench\b', replaced('python -m benchmarks.kernels --quick --outdir bench'), 30),
  Rule(r'make figures\b', replaced('python -m experiments.figures --output_dir figures'), 20),
  Rule(
    r'make constraints|\S*pip install|uv pip|python -m venv|'
    r'\.venv/bin/(pre-commit|python -m (pip|uv))',
    'changes an environment',
  ),
  Rule(r'make$', replaced('make'), 1),
  Rule(rf'python -m pkpo_jax\.main --config=configs/{_RELEASED}', tiny, 60),
  Rule(r'bash launch/local\.sh ', two_steps, 60),
  Rule(r'bash launch/', 'needs a cluster; the tests run it with stand-ins'),
  Rule(r'python -m pkpo_jax\.main --config=configs/(bandit|gaussian)', two_steps, 15),
  Rule(r'python -m pkpo_jax\.main ', two_steps, 40),
  Rule(r'python -m pkpo_jax\.evaluate ', evaluation, 20),
  Rule(
    r'python -m pkpo_jax\.score ',
    replaced('python -m pkpo_jax.score runs/k4/evaluation/samples.jsonl --output=scores'),
    20,
  ),
  Rule(r'python -m pkpo_jax\.report ', replaced('python -m pkpo_jax.report runs/k4'), 20),
  Rule(r'python -m pkpo_jax\.runs ', replaced('python -m pkpo_jax.runs runs'), 10),
  Rule(r'python -m pkpo_jax\.prepare .*=FOLDER', 'needs the published files of a data set'),
  Rule(
    r'python -m pkpo_jax\.plan ',
    replaced(
      'python -m pkpo_jax.plan --config=configs/llama3_1_8b_math.py:tiny --devices=2 --chip=v5e '
      '--prompt_tokens=32'
    ),
    30,
  ),
  Rule(r'python -m pkpo_jax\.export ', replaced('python -m pkpo_jax.export --help'), 10),
  Rule(r'python -m pkpo_jax\.samples runs/', replaced('python -m pkpo_jax.samples runs/k4'), 10),
  Rule(r'python -m pkpo_jax\.samples ', replaced('python -m pkpo_jax.samples --help'), 10),
  Rule(rf'python -m experiments\.launcher --config=configs/{_RELEASED}', tiny_sweep, 60),
  Rule(r'python -m experiments\.launcher ', with_words(_TWO_STEPS[0]), 60),
  Rule(r'python -m experiments\.(maze_tiny|hidden_answer)\.sweep', with_words('--smoke'), 90),
  Rule(r'python -m experiments\.(steps_ahead|gradient_noise)\.sweep', with_words('--smoke'), 120),
  Rule(r'.*maze_(methods|rewards|transfer)\.sweep --smoke', as_written, 120),
  Rule(
    r'python -m experiments\.maze_(methods|rewards|transfer)\.sweep',
    'its small form is a command of its own',
  ),
  Rule(
    r'python -m experiments\.(head_to_head|passk_training_estimators)\.sweep',
    with_words('--smoke'),
    60,
  ),
  Rule(r'python -m experiments\.toy_annealing\.sweep', as_written, 100),
  Rule(
    r'python -m experiments\.interval_coverage\.sweep',
    with_words('--only=single --num_draws=2 --output_dir=coverage'),
    90,
  ),
  Rule(
    r'python -m experiments\.quickstart_seeds\.sweep',
    'ten quickstarts; one of them is run in small',
  ),
  Rule(r'python -m experiments\.\w+\.sweep', as_written, 50),
  Rule(r'python -m experiments\.\w+\.figure', as_written, 5),
  Rule(
    r'python -m (pkpo_jax\.pretrained|experiments\.pretrained)',
    'needs the packages that ship models; tests run it on made-up ones',
  ),
  Rule(r'python -m benchmarks\.parity', 'rewrites its table; a test compares the logits'),
  Rule(
    r'python -m benchmarks\.(gemma2_gpu|rollout|rl_step|log_prob_memory|ordergrad)',
    'needs a GPU or peers that are not installed; the tests run its small form',
  ),
  Rule(r'python -m benchmarks\.math_agreement', 'rewrites its table; a test compares it'),
  Rule(r'python -m benchmarks\.\w+', with_words('--quick --outdir bench'), 60),
)


def commands_in_markdown(text: str) -> Iterator[str]:
  """Yields the commands of indented and fenced blocks, and of code within lines."""
  is_fenced = False
  for line in _joined(text):
    if line.lstrip().startswith('```'):
      is_fenced = not is_fenced
    elif is_fenced or line.startswith('    '):
      if _STARTS.match(_PREFIX.sub('', line.strip(), 1)):
        yield _without_comment(line)
    else:
      spans = (span.strip() for span in re.findall(r'`([^`]+)`', line))
      yield from (x for x in spans if re.match(r'(python -m [\w.]*\w|make)( |$)', x))


def commands_in_docstring(source: str) -> Iterator[str]:
  """Yields the commands in the docstring of a Python file, each on a line of its own."""
  docstring = ast.get_docstring(ast.parse(source)) or ''
  for line in _joined(docstring):
    command = _PREFIX.sub('', line.strip(), 1)
    if _STARTS.match(command) and not command.startswith('make '):
      yield _without_comment(line)


def find_commands(root: pathlib.Path) -> list[Command]:
  """Returns each command once, in the order of the files."""
  found: dict[str, Command] = {}
  for pattern, read in (
    *((text, commands_in_markdown) for text in TEXTS),
    (CONFIGS, commands_in_docstring),
  ):
    for name in sorted(glob.glob(pattern, root_dir=root)):
      for text in read((root / name).read_text()):
        found.setdefault(text, Command(name, text))
  return list(found.values())


def rule_of(text: str) -> Rule | None:
  """Returns the first rule that matches a command, None if there is none."""
  return next((rule for rule in RULES if re.match(rule.pattern, text)), None)


def main() -> None:
  """Lists the commands, or runs their small forms."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--venv', type=pathlib.Path, default=ROOT / '.venv', help='runs them')
  parser.add_argument('--list', action='store_true', help='only list the commands')
  parser.add_argument('--only', default='', help='regular expression that commands must contain')
  parser.add_argument('--max_seconds', type=int, help='leave out those that take longer')
  args = parser.parse_args()
  commands = [each for each in find_commands(ROOT) if re.search(args.only, each.text)]
  with tempfile.TemporaryDirectory() as folder:
    clone = pathlib.Path(folder) / 'clone'
    if not args.list:
      subprocess.run(['git', 'clone', '--quiet', ROOT, clone], check=True)
    done: dict[str, bool] = {}
    failed = [each.text for each in commands if not _check(each, clone, args, done)]
  if failed:
    sys.exit(f'{len(failed)} of {len(commands)} commands failed:\n  ' + '\n  '.join(failed))
  print(f'{len(commands)} commands, none failed.')


def _check(
  command: Command, clone: pathlib.Path, args: argparse.Namespace, done: dict[str, bool]
) -> bool:
  """Runs a command, or says why not; returns False if it fails. `done` gains what was run."""
  rule = rule_of(command.text)
  print(f'{command.source}: {command.text}')
  if rule is None:
    print('  FAILED: no rule in tools/check_commands.py says how to run it in small', flush=True)
    return False
  if isinstance(rule.small, str):
    print(f'  not run: {rule.small}', flush=True)
    return True
  words = rule.small(shlex.split(command.text))
  print(f'  {shlex.join(words)}', flush=True)
  if args.list or shlex.join(words) in done:
    return done.get(shlex.join(words), True)
  if args.max_seconds is not None and rule.seconds > args.max_seconds:
    print(f'  not run: takes about {rule.seconds} s', flush=True)
    return True
  # Of the clone alone, not of the folder that the environment may be tied to.
  path = f'{args.venv.absolute() / "bin"}{os.pathsep}{os.environ["PATH"]}'
  environment = os.environ | {'PATH': path, 'PYTHONPATH': str(clone)}
  start = time.monotonic()
  try:
    run = subprocess.run(
      words, cwd=clone, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    output, is_ok = run.stdout + run.stderr, run.returncode == 0
  except (subprocess.TimeoutExpired, FileNotFoundError) as error:
    output, is_ok = str(error), False
  done[shlex.join(words)] = is_ok
  print(f'  {"ok" if is_ok else "FAILED"}, {time.monotonic() - start:.0f} s', flush=True)
  if not is_ok:
    print('\n'.join(f'    {line}' for line in output.splitlines()[-_TAIL:]), flush=True)
  return is_ok


def _joined(text: str) -> list[str]:
  """Returns the lines, those that a backslash continues as one."""
  return re.sub(r' *\\\n\s*', ' ', text).splitlines()


def _without_comment(line: str) -> str:
  """Returns a command without prefix, comment after it and optional words in brackets."""
  command = re.sub(r'\s+#.*', '', _PREFIX.sub('', line.strip(), 1))
  command = re.sub(r'\s+(?=--)', ' ', command)
  return re.sub(r'\s+\[--.*?\]|(?<=\w)\[:\w+\]', '', command)


if __name__ == '__main__':
  main()

"""Functions to write: MBPP to train on, HumanEval held out."""

import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pkpo_jax.data import datasets
from pkpo_jax.data.base import Dataset, Record
from pkpo_jax.data.remembered import remembered
from pkpo_jax.errors import expect
from pkpo_jax.progress import progress_if_slow
from pkpo_jax.tasks.code.humaneval import HumanEval
from pkpo_jax.tasks.code.mbpp import Mbpp
from pkpo_jax.tasks.code.programs import (
  UnitTests,
  human_eval_tests,
  mbpp_tests,
  unsupported,
)
from pkpo_jax.tasks.code.verifier import CodeItem, CodeVerifier
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.text import TextProblems
from pkpo_jax.tokenizers import Tokenizer

INSTRUCTION = (
  'Write the Python function that is asked for. Answer with one block of code that has all it '
  'needs, imports included.'
)
REWARDS = ('all', 'share')


class CodeProblem(NamedTuple):
  """A function to write.

  Attributes:
    question: what is asked for.
    solution: the reference.
    tests: what judges a completion.
  """

  question: str
  solution: str
  tests: UnitTests


class CodeProblems(TextProblems):
  """Write a function that passes unit tests, which run in a sandbox."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    mbpp_source: str | None = None,
    humaneval_source: str | None = None,
    data_dir: str = 'data',
    train_splits: tuple[str, ...] = ('train',),
    num_shown_tests: int = 1,
    reward: str = 'share',
    prompt_format: str = 'gemma_it',
    max_prompt_tokens: int | None = 768,
    num_workers: int = 2,
    deadline_s: float = 10.0,
    memory_mib: int = 1024,
    unsafe_no_sandbox: bool = False,
  ):
    """Loads the problems and makes sure that the sandbox works.

    Problems whose tests cannot run apart from the solution, or which the reference fails (looked
    for once), are left out, and counted in a line that is printed.

    Args:
      tokenizer: the policy's.
      mbpp_source: folder with mbpp.jsonl, needed the first time; 'samples' takes a few dozen
        problems of our own in its format, which come with this package.
      humaneval_source: HumanEval.jsonl or .jsonl.gz; None takes the package human-eval's; 'samples'
        as for mbpp_source.
      data_dir: folder of prepared data sets.
      train_splits: of MBPP, to train on: 'train', 'validation', 'test', 'prompt'.
      num_shown_tests: how many of MBPP's tests the question shows; without any, nothing there says
        how the function is called.
      reward: 'all', 1 if all tests pass, or 'share', the share of the hidden tests that do, 0 if
        one that the question shows fails: what passes the shown tests alone, such as a constant,
        earns nothing. Problems of MBPP all of whose tests are shown cannot be judged so and are
        left out. With 'all' they stay, and a table of the shown answers is right.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat'; see `TextProblems`.
      max_prompt_tokens: see `TextProblems`.
      num_workers: processes that run tests.
      deadline_s: seconds for one completion.
      memory_mib: of one completion.
      unsafe_no_sandbox: run completions without protection where there is no sandbox.

    Raises:
      RuntimeError: if there is no working sandbox.
    """
    expect(reward in REWARDS, 'reward', f'one of {REWARDS}', reward)
    expect(num_shown_tests >= 1, 'num_shown_tests', 'at least 1', num_shown_tests)
    self._is_shaped = reward == 'share'
    if self._is_shaped:
      self.objectives = ('pass@k', 'max@k')
    self._verifier = CodeVerifier(
      num_workers, deadline_s, memory_mib, unsafe_no_sandbox=unsafe_no_sandbox
    )
    mbpp = _load(Mbpp(), data_dir, mbpp_source)
    for split in train_splits:
      expect(split in mbpp, 'train_splits', f'some of {sorted(mbpp)}', split)
    records = [record for split in train_splits for record in mbpp[split]]
    if reward == 'share':
      num_all, most = len(records), max(len(record['tests']) for record in records) - 1
      records = [record for record in records if len(record['tests']) > num_shown_tests]
      hidden = f"at most {most} with task.reward = 'share', so that tests stay hidden"
      expect(len(records) > 0, 'num_shown_tests', hidden, num_shown_tests)
      if len(records) < num_all:
        print(
          f'Left out {num_all - len(records)} of {num_all} problems of MBPP, as the question shows '
          f'all of their tests: task.num_shown_tests = {num_shown_tests}.'
        )
    usable = [x for x in records if not unsupported(x['tests'], x['setup_code'], x['code'])]
    train = [_mbpp_problem(record, num_shown_tests) for record in usable]
    human_eval = _load(HumanEval(), data_dir, humaneval_source)['test']
    held_out = [_human_eval_problem(record) for record in human_eval]
    path = pathlib.Path(data_dir).expanduser() / 'code_problems_that_fail.json'
    limits = [deadline_s, memory_mib, unsafe_no_sandbox, sys.version]
    about = [limits, *([list(problem) for problem in x] for x in (train, held_out))]
    failing = remembered(path, about, lambda: self._failing([*train, *held_out]))
    train, held_out = (
      [x for x in problems if x.solution not in failing] for problems in (train, held_out)
    )
    for name, all_of_it, kept in (('MBPP', records, train), ('HumanEval', human_eval, held_out)):
      if len(kept) < len(all_of_it):
        print(
          f'Left out {len(all_of_it) - len(kept)} of {len(all_of_it)} problems of {name}, whose '
          f'tests need more than plain data from a solution, or fail the reference; see {path}.'
        )
    super().__init__(
      tokenizer, [*train, *held_out], len(held_out), prompt_format, max_prompt_tokens
    )

  def close(self) -> None:
    """Ends the processes that run tests."""
    self._verifier.close()

  def prompt_text(self, problem: CodeProblem) -> str:
    """Returns the instruction and the question."""
    return self._format.prompt(problem.question, INSTRUCTION)

  def verify_batch(
    self, problems: Sequence[CodeProblem], completions: Sequence[str]
  ) -> list[Verdict]:
    """Returns the verdicts of `CodeVerifier`, with its scores if the reward is 'share'."""
    tests = [problem.tests for problem in problems]
    items = [CodeItem(*each) for each in zip(completions, tests, strict=True)]
    verdicts = self._verifier.verify_batch(items)
    return verdicts if self._is_shaped else [x._replace(score=None) for x in verdicts]

  def demonstrate(self, problem: CodeProblem, rng: np.random.Generator) -> str:
    """Returns the reference solution as a block of code."""
    del rng
    return f'```python\n{problem.solution.strip()}\n```'

  def _failing(self, problems: Sequence[CodeProblem]) -> dict[str, str]:
    """Returns references that fail their own tests, and how."""
    failing = {}
    for problem in progress_if_slow(problems, 'checking references, once', 'problems'):
      item = CodeItem(problem.solution, problem.tests)
      try:  # One by one, as tests at fault raise.
        verdicts = self._verifier.verify_batch([item])
        if verdicts[0].kind in (
          'timeout',
          'crashed',
          'unjudged',
        ):  # The machine may have been busy.
          verdicts = self._verifier.verify_batch([item])
        if not verdicts[0].is_success:
          failing[problem.solution] = verdicts[0].kind
      except RuntimeError as error:
        self._verifier.check()  # Raises if it was not the tests' fault.
        failing[problem.solution] = str(error).splitlines()[-1]
    some = f'references that pass their tests; the last does not: {[*failing.values()][-1:]}'
    expect(len(failing) < len(problems), 'mbpp_source', some, 'none')
    return failing


def _load(dataset: Dataset, data_dir: str, source: str | None) -> dict[str, list[Record]]:
  """Returns the records of a data set, or those of our own in its format."""
  if source == 'samples':
    folder = pathlib.Path(__file__).with_name('samples')
    is_file = isinstance(dataset, HumanEval)  # Its source is the file itself.
    return datasets.samples(dataset, folder / 'HumanEval.jsonl' if is_file else folder)
  return datasets.load(dataset, data_dir, source)


def _mbpp_problem(record: dict, num_shown_tests: int) -> CodeProblem:
  shown = '\n'.join(record['tests'][:num_shown_tests])
  question = f'{record["text"]}\n\nIt has to pass:\n{shown}'
  tests = mbpp_tests(record['tests'], record['setup_code'], record['code'], num_shown_tests)
  return CodeProblem(question, record['code'].replace('\r\n', '\n'), tests)


def _human_eval_problem(record: dict) -> CodeProblem:
  prompt = record['prompt']
  tests = human_eval_tests(prompt, record['test'], record['entry_point'])
  question = f'Complete this function.\n\n```python\n{prompt.strip()}\n```'
  return CodeProblem(question, prompt + record['canonical_solution'], tests)

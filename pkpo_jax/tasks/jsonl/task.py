"""Problems of the user's own, from files, with a choice of what judges completions."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pkpo_jax import own_code
from pkpo_jax.data import datasets
from pkpo_jax.data.base import Record
from pkpo_jax.errors import FieldError, expect
from pkpo_jax.tasks.code.verifier import CodeVerifier
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.jsonl.dataset import JsonlProblemsData
from pkpo_jax.tasks.jsonl.judges import CodeJudge, MathJudge, TextJudge
from pkpo_jax.tasks.math.verifier import MathVerifier
from pkpo_jax.tasks.text import TextProblems
from pkpo_jax.tokenizers import Tokenizer

TEXT_VERIFIERS = ('choice', 'exact', 'regex')
VERIFIERS = (*TEXT_VERIFIERS, 'math', 'unit_tests')
REWARDS = ('right', 'score')


class JsonlProblems(TextProblems):
  """Answer a question; what judges the answer is for the config to choose."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    source: str | None = None,
    verifier: str = 'math',
    reward: str = 'right',
    prompt_column: str = 'prompt',
    answer_column: str = 'answer',
    system_column: str = '',
    solution_column: str = '',
    id_column: str = '',
    answer_pattern: str | None = None,
    instruction: str = '',
    train_splits: tuple[str, ...] = ('train',),
    held_out_split: str = 'test',
    num_held_out: int | None = None,
    seed: int = 0,
    label: str = 'own',
    data_dir: str = 'data',
    prompt_format: str = 'plain',
    max_prompt_tokens: int | None = None,
    num_workers: int = 2,
    deadline_s: float = 10.0,
    memory_mib: int = 1024,
    unsafe_no_sandbox: bool = False,
  ):
    """Loads the problems, and makes sure that their answers can be judged.

    Args:
      tokenizer: the policy's.
      source: a file of JSON lines or Parquet, or a folder of them, needed the first time; see
        `JsonlProblemsData` for what is read, and for the columns.
      verifier: 'math', as for math_problems, where an answer may be a solution with its final
        answer boxed or behind ####; 'exact', 'regex', 'choice' or path/to/file.py:function, see
        `TextJudge`; or 'unit_tests', assert statements, as for code_problems.
      reward: 'right', 1 if the answer is right, else 0; or 'score', the share of unit tests that
        pass, or what the function returns.
      prompt_column: of the question.
      answer_column: of the right answer.
      system_column: of a system prompt; '' if there is none.
      solution_column: of a completion to imitate, and of unit tests the reference.
      id_column: of an id.
      answer_pattern: see `TextJudge`.
      instruction: stands before each question.
      train_splits: to train on; names of files say which split they are of, and those that say
        nothing are of 'train'.
      held_out_split: to evaluate on. If there is none, `num_held_out` problems are drawn from those
        to train on and held out.
      num_held_out: how many are held out; None: all of `held_out_split`.
      seed: of the draw.
      label: of these problems in `data_dir`; other files need another, or another folder.
      data_dir: folder of prepared data sets.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat'; see `TextProblems`.
      max_prompt_tokens: see `TextProblems`.
      num_workers: processes that judge.
      deadline_s: seconds for one completion.
      memory_mib: of one completion that is code.
      unsafe_no_sandbox: run code without protection where there is no sandbox.
    """
    is_own = own_code.is_own(verifier)
    known = f'one of {VERIFIERS}, or {own_code.EXPECTED} of a function'
    expect(is_own or verifier in VERIFIERS, 'verifier', known, verifier)
    expect(reward in REWARDS, 'reward', f'one of {REWARDS}', reward)
    has_scores = is_own or verifier == 'unit_tests'
    judges = "'right', as only unit tests and functions give a score"
    expect(has_scores or reward == 'right', 'reward', judges, reward)
    expect(is_own or answer_column != '', 'answer_column', 'a column, unless a function judges', '')
    self._is_shaped = reward == 'score'
    if self._is_shaped:
      self.objectives = ('pass@k', 'max@k')
    self._instruction, self._has_solutions = instruction, bool(solution_column)
    memory = pathlib.Path(data_dir).expanduser() / f'jsonl_problems_{label}_unusable.json'
    if verifier == 'math':
      self._judge = MathJudge(MathVerifier(num_workers, deadline_s), memory, deadline_s)
    elif verifier == 'unit_tests':
      limits = deadline_s, memory_mib
      self._judge = CodeJudge(
        CodeVerifier(num_workers, *limits, unsafe_no_sandbox=unsafe_no_sandbox), memory, limits
      )
    else:
      self._judge = TextJudge(verifier, answer_pattern, num_workers, deadline_s)
    if verifier not in TEXT_VERIFIERS:
      expect(
        answer_pattern is None,
        'answer_pattern',
        f'none, unless for {TEXT_VERIFIERS}',
        answer_pattern,
      )
    data = JsonlProblemsData(
      label=label,
      prompt_column=prompt_column,
      answer_column=answer_column,
      system_column=system_column,
      solution_column=solution_column,
      id_column=id_column,
      keeps_rows=is_own,
    )
    splits = self._usable(datasets.load(data, data_dir, source))
    for split in train_splits:
      expect(split in splits, 'train_splits', f'some of {sorted(splits)}', split)
    if held_out_split in splits:
      other = f'a split that is not in task.train_splits = {train_splits}'
      expect(held_out_split not in train_splits, 'held_out_split', other, held_out_split)
    train = [record for split in train_splits for record in splits[split]]
    train, held_out = _with_held_out(train, splits, held_out_split, num_held_out, seed)
    problems = [*train, *held_out]
    super().__init__(tokenizer, problems, len(held_out), prompt_format, max_prompt_tokens)
    if is_own:  # Another function, other rewards.
      content = own_code.path_of('verifier', verifier).read_bytes()
      digest = hashlib.sha256(content + self.fingerprint.to_bytes(6)).digest()
      self.fingerprint = int.from_bytes(digest[:6])

  def _usable(self, splits: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Returns the records that can be judged; a line that is printed counts the others."""
    unusable = self._judge.unusable([record for records in splits.values() for record in records])
    if not unusable:
      return splits
    kept = {name: [x for x in splits[name] if x['id'] not in unusable] for name in splits}
    counts = ', '.join(
      f'{len(splits[name]) - len(kept[name])} of {len(splits[name])} of {name}' for name in splits
    )
    first, reason = next(iter(unusable.items()))
    print(f'Left out problems that cannot be judged: {counts}; such as {first}: {reason}.')
    return {name: records for name, records in kept.items() if records}

  def close(self) -> None:
    """Ends the processes that judge."""
    self._judge.close()

  def prompt_text(self, problem: dict[str, Any]) -> str:
    """Returns the system prompt, the instruction and the question."""
    return self._format.prompt(problem['prompt'], self._instruction, system=problem['system'])

  def verify_batch(
    self, problems: Sequence[dict[str, Any]], completions: Sequence[str]
  ) -> list[Verdict]:
    """Returns the verdicts of the judge, with scores if these are the rewards."""
    verdicts = self._judge.verify_batch(problems, completions)
    return verdicts if self._is_shaped else [x._replace(score=None) for x in verdicts]

  def demonstrate(self, problem: dict[str, Any], rng: np.random.Generator) -> str:
    """Returns the problem's solution.

    Raises:
      FieldError: if there are none.
    """
    del rng
    if not self._has_solutions:
      raise FieldError('task.solution_column', "expected a column of solutions to imitate, got ''.")
    return problem['solution']


def _with_held_out(
  train: list[Record],
  splits: dict[str, list[Record]],
  held_out_split: str,
  num_held_out: int | None,
  seed: int,
) -> tuple[list[Record], list[Record]]:
  """Returns problems to train on and problems held out; see `JsonlProblems` for the arguments."""
  if held_out_split in splits:
    held_out = splits[held_out_split]
    is_right = num_held_out is None or 1 <= num_held_out <= len(held_out)
    expect(is_right, 'num_held_out', f'1 to {len(held_out)}, or None for all', num_held_out)
    return train, held_out[:num_held_out]
  some = f'1 to {len(train) - 1}, as there is no split {held_out_split!r} among {sorted(splits)}'
  is_right = num_held_out is not None and 1 <= num_held_out < len(train)
  expect(is_right, 'num_held_out', some, num_held_out)
  order = np.random.default_rng(seed).permutation(len(train))
  held_out = [train[i] for i in sorted(order[:num_held_out])]
  return [train[i] for i in sorted(order[num_held_out:])], held_out

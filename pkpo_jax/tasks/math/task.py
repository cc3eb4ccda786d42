"""Problems with a final answer: MATH and GSM8K."""

import importlib.metadata
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pkpo_jax.data import datasets
from pkpo_jax.data.remembered import remembered
from pkpo_jax.errors import expect
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.math.competition import Math
from pkpo_jax.tasks.math.gsm8k import Gsm8k
from pkpo_jax.tasks.math.verifier import MathVerifier
from pkpo_jax.tasks.text import TextProblems
from pkpo_jax.tokenizers import Tokenizer

_SAMPLES = pathlib.Path(__file__).with_name('samples')
DATASETS = {'gsm8k': Gsm8k, 'math': Math}
INSTRUCTION = (
  r'Solve the problem. Think step by step, and write the final answer, and nothing else, within '
  r'\boxed{}.'
)
# Our own, to show the form of an answer.
EXAMPLES = (
  (
    'A rectangle is 3 cm longer than it is wide, and its perimeter is 26 cm. What is its area in '
    'square centimeters?',
    'Let the width be $w$. Then $2(w + (w + 3)) = 26$, so $2w + 3 = 13$ and $w = 5$. The area is '
    r'$5 \cdot 8 = 40$. The answer is $\boxed{40}$.',
  ),
  (
    r'Compute $\frac{3}{4} + \frac{1}{6}$. Express your answer as a common fraction.',
    r'The common denominator is 12, and $\frac{3}{4} + \frac{1}{6} = \frac{9}{12} + \frac{2}{12} = '
    r'\frac{11}{12}$. The answer is $\boxed{\frac{11}{12}}$.',
  ),
  (
    'What is the larger solution of $x^2 - 5x + 6 = 0$?',
    r'The left side is $(x - 2)(x - 3)$, so $x = 2$ or $x = 3$. The answer is $\boxed{3}$.',
  ),
  (
    'In how many ways can 2 of 6 books be chosen?',
    r'There are $\binom{6}{2} = \frac{6 \cdot 5}{2} = 15$ ways. The answer is $\boxed{15}$.',
  ),
)


class MathProblems(TextProblems):
  """Solve a problem; the reward is 1 if the final answer equals the right one in value."""

  def __init__(
    self,
    tokenizer: Tokenizer,
    dataset: str = 'math',
    source: str | None = None,
    data_dir: str = 'data',
    prompt_format: str = 'gemma_it',
    num_examples: int = 0,
    max_prompt_tokens: int | None = 384,
    num_workers: int = 2,
    deadline_s: float = 5.0,
  ):
    """Loads the problems, trains on the split 'train' and holds out 'test'.

    Right answers that the verifier cannot use are looked for once; their problems are left out,
    and counted in a line that is printed.

    Args:
      tokenizer: the policy's.
      dataset: one of DATASETS.
      source: file or folder with the published files, needed the first time; 'samples' takes a few
        dozen problems of our own in their format, which come with this package.
      data_dir: folder of prepared data sets.
      prompt_format: one of `pkpo_jax.tasks.prompts.FORMATS`, or 'chat'; see `TextProblems`.
      num_examples: how many of EXAMPLES stand before the problem.
      max_prompt_tokens: see `TextProblems`.
      num_workers: processes that compare answers.
      deadline_s: seconds for one comparison.
    """
    expect(dataset in DATASETS, 'dataset', f'one of {sorted(DATASETS)}', dataset)
    expect(
      0 <= num_examples <= len(EXAMPLES), 'num_examples', f'0 to {len(EXAMPLES)}', num_examples
    )
    self._examples = EXAMPLES[:num_examples]
    self._verifier = MathVerifier(num_workers, deadline_s)
    if source == 'samples':
      splits = datasets.samples(DATASETS[dataset](), _SAMPLES / dataset)
      super().__init__(
        tokenizer,
        [*splits['train'], *splits['test']],
        len(splits['test']),
        prompt_format,
        max_prompt_tokens,
      )
      return
    splits = datasets.load(DATASETS[dataset](), data_dir, source)
    records = [*splits['train'], *splits['test']]
    answers = sorted({record['answer'] for record in records})
    path = pathlib.Path(data_dir).expanduser() / f'{dataset}_unusable_answers.json'
    about = [importlib.metadata.version('math-verify'), deadline_s, answers]
    unusable = remembered(path, about, lambda: self._unusable_answers(answers))
    train, test = (
      [x for x in splits[name] if x['answer'] not in unusable] for name in ('train', 'test')
    )
    if unusable:
      print(
        f'Left out {len(splits["train"]) - len(train)} of {len(splits["train"])} problems to train '
        f'on and {len(splits["test"]) - len(test)} of {len(splits["test"])} held out, whose '
        f'answers math-verify cannot use; see {path}.'
      )
    super().__init__(tokenizer, [*train, *test], len(test), prompt_format, max_prompt_tokens)

  def close(self) -> None:
    """Ends the processes that compare answers."""
    self._verifier.close()

  def prompt_text(self, problem: dict[str, Any]) -> str:
    """Returns the instruction, the examples and the problem."""
    return self._format.prompt(problem['problem'], INSTRUCTION, self._examples)

  def verify_batch(
    self, problems: Sequence[dict[str, Any]], completions: Sequence[str]
  ) -> list[Verdict]:
    """Returns the verdicts of `MathVerifier`."""
    answers = [problem['answer'] for problem in problems]
    return self._verifier.verify_batch(list(zip(answers, completions, strict=True)))

  def demonstrate(self, problem: dict[str, Any], rng: np.random.Generator) -> str:
    """Returns the published solution, and the final answer in its box if that is not in there."""
    del rng
    solution, box = problem['solution'], rf'\boxed{{{problem["answer"]}}}'
    return solution if box in solution else f'{solution}\nThe answer is {box}.'

  def _unusable_answers(self, answers: Sequence[str]) -> list[str]:
    print(f'Checking {len(answers)} answers with math-verify, once ...', flush=True)
    return self._verifier.check_gold(answers)

"""Judges the final answer of a text in mathematics, by math-verify."""

import importlib.util
import pathlib
import re
from collections.abc import Sequence

from pkpo_jax.errors import expect
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.workers.pool import Reply, WorkerPool

MAX_ANSWER_LENGTH = 1000  # Characters in a box; matrices have 200. Its nesting is limited so, too.
# A box opens, something is escaped, or a brace.
_TOKEN = re.compile(r'(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})', re.DOTALL)
_HASHES = re.compile(r'####[ \t]*(.+)')
# Each a right answer, a text, whether it is prose; and what the worker has to say.
_CHECKS = [
  (['\\frac{1}{2}', '0.5', False], ['right', '\\frac{1}{2}']),
  (['3', 'x = 4', False], ['wrong', '4.00000000000']),
  (['7', 'In all there are $7$ apples.', True], ['right', '7']),
  (['7', 'I do not know.', True], ['malformed', None]),
]


def marked_answer(completion: str) -> str | None:
  r"""Returns what is in the last \boxed{} (or \fbox{}) that is closed, else after the last ####.

  >>> marked_answer(r'\boxed{3}, or rather \boxed{\frac{1}{2}}. #### 5')
  '\\frac{1}{2}'
  >>> marked_answer('3 + 4 = 7\n#### 7'), marked_answer('The answer is 7.')
  ('7', None)
  """
  # One pass, as each of very many boxes may be open to the end of the text.
  opened, span = [], None
  for token in _TOKEN.finditer(completion):
    if token['box'] or token['open']:
      opened.append(token)
    elif token['close'] and opened:
      start = opened.pop()
      if start['box']:
        span = slice(start.end(), token.start())
  if span is not None:
    return completion[span]
  lines = _HASHES.findall(completion)
  return lines[-1] if lines else None


class MathVerifier:
  r"""Compares the final answer of completions with the right one, in worker processes.

  A completion's answer is its `marked_answer`; without one, what math-verify finds in the prose:
  what follows 'final answer is', else 'answer', else the last formula in $ $ or \( \), else the
  last number. Whether it equals the right answer is for math-verify to say, by value and not by
  form: 1/2, 0.5 and x = 0.5 are one, a fraction and its first six decimals too, units are dropped,
  and 50 % is as good as 50. Of a table of pairs, `benchmarks/results/math_agreement.md` lists those
  it gets wrong.

  Verdicts: 'empty'; 'overlong', the text or the answer in it; 'malformed' if there is no answer or
  none that math-verify can parse; 'timeout' and 'crashed' as in `WorkerPool`. Of 'right' answers
  `answer` is the right answer as it was given, of wrong ones a string for votes.
  """

  def __init__(
    self,
    num_workers: int,
    deadline_s: float = 5.0,
    max_length: int = 20_000,
    items_per_worker: int = 2000,
    memory_mib: int = 2048,
  ):
    """Starts nothing yet.

    Args:
      num_workers: processes.
      deadline_s: seconds for one comparison; nearly all take milliseconds, the first ones of a
        process up to a second.
      max_length: characters of a completion, above which it is overlong.
      items_per_worker: comparisons until a process is replaced.
      memory_mib: address space of a process.
    """
    expect(max_length >= 1, 'max_length', 'at least 1', max_length)
    if importlib.util.find_spec('math_verify') is None:
      raise ImportError(
        "judging answers needs math-verify: pip install 'pkpo_jax[problems]', "
        "or '.[problems]' in a clone."
      )
    self._max_length = max_length
    worker = pathlib.Path(__file__).with_name('worker.py')
    self._pool = WorkerPool(
      worker, num_workers, deadline_s, items_per_worker, _CHECKS, memory_mib=memory_mib
    )

  def __enter__(self) -> 'MathVerifier':
    return self

  def __exit__(self, *exception) -> None:
    self.close()

  def close(self) -> None:
    """Ends the worker processes; they start again when there is work."""
    self._pool.close()

  def check_gold(self, answers: Sequence[str]) -> list[str]:
    """Returns those of the right answers that cannot be used, each once.

    They cannot be parsed, do not even equal themselves, or do so only after the deadline.

    Raises:
      RuntimeError: if a worker was killed from outside, which says nothing of an answer.
    """
    answers = list(dict.fromkeys(answers))
    replies = self._pool.map([[answer, None, False] for answer in answers])
    for answer, reply in zip(answers, replies, strict=True):
      if reply.status == 'killed':
        raise RuntimeError(f'a worker that looked at {answer!r} was killed, twice.')
    return [x for x, reply in zip(answers, replies, strict=True) if reply != Reply('done', True)]

  def verify_batch(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Returns the verdict on each (right answer in LaTeX, completion), in order.

    Raises:
      RuntimeError: naming a right answer that cannot be parsed; see `check_gold`.
    """
    read = [self._read(completion) for _, completion in items]
    # Samples of one problem often agree; what is equal is compared once.
    asked = {
      (gold, *found): None
      for (gold, _), found in zip(items, read, strict=True)
      if not isinstance(found, Verdict)
    }
    replies = dict(zip(asked, self._pool.map([list(item) for item in asked]), strict=True))

    def judge(gold, found):
      if isinstance(found, Verdict):
        return found
      reply = replies[gold, *found]
      return Verdict(*reply.value) if reply.status == 'done' else Verdict('unjudged')

    return [judge(gold, found) for (gold, _), found in zip(items, read, strict=True)]

  def _read(self, completion: str) -> Verdict | tuple[str, bool]:
    """Returns the text with the answer and whether it is prose, or a verdict without comparison."""
    if len(completion) > self._max_length:
      return Verdict('overlong')
    if not completion.strip():
      return Verdict('empty')
    answer = marked_answer(completion)
    if answer is None:
      return completion, True
    answer = answer.strip().removesuffix('.')
    return Verdict('overlong') if len(answer) > MAX_ANSWER_LENGTH else (answer, False)

"""How a question is put to a language model, and where its answer ends."""

from collections.abc import Sequence
from typing import NamedTuple

from pkpo_jax.settings import lookup


class PromptFormat(NamedTuple):
  """The texts around an instruction, a question and an answer, white space included.

  A turn is opening + instruction + label + question + cue, after which the model goes on; in an
  example, + answer + end. Only the first turn has the instruction.
  """

  opening: str
  label: str
  cue: str
  end: str
  # Where an answer ends if no token says so; None where only a token does.
  stop: str | None

  def prompt(
    self, question: str, instruction: str = '', examples: Sequence[tuple[str, str]] = ()
  ) -> str:
    r"""Returns what the model reads: examples with their answers, and the question.

    Args:
      question: the question.
      instruction: what to do with questions; an empty line follows it. '' is none.
      examples: questions and answers to go by.

    >>> FORMATS['few_shot'].prompt('1+1', 'Add.', examples=[('2+3', '5')])
    'Add.\n\nProblem:\n2+3\n\nAnswer:\n5\n\nProblem:\n1+1\n\nAnswer:\n'
    """
    texts, head = [], f'{instruction}\n\n' if instruction else ''
    for one, answer in (*examples, (question, None)):
      texts += [self.opening, head, self.label, one, self.cue]
      texts += [] if answer is None else [answer, self.end]
      head = ''
    return ''.join(texts)

  def completion(self, text: str) -> tuple[str, bool]:
    r"""Returns the answer in what the model wrote, and whether it has its end in there.

    >>> FORMATS['few_shot'].completion('5\n\nProblem:\n7+7'), FORMATS['plain'].completion('5')
    (('5', True), ('5', False))
    """
    if self.stop is None:
      return text, False
    answer, stop, _ = text.partition(self.stop)
    return answer, bool(stop)


FORMATS = {
  # The question and a new line, for small models made here.
  'plain': PromptFormat('', '', '\n', '\n', None),
  # Text that goes on in a pattern, for weights that were only pretrained.
  'few_shot': PromptFormat('', 'Problem:\n', '\n\nAnswer:\n', '\n\n', '\n\nProblem:'),
  # The turns that instruction-tuned Gemma-2 was trained on; <bos> stands before all of it.
  'gemma_it': PromptFormat(
    '<start_of_turn>user\n',
    '',
    '<end_of_turn>\n<start_of_turn>model\n',
    '<end_of_turn>\n',
    None,
  ),
}


def make_format(name: str) -> PromptFormat:
  """Returns FORMATS[name]; raises ValueError that lists them if there is none."""
  return lookup('prompt_format', name, FORMATS)

"""How a question is put to a language model, and where its answer ends."""

from collections.abc import Sequence
from typing import NamedTuple

from pkpo_jax.chat import ChatTemplate
from pkpo_jax.errors import expect
from pkpo_jax.settings import lookup
from pkpo_jax.tokenizers import Tokenizer


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
    self,
    question: str,
    instruction: str = '',
    examples: Sequence[tuple[str, str]] = (),
    system: str = '',
  ) -> str:
    r"""Returns what the model reads: examples with their answers, and the question.

    Args:
      question: the question.
      instruction: what to do with questions; an empty line follows it. '' is none.
      examples: questions and answers to go by.
      system: the question's own system prompt; it stands before the instruction. '' is none.

    >>> FORMATS['few_shot'].prompt('1+1', 'Add.', examples=[('2+3', '5')])
    'Add.\n\nProblem:\n2+3\n\nAnswer:\n5\n\nProblem:\n1+1\n\nAnswer:\n'
    """
    texts, head = [], ''.join(f'{text}\n\n' for text in (system, instruction) if text)
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
  # The same with questions and answers of one line each; the end of the line is the end.
  'lines': PromptFormat('', 'Problem: ', '\nAnswer:\n', '\n\n', '\n'),
  # The turns that instruction-tuned Gemma-2 was trained on; <bos> stands before all of it.
  'gemma_it': PromptFormat(
    '<start_of_turn>user\n',
    '',
    '<end_of_turn>\n<start_of_turn>model\n',
    '<end_of_turn>\n',
    None,
  ),
}


class ChatFormat(NamedTuple):
  """The chat template that comes with the model's tokenizer; only a token ends an answer."""

  template: ChatTemplate
  stop: None = None

  def prompt(
    self,
    question: str,
    instruction: str = '',
    examples: Sequence[tuple[str, str]] = (),
    system: str = '',
  ) -> str:
    """Returns a chat of the examples and the question, as `PromptFormat.prompt`.

    A question's own system prompt takes the place of the one that the tokenizer is set to.

    Raises:
      DataError: if the template does not make a text of it; see `ChatTemplate.prompt`.
    """
    messages = [_message('system', system)] if system else []
    head = f'{instruction}\n\n' if instruction else ''
    for one, answer in examples:
      messages += [_message('user', head + one), _message('assistant', answer)]
      head = ''
    return self.template.prompt([*messages, _message('user', head + question)])

  def completion(self, text: str) -> tuple[str, bool]:
    """Returns the text; its end is not in there."""
    return text, False


def _message(role: str, content: str) -> dict[str, str]:
  return {'role': role, 'content': content}


CHAT = 'chat'  # The format that the tokenizer brings.


def make_format(name: str, tokenizer: Tokenizer) -> PromptFormat | ChatFormat:
  """Returns FORMATS[name], or the tokenizer's own for 'chat'.

  Raises:
    FieldError: if there is none of this name; lists them.
  """
  if name != CHAT:
    return lookup('prompt_format', name, {**FORMATS, CHAT: None})
  expect(
    tokenizer.chat_template is not None,
    'prompt_format',
    f'one of {sorted(FORMATS)}, or a chat template beside the tokenizer or in '
    'policy.tokenizer.chat_template',
    name,
  )
  return ChatFormat(tokenizer.chat_template)

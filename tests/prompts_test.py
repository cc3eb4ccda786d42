"""Prompts, character for character."""

import pytest

from pkpo_jax.tasks import prompts
from pkpo_jax.tokenizers import CharacterTokenizer

make_format = lambda name: prompts.make_format(name, CharacterTokenizer())
EXAMPLES = [('2+3', '5'), ('4+4', '8')]


def test_gemma_it_is_the_chat_of_the_released_models():
  assert make_format('gemma_it').prompt('1+1') == (
    '<start_of_turn>user\n1+1<end_of_turn>\n<start_of_turn>model\n'
  )
  assert make_format('gemma_it').prompt('1+1', 'Add {these}.', EXAMPLES) == (
    '<start_of_turn>user\nAdd {these}.\n\n2+3<end_of_turn>\n<start_of_turn>model\n5<end_of_turn>\n'
    '<start_of_turn>user\n4+4<end_of_turn>\n<start_of_turn>model\n8<end_of_turn>\n'
    '<start_of_turn>user\n1+1<end_of_turn>\n<start_of_turn>model\n'
  )


def test_few_shot_is_a_pattern_to_go_on_with():
  assert make_format('few_shot').prompt('1+1') == 'Problem:\n1+1\n\nAnswer:\n'
  assert make_format('few_shot').prompt('1+1', 'Add.', EXAMPLES) == (
    'Add.\n\nProblem:\n2+3\n\nAnswer:\n5\n\nProblem:\n4+4\n\nAnswer:\n8\n\n'
    'Problem:\n1+1\n\nAnswer:\n'
  )


def test_plain_is_the_question_alone():
  assert make_format('plain').prompt('1+1') == '1+1\n'
  assert make_format('plain').prompt('1+1', 'Add.', EXAMPLES) == 'Add.\n\n2+3\n5\n4+4\n8\n1+1\n'


def test_where_an_answer_ends():
  few_shot = make_format('few_shot')
  assert few_shot.completion('It is 2.\n\nProblem:\n1+2\n\nAnswer:\n3') == ('It is 2.', True)
  assert few_shot.completion('It is 2.\nProblem: none') == ('It is 2.\nProblem: none', False)
  for name in ('plain', 'gemma_it'):
    assert make_format(name).completion('2\n\nProblem:') == ('2\n\nProblem:', False)


def test_an_example_reads_as_a_question_with_its_answer():
  """So that what is imitated in examples is what is asked for."""
  for name in ('plain', 'few_shot', 'gemma_it'):
    form = make_format(name)
    whole = form.prompt('1+1', 'Add.', EXAMPLES)
    assert whole.startswith(form.prompt('2+3', 'Add.') + '5' + form.end)
    assert whole.endswith(form.end + form.prompt('1+1'))


def test_an_unknown_format_is_named():
  with pytest.raises(
    ValueError, match=r"prompt_format: expected one of \[.*'chat'.*'few_shot'.*'talk'"
  ):
    make_format('talk')
  with pytest.raises(ValueError, match=r"prompt_format: .* or a chat template .*, got 'chat'."):
    make_format('chat')

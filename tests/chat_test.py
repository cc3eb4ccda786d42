"""Chats are written as transformers writes them, and no template gets out of hand."""

import json
import pathlib
import re
import threading

import pytest

pytest.importorskip('jinja2', reason='jinja2 is not installed: it is in the extra `huggingface`')

from pkpo_jax import chat
from pkpo_jax.chat import ChatTemplate, read_chat_template
from pkpo_jax.errors import DataError, FieldError, MissingDataError

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
GOLDEN = json.loads((FIXTURES / 'chats.json').read_text(encoding='utf-8'))
USER = [{'role': 'user', 'content': 'hi'}]


def template_of(name, **options):
  text = (FIXTURES / 'chat_templates' / f'{name}.jinja').read_text(encoding='utf-8')
  return ChatTemplate(text, f'{name}.jinja', GOLDEN['tokens'][name], date=GOLDEN['date'], **options)


@pytest.mark.parametrize('name', GOLDEN['tokens'])
def test_texts_are_those_of_transformers(name):
  template = template_of(name)
  rows = [row for row in GOLDEN['texts'] if row['template'] == name]
  assert len(rows) == 2 * len(GOLDEN['chats'])
  for row in rows:
    messages = GOLDEN['chats'][row['chat']]
    if row['text'] is None:
      with pytest.raises(DataError, match=f'^{name}.jinja: chat_template: expected a text, got '):
        template.render(messages, add_generation_prompt=row['goes_on'])
    else:
      assert template.render(messages, add_generation_prompt=row['goes_on']) == row['text']


def test_a_prompt_begins_after_the_token_that_begins_prompts():
  prompt = template_of('gemma2', begin='<bos>').prompt(USER)
  assert prompt == '<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n'
  # SmolLM2 has a bos_token in its files that nothing puts before its prompts.
  assert template_of('smollm2').prompt(USER).startswith('<|im_start|>system\nYou are')


def test_a_system_prompt_begins_the_chat():
  prompt = template_of('qwen2_5', system_prompt='Add.').prompt(USER)
  assert prompt.startswith('<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\nhi')
  with pytest.raises(DataError, match=r'gemma2.jinja: chat_template: .*A system message is not su'):
    template_of('gemma2', system_prompt='Add.').prompt(USER)


BAD = [
  ('{% if %}', 'expected a Jinja template, got TemplateSyntaxError'),
  ('{{ raise_exception("no\nchat") }}', 'got _TemplateRaised: no chat'),
  ('{{ 1 / 0 }}', 'ZeroDivisionError'),
  ('{{ messages[7].content }}', 'UndefinedError'),
  ('{{ "".__class__.__mro__ }}', 'SecurityError'),
  ('{{ messages.append(1) }}', 'SecurityError'),
  ('{% for i in range(10**9) %}{% endfor %}', 'OverflowError: Range too big'),
  ('{% for i in range(99999) %}{{ "x" * 99 }}{% endfor %}', 'more than 1,048,576 characters'),
  ('{{ "x" * 10**12 }}', 'expected up to 1,048,576 items'),
  ('{{ 9 * (10 ** 5 * messages * 10 ** 5) }}', 'expected up to 1,048,576 items'),
  ('{{ 9 ** 9 ** 9 ** 9 ** 9 }}', 'expected a power of up to 4,096 bits'),
  ('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'RecursionError'),
]


@pytest.mark.parametrize('text, message', BAD)
def test_a_bad_template_is_one_line_that_names_the_file(text, message):
  with pytest.raises(DataError, match=re.escape(message)) as error:
    ChatTemplate(text, 'my.jinja', {}).prompt(USER)
  assert str(error.value).startswith('my.jinja: chat_template: expected a ')
  assert '\n' not in str(error.value)


def test_a_template_without_end_is_stopped(monkeypatch):
  monkeypatch.setattr(chat, '_DEADLINE_S', 0.2)
  loop = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'
  before = threading.active_count()
  with pytest.raises(DataError, match=r'my.jinja: .* got TimeoutError: no end after 0.2 s'):
    ChatTemplate(loop, 'my.jinja', {}).prompt(USER)
  assert threading.active_count() == before


def write(folder, **config):
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))


def test_the_folder_has_the_template(tmp_path):
  assert read_chat_template(tmp_path, '') is None
  with pytest.raises(FieldError, match='system_prompt: expected none, as .* has no chat template'):
    read_chat_template(tmp_path, '', system_prompt='Add.')
  token = {'content': '<end>', 'special': True}
  write(tmp_path, chat_template='{{ eos_token }}', eos_token=token, pad_token=None)
  assert read_chat_template(tmp_path, '').prompt(USER) == '<end>'
  named = [dict(name='tools', template='no'), dict(name='default', template='yes')]
  write(tmp_path, chat_template=named)
  assert read_chat_template(tmp_path, '').prompt(USER) == 'yes'
  (tmp_path / 'chat_template.jinja').write_text('beside')
  assert read_chat_template(tmp_path, '').prompt(USER) == 'beside'
  (tmp_path / 'own.jinja').write_text('own')
  assert read_chat_template(tmp_path, '', str(tmp_path / 'own.jinja')).prompt(USER) == 'own'


def test_a_file_that_cannot_be_used_is_named(tmp_path):
  with pytest.raises(MissingDataError, match='chat_template: none.jinja: no such file'):
    read_chat_template(tmp_path, '', 'none.jinja')
  write(tmp_path, chat_template=7)
  with pytest.raises(DataError, match=r'tokenizer_config.json: chat_template: expected a string'):
    read_chat_template(tmp_path, '')
  (tmp_path / 'tokenizer_config.json').write_text('{')
  with pytest.raises(DataError, match=r'tokenizer_config.json: expected JSON'):
    read_chat_template(tmp_path, '')
  with pytest.raises(FieldError, match=r"chat_date: expected YYYY-MM-DD, got 'today'"):
    ChatTemplate('', '', {}, date='today')

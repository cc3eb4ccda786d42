"""Chat templates: the messages of a chat become the text that a model was trained on.

A template is a Jinja program that comes with a model's tokenizer. It is not trusted: it runs in
Jinja's immutable sandbox, and its loops, its output and its time are bounded.
"""

import ctypes
import datetime
import functools
import json
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pkpo_jax.errors import DataError, FieldError, MissingDataError, require_package

_MAX_CHARACTERS = 2**20
_MAX_BITS = 4096
_DEADLINE_S = 5.0


class ChatTemplate:
  """A model's chat template, and the system prompt that chats begin with."""

  def __init__(
    self,
    template: str,
    source: str,
    special_tokens: Mapping[str, str],
    begin: str = '',
    system_prompt: str | None = None,
    date: str | None = None,
  ):
    """Keeps the template; it is compiled when a chat is rendered.

    Args:
      template: the Jinja program.
      source: the file that it comes from, to name in messages.
      special_tokens: what it knows by name, such as 'bos_token' and 'eos_token'.
      begin: text of the token that the tokenizer puts before each prompt; '' if it puts none there.
      system_prompt: what a message of the role 'system' says before a chat; None writes no such
        message, and a template may put in one of its own.
      date: today for the template, as YYYY-MM-DD; None asks the clock, and prompts that show the
        date are then others tomorrow.

    Raises:
      FieldError: if the date is none.
    """
    try:
      self._date = None if date is None else datetime.date.fromisoformat(date)
    except ValueError:
      raise FieldError('chat_date', f'expected YYYY-MM-DD, got {date!r}.') from None
    self.source, self.system_prompt = source, system_prompt
    self._text, self._special_tokens, self._begin = template, dict(special_tokens), begin

  def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
    """Returns the text that a completion goes on from, without the token that begins prompts.

    What encodes prompts puts that one there. The rest is what transformers' apply_chat_template
    returns with add_generation_prompt.

    Args:
      messages: dicts of 'role' ('user' or 'assistant', the first perhaps 'system') and 'content'.

    Raises:
      DataError: if the template cannot be parsed, raises, or does not come to an end in time or
        size; names the file.
    """
    if self.system_prompt is not None and messages[0]['role'] != 'system':
      messages = [{'role': 'system', 'content': self.system_prompt}, *messages]
    text = self.render(messages, add_generation_prompt=True)
    return text.removeprefix(self._begin)

  def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
    """Returns what the template makes of messages, to the character; raises as `prompt` does."""
    template = self._compiled
    context = {
      **self._special_tokens,
      'messages': [dict(message) for message in messages],
      'tools': None,
      'documents': None,
      'add_generation_prompt': add_generation_prompt,
      'raise_exception': _raise,
      'strftime_now': self._strftime_now,
    }

    def collect() -> str:
      pieces, length = [], 0
      for piece in template.generate(context):
        length += len(piece)
        if length > _MAX_CHARACTERS:
          raise OverflowError(f'the text has more than {_MAX_CHARACTERS:,} characters')
        pieces.append(piece)
      return ''.join(pieces)

    try:
      return _within_deadline(collect)
    except Exception as error:  # Whatever a template can come upon.
      problem = f'expected a text, got {_one_line(error)}'
      raise DataError(f'{self.source}: chat_template: {problem}') from error

  @functools.cached_property
  def _compiled(self) -> Any:
    require_package('jinja2', extra='huggingface')
    import jinja2

    try:
      return _environment().from_string(self._text)
    except (jinja2.TemplateError, RecursionError) as error:
      problem = f'expected a Jinja template, got {_one_line(error)}'
      raise DataError(f'{self.source}: chat_template: {problem}') from error

  def _strftime_now(self, layout: str) -> str:
    today = datetime.datetime.now() if self._date is None else self._date
    return today.strftime(layout)


def read_chat_template(
  folder: pathlib.Path,
  begin: str,
  template_file: str | None = None,
  system_prompt: str | None = None,
  date: str | None = None,
) -> ChatTemplate | None:
  """Returns the template of a tokenizer's folder; None if it has none.

  Args:
    folder: has tokenizer_config.json, whose special tokens templates know, and the template in its
      field chat_template, or in chat_template.jinja, which goes first.
    begin: see `ChatTemplate`.
    template_file: a template to use in place of the model's.
    system_prompt: see `ChatTemplate`.
    date: see `ChatTemplate`.

  Raises:
    MissingDataError: if there is no file `template_file`.
    DataError: if a file cannot be read.
    FieldError: if there is a system prompt for no template, or the date is none.
  """
  config_file = folder / 'tokenizer_config.json'
  config = read_json(config_file) if config_file.exists() else {}
  special_tokens = {}
  for name, value in config.items():
    token = token_text(value)
    if name.endswith('_token') and token is not None:
      special_tokens[name] = token
  own_file = folder / 'chat_template.jinja'
  if template_file is not None:
    if not pathlib.Path(template_file).is_file():
      raise MissingDataError(f'chat_template: {template_file}: no such file.')
    template, source = _read_text(pathlib.Path(template_file)), template_file
  elif own_file.exists():
    template, source = _read_text(own_file), str(own_file)
  else:
    template, source = config.get('chat_template'), str(config_file)
    if isinstance(template, list):  # Named ones; some models have others for tools.
      entries = [each for each in template if isinstance(each, dict)]
      default = [each.get('template') for each in entries if each.get('name') == 'default']
      template = default[0] if default else template
  if template is None:
    if system_prompt is not None:
      raise FieldError('system_prompt', f'expected none, as {folder} has no chat template.')
    return None
  if not isinstance(template, str):
    raise DataError(f'{source}: chat_template: expected a string, got {template!r:.100}.')
  return ChatTemplate(template, source, special_tokens, begin, system_prompt, date)


def token_text(value: Any) -> str | None:
  """Returns the text of a special token of tokenizer_config.json: a string, or its 'content'."""
  value = value.get('content') if isinstance(value, dict) else value
  return value if isinstance(value, str) else None


def read_json(file: pathlib.Path) -> dict[str, Any]:
  """Returns the JSON object in a file; DataError if there is none."""
  try:
    value = json.loads(_read_text(file))
  except json.JSONDecodeError as error:
    raise DataError(f'{file}: expected JSON: {error}.') from error
  if not isinstance(value, dict):
    raise DataError(f'{file}: expected a JSON object, found a {type(value).__name__}.')
  return value


def _read_text(file: pathlib.Path) -> str:
  try:
    return file.read_text(encoding='utf-8')
  except UnicodeDecodeError as error:
    raise DataError(f'{file}: expected UTF-8: {error}.') from error


def _one_line(error: Exception) -> str:
  text = ' '.join(f'{type(error).__name__}: {error}'.split())
  return f'{text:.300}'


class _TemplateRaised(Exception):
  """The template has called raise_exception."""


def _raise(message: str):
  raise _TemplateRaised(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options) -> str:
  # Jinja's own filter writes < and > so that they are safe in HTML, which nobody was trained on.
  return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


@functools.cache
def _environment() -> Any:
  """Returns the environment that transformers renders in, with bounds."""
  from jinja2 import ext, sandbox

  class Generation(ext.Extension):
    """The block that marks what the assistant wrote: here, what is in it."""

    tags = {'generation'}

    def parse(self, parser):
      next(parser.stream)
      return parser.parse_statements(('name:endgeneration',), drop_needle=True)

  class Environment(sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({'*', '**'})

    def call_binop(self, context, operator, left, right):
      is_power = operator == '**' and isinstance(left, int) and isinstance(right, int)
      if is_power and left.bit_length() * right > _MAX_BITS:
        raise OverflowError(f'expected a power of up to {_MAX_BITS:,} bits')
      sizes = [len(x) if hasattr(x, '__len__') else x for x in (left, right)]
      is_repeated = operator == '*' and sizes != [left, right]
      if is_repeated and sizes[0] * sizes[1] > _MAX_CHARACTERS:
        raise OverflowError(f'expected up to {_MAX_CHARACTERS:,} items')
      return super().call_binop(context, operator, left, right)

  environment = Environment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
  )
  environment.filters['tojson'] = _tojson
  return environment


class _OutOfTime(Exception):
  """Stops a template; a template cannot catch it."""


def _within_deadline(function: Callable[[], str]) -> str:
  """Returns function(), which runs in a thread of its own that is stopped at the deadline."""
  outcome = []

  def run():
    try:
      outcome.append((function(), None))
    except BaseException as error:
      outcome.append((None, error))

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(_DEADLINE_S)
  if thread.is_alive():
    # Comes at the thread's next bytecode. If it has just ended, nothing is stopped.
    stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
    stop(ctypes.c_ulong(thread.ident), ctypes.py_object(_OutOfTime))
    thread.join(_DEADLINE_S)
    raise TimeoutError(f'no end after {_DEADLINE_S:g} s')
  ((text, error),) = outcome
  if error is not None:
    raise error
  return text

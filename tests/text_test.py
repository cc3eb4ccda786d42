"""Between text and tokens: prompts, demonstrations, verdicts, and the split of problems."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from pkpo_jax.data.pipeline import problem_ids
from pkpo_jax.tasks.grades import KINDS, Verdict
from pkpo_jax.tasks.text import (
  TextProblems,
  decode_completions,
  distinct_problems,
  encode_completions,
  encode_prompts,
  host_rng,
  num_tokens_to,
)
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.types import Prompts, Rollout

PAD, EOS, BOS = 0, 1, 2
TOKENIZER = CharacterTokenizer()


class Echo(TextProblems):
  """Repeat the word; a completion with '!' in it is hostile, one with '?' malformed."""

  def __init__(self, words, num_held_out):
    super().__init__(TOKENIZER, words, num_held_out)

  def prompt_text(self, problem):
    return f'{problem}:'

  def verify(self, problem, completion):
    for mark, kind in (('!', 'hostile'), ('?', 'malformed')):
      if mark in completion:
        return Verdict(kind)
    return Verdict('right' if completion == problem else 'wrong', completion)

  def demonstrate(self, problem, rng):
    return problem + str(rng.integers(10))


def ids_of(text):
  """Returns token ids by the definition: a newline is 3, ASCII 32 is 4 and so on."""
  return [3 if character == '\n' else ord(character) - 32 + 4 for character in text]


def rollout_of(rows):
  """Returns the rollout of token lists, `[P][N]`, without padding, of which the longest fill L."""
  length = max(len(ids) for group in rows for ids in group)
  tokens = [[ids + [PAD] * (length - len(ids)) for ids in group] for group in rows]
  mask = [[[True] * len(ids) + [False] * (length - len(ids)) for ids in group] for group in rows]
  zeros = np.zeros(np.shape(tokens), np.float32)
  prompts = np.zeros((len(rows), 1), np.int32), np.ones((len(rows), 1), bool)
  return Rollout(*prompts, np.int32(tokens), np.array(mask), zeros)


def test_prompts_are_padded_on_the_left_to_one_bucket():
  tokens, mask = encode_prompts(TOKENIZER, ['a\nb', '', '~'])
  expected = [[PAD] * 12 + [BOS, 69, 3, 70], [PAD] * 15 + [BOS], [PAD] * 14 + [BOS, 98]]
  assert tokens.dtype == np.int32
  assert tokens.tolist() == expected
  assert mask.dtype == bool
  assert mask.tolist() == [[False] * (16 - n) + [True] * n for n in (4, 1, 2)]
  for length, size in ((15, 16), (16, 24)):
    shapes = [x.shape for x in encode_prompts(TOKENIZER, ['x' * length, 'x'])]
    assert shapes == [(2, size)] * 2


def test_completions_end_with_a_stop_token():
  prompts = Prompts(np.int32([4, 5]), np.ones((2, 16), np.int32), np.ones((2, 16), bool), ())
  rollout = encode_completions(TOKENIZER, prompts, [['a', ''], ['ab', 'c']], 4)
  a, b, c = ids_of('abc')
  expected = [[[a, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]], [[a, b, EOS, PAD], [c, EOS, PAD, PAD]]]
  assert rollout.completions.tolist() == expected
  assert rollout.completion_mask.sum(-1).tolist() == [[2, 1], [3, 2]]
  assert rollout.completion_mask[..., 0].all()
  assert rollout.prompt_tokens is prompts.tokens
  assert rollout.prompt_mask is prompts.mask
  assert not rollout.sampling_log_probs.any()
  assert rollout.sampling_log_probs.dtype == np.float32


def test_a_completion_that_does_not_fit_is_named():
  prompts = Prompts(np.int32([0]), np.ones((1, 16), np.int32), np.ones((1, 16), bool), ())
  assert encode_completions(TOKENIZER, prompts, [['abc']], 4).completion_mask.all()
  with pytest.raises(ValueError, match=r"max_new_tokens: .*at least the 4 tokens.*'abc'.*got 3"):
    encode_completions(TOKENIZER, prompts, [['abc']], 3)


printable = st.text(['\n', *map(chr, range(32, 127))], max_size=12)


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.lists(st.tuples(printable, printable), min_size=1, max_size=4))
def test_decoding_gives_back_what_was_encoded(texts):
  tokens, mask = encode_prompts(TOKENIZER, [a for a, _ in texts])
  prompts = Prompts(np.arange(len(texts), dtype=np.int32), tokens, mask, ())
  assert [TOKENIZER.decode(row) for row in tokens] == [a for a, _ in texts]
  rows = [row[has_token].tolist() for row, has_token in zip(tokens, mask, strict=True)]
  assert rows == [[BOS, *ids_of(a)] for a, _ in texts]
  assert (tokens[~mask] == PAD).all()
  rollout = encode_completions(TOKENIZER, prompts, texts, 13)
  assert decode_completions(TOKENIZER, rollout) == [list(pair) for pair in texts]


def test_what_the_mask_leaves_out_is_not_read():
  rollout = rollout_of([[ids_of('ab'), ids_of('abcd')]])
  tokens = np.where(rollout.completion_mask, rollout.completions, ids_of('z')[0])
  assert decode_completions(TOKENIZER, rollout.replace(completions=tokens)) == [['ab', 'abcd']]


def test_verdicts_of_completions_in_place():
  task = Echo(['cat', 'dog', 'cow'], num_held_out=1)
  rows = [
    [ids_of('dog') + [EOS], ids_of('cat') + [EOS], [EOS], ids_of('dogs')],
    [ids_of('cow!'), ids_of('co!') + [EOS], ids_of('?') + [EOS], ids_of('cow') + [EOS]],
  ]
  prompts = task.prompts_of(np.array([1, 2]))
  verdicts = task.verdicts(prompts, rollout_of(rows))
  assert verdicts == [
    # A completion of the full length is cut off unless it has ended.
    [Verdict('right', 'dog'), Verdict('wrong', 'cat'), Verdict('wrong', ''), Verdict('overlong')],
    [Verdict('overlong'), Verdict('hostile'), Verdict('malformed'), Verdict('right', 'cow')],
  ]
  grades = task.grade(prompts, rollout_of(rows), jax.random.key(0))
  assert grades.rewards.dtype == grades.successes.dtype == np.float32
  assert grades.rewards.tolist() == grades.successes.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
  assert grades.where is None
  assert grades.verdicts == verdicts


def test_a_right_text_that_was_cut_off_is_overlong():
  task = Echo(['cat', 'dog', 'cow'], num_held_out=1)
  prompts = task.prompts_of(np.array([0]))
  cut, ended = (task.verdicts(prompts, rollout_of([[ids]])) for ids in ([69], [69, EOS]))
  assert [cut, ended] == [[[Verdict('overlong')]], [[Verdict('wrong', 'a')]]]
  cut = task.verdicts(prompts, rollout_of([[ids_of('cat')]]))
  assert cut == [[Verdict('overlong')]]


@pytest.mark.parametrize('hidden', [0, 2])  # Padding and the beginning of a sequence.
def test_tokens_that_the_text_does_not_show_are_no_part_of_an_answer(hidden):
  task = Echo(['cat', 'dog', 'cow'], num_held_out=1)
  ids = ids_of('cat')
  rows = [[[*ids, EOS], [hidden, *ids, EOS], [*ids[:2], hidden, ids[2], EOS], [*ids, hidden, EOS]]]
  (found,) = task.verdicts(task.prompts_of(np.array([0])), rollout_of(rows))
  assert [verdict.kind for verdict in found] == ['right'] + 3 * ['malformed']


def test_only_a_right_verdict_is_rewarded():
  assert {kind: Verdict(kind).reward for kind in KINDS} == {**dict.fromkeys(KINDS, 0), 'right': 1}


def test_problems_held_out_come_last():
  task = Echo(['cat', 'dog', 'cow'], num_held_out=1)
  assert (task.num_problems, task.num_held_out) == (2, 1)
  prompts = task.prompts_of(np.array([2, 0]))
  assert prompts.ids.dtype == np.int32
  assert prompts.ids.tolist() == [2, 0]
  assert [TOKENIZER.decode(row) for row in prompts.tokens] == ['cow:', 'cat:']


def test_training_goes_through_the_problems_in_the_order_of_the_key():
  words = [a + b for a, b in itertools.product('abc', repeat=2)]
  task, key = Echo(words, num_held_out=2), jax.random.key(3)
  for step in range(4):
    prompts = task.prompts(step, 3, key)
    ids = problem_ids(7, step, 3, key)
    assert prompts.ids.tolist() == ids.tolist()
    assert [TOKENIZER.decode(row) for row in prompts.tokens] == [f'{words[i]}:' for i in ids]


def test_evaluation_is_on_the_first_problems_held_out():
  task = Echo([f'word{i}' for i in range(16)], num_held_out=6)
  for seed in range(2):
    prompts = task.held_out(4, jax.random.key(seed))
    assert prompts.ids.tolist() == [10, 11, 12, 13]
    assert TOKENIZER.decode(prompts.tokens[0]) == 'word10:'
  with pytest.raises(ValueError, match='eval.num_prompts: expected at most .* = 6, got 7'):
    task.held_out(7, jax.random.key(0))


def test_demonstrations_are_those_of_the_prompts_and_the_key():
  task = Echo(['cat', 'dog', 'cow'], num_held_out=1)
  prompts = task.prompts_of(np.array([1, 0]))
  first, again, other = (
    decode_completions(TOKENIZER, task.demonstrations(prompts, 20, 5, jax.random.key(seed)))
    for seed in (0, 0, 1)
  )
  assert first == again != other
  for word, group in zip(('dog', 'cat'), first, strict=True):
    assert len(group) == 20
    assert {text[:-1] for text in group} == {word}
    assert len(set(group)) > 1
  with pytest.raises(ValueError, match="policy.max_new_tokens: .*'dog"):
    task.demonstrations(prompts, 20, 4, jax.random.key(0))


def test_distinct_problems_holds_out_the_first_draws():
  counter = itertools.count()
  # Every second draw is rejected, every other problem comes twice.
  draw = lambda rng: None if (i := next(counter)) % 2 else i // 4
  assert distinct_problems(draw, seed=0, num_train=3, num_held_out=2) == [2, 3, 4, 0, 1]


def test_distinct_problems_depends_on_the_seed_and_not_on_num_train():
  draw = lambda rng: int(rng.integers(1000))
  few = distinct_problems(draw, 0, 10, 20)
  many = distinct_problems(draw, 0, 100, 20)
  assert few[-20:] == many[-20:]
  assert few[:10] == many[:10]
  assert len(set(many)) == 120
  assert distinct_problems(draw, 1, 10, 20) != few


@pytest.mark.parametrize(
  'seed, num_train, num_held_out, words',
  [
    (-1, 1, 2, 'seed: expected at least 0, got -1'),
    (0, 0, 2, 'num_train: expected at least 1, got 0'),
    (0, 1, 1, 'num_held_out: expected at least 2, got 1'),
    (0, 6, 5, 'num_train: .*num_held_out = 5: 10 distinct problems were found.*got 6'),
  ],
)
def test_impossible_splits_are_refused(seed, num_train, num_held_out, words):
  draw = lambda rng: int(rng.integers(10))
  assert len(distinct_problems(draw, 0, 5, 5)) == 10
  with pytest.raises(ValueError, match=words):
    distinct_problems(draw, seed, num_train, num_held_out)


def test_host_rng_is_that_of_the_key():
  draws = [host_rng(jax.random.key(seed)).random(4).tolist() for seed in (0, 0, 1)]
  assert draws[0] == draws[1] != draws[2]


# After the end of an answer.


class FewShot(Echo):
  """Echo in the format whose answers end with a text."""

  def __init__(self, tokenizer=TOKENIZER, prompt_format='few_shot'):
    TextProblems.__init__(self, tokenizer, ['cat', 'dog'], 1, prompt_format)


class TwoLetters:
  """Tokens of one and of two characters, so that a text has many ways to be written.

  Id 0 is a token like others, as in the vocabularies of Llama and of Qwen.
  """

  characters = '\nProblem: acdgotx'
  pieces = (*characters, *map(''.join, itertools.product(characters, repeat=2)))
  vocab_size = len(pieces) + 3
  pad_id, bos_id, stop_id = range(len(pieces), len(pieces) + 3)
  stop_ids, silent_ids, chat_template = (stop_id,), (pad_id, bos_id), None

  def encode(self, text):
    return [self.pieces.index(character) for character in text]

  def decode(self, ids):
    return ''.join(self.pieces[i] for i in ids if i < len(self.pieces))


STOP = '\n\nProblem:'


def written(tokenizer, text, rng):
  """Returns tokens that give the text, of one or two characters each by chance."""
  ids = []
  while text:
    size = min(int(rng.integers(1, 3)), len(text))
    ids.append(tokenizer.pieces.index(text[:size]))
    text = text[size:]
  return ids


def test_tokens_after_the_stop_text_are_masked_out():
  task, tokens = FewShot(), ids_of(f'cat{STOP} what?')
  num_kept = len(f'cat{STOP}')
  rows = [[tokens, ids_of('cat') + [EOS], ids_of(f'dog{STOP}')], [[EOS], ids_of('\n\n'), tokens]]
  rollout = rollout_of(rows)
  trimmed = task.trim(rollout)
  assert trimmed.completion_mask.sum(-1).tolist() == [[num_kept, 4, num_kept], [1, 2, num_kept]]
  assert np.all(trimmed.completion_mask <= rollout.completion_mask)
  np.testing.assert_array_equal(trimmed.completions, rollout.completions)
  assert decode_completions(TOKENIZER, trimmed)[0][0] == f'cat{STOP}'
  np.testing.assert_array_equal(task.trim(trimmed).completion_mask, trimmed.completion_mask)
  # The second text of a pattern, too, is after the end.
  twice = rollout_of([[ids_of(f'cat{STOP} dog{STOP}')]])
  assert task.trim(twice).completion_mask.sum() == num_kept


def test_the_token_that_completes_the_stop_text_stays():
  """Even if it says more: to write it is what ends the answer."""
  tokenizer = TwoLetters()
  task = FewShot(tokenizer)
  head = [tokenizer.pieces.index(piece) for piece in ('ca', 't\n', '\nP', 'ro', 'bl', 'em')]
  rest = [tokenizer.pieces.index(piece) for piece in (': ', 'do', 'g')]
  rollout = rollout_of([[[*head, *rest, tokenizer.stop_id]]])
  assert task.trim(rollout).completion_mask.tolist() == [[[True] * 7 + [False] * 3]]
  assert task.verdicts(task.prompts_of(np.array([0])), rollout) == [[Verdict('right', 'cat')]]


@pytest.mark.parametrize('prompt_format', ['plain', 'gemma_it'])
def test_where_only_a_token_ends_an_answer_all_of_it_stays(prompt_format):
  rollout = rollout_of([[ids_of(f'cat{STOP} what?'), ids_of('cat') + [EOS]]])
  assert FewShot(prompt_format=prompt_format).trim(rollout) is rollout


def test_a_rollout_without_the_stop_text_is_the_same():
  rollout = rollout_of([[ids_of('cat\n\nProblem'), [EOS]]])
  assert FewShot().trim(rollout) is rollout


def test_what_follows_the_end_changes_no_verdict():
  """Cut off, malformed in itself, or right in its place."""
  task = FewShot()
  heads = [f'{answer}{STOP}' for answer in ('cat', 'cow', 'c!t', 'c?t', '')]
  tails = [ids_of(''), ids_of(' go'), [*ids_of('cat'), EOS], ids_of('!?'), ids_of(f'{STOP}cat')]
  rows = [[ids_of(head) + tail for tail in tails] for head in heads]
  rollout = rollout_of(rows)
  prompts = task.prompts_of(np.zeros(len(heads), int))
  verdicts = task.verdicts(prompts, rollout)
  assert task.verdicts(prompts, task.trim(rollout)) == verdicts
  kinds = [[verdict.kind for verdict in group] for group in verdicts]
  assert kinds == [[kind] * 5 for kind in ('right', 'wrong', 'hostile', 'malformed', 'wrong')]
  # Tokens that show in no text, after the end, are no part of the answer either.
  hidden = rollout_of([[ids_of(heads[0]) + [BOS] + ids_of('x')]])
  prompts = task.prompts_of(np.array([0]))
  assert task.grade(prompts, task.trim(hidden), jax.random.key(0)).rewards.tolist() == [[1]]


def test_trimming_keeps_where_arrays_are():
  """The update was compiled for those shardings."""
  task, rollout = FewShot(), rollout_of([[ids_of(f'cat{STOP} what?')]] * len(jax.devices()))
  assert isinstance(task.trim(rollout).completion_mask, np.ndarray)
  mesh = jax.make_mesh((len(jax.devices()),), ('data',))
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  on_devices = jax.device_put(rollout, sharding)
  trimmed = task.trim(on_devices)
  assert trimmed.completion_mask.sharding == sharding
  assert trimmed.completions is on_devices.completions
  np.testing.assert_array_equal(trimmed.completion_mask, task.trim(rollout).completion_mask)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(
  st.lists(st.sampled_from(['\n', '\n\n', STOP, STOP[:-1], 'cat', 'Problem:', ' ']), max_size=6),
  st.integers(0, 2**31),
)
def test_tokens_up_to_the_stop_text_by_a_search_over_prefixes(parts, seed):
  tokenizer = TwoLetters()
  ids = written(tokenizer, ''.join(parts), np.random.default_rng(seed))
  ends = [n for n in range(len(ids) + 1) if STOP in tokenizer.decode(ids[:n])]
  assert num_tokens_to(tokenizer, ids, STOP) == (ends[0] if ends else len(ids))


# A vocabulary in which 0 is a token like others.


def test_a_prompt_may_have_the_token_0():
  tokenizer = TwoLetters()
  assert tokenizer.encode('\n') == [0]
  tokens, mask = encode_prompts(tokenizer, ['\n\ncat', 'a\n'])
  assert mask.sum(-1).tolist() == [6, 3]
  assert tokens[0][mask[0]].tolist() == [tokenizer.bos_id, 0, 0, *tokenizer.encode('cat')]
  task = FewShot(tokenizer, 'plain')
  prompts = Prompts(np.int32([0, 1]), tokens, mask, ())
  rollout = rollout_of([[[0, tokenizer.stop_id]], [[0]]])
  assert task.texts(prompts, rollout) == (['\n\ncat', 'a\n'], [['\n'], ['\n']])


def test_a_completion_may_have_the_token_0():
  """It neither ends the answer nor hides in it."""
  tokenizer = TwoLetters()
  task = FewShot(tokenizer, 'plain')
  task._problems = ('\ncat', 'dog\n')
  rows = [[[*tokenizer.encode(word), tokenizer.stop_id]] for word in task._problems]
  rollout = rollout_of(rows)
  prompts = task.prompts_of(np.array([0, 1]))
  verdicts = [[Verdict('right', word)] for word in task._problems]
  assert task.verdicts(prompts, task.trim(rollout)) == verdicts
  assert not task.is_truncated(rollout).any()
  assert task.is_truncated(rollout_of([[[0]]])).all()
  demonstrations = encode_completions(tokenizer, prompts, [['\ncat'], ['dog\n']], 7)
  assert task.verdicts(prompts, demonstrations) == verdicts


def test_a_prompt_of_a_model_without_a_first_token_begins_with_its_text():
  """And a token 0 that is a letter is kept where the mask is True."""
  tokenizer = CharacterTokenizer()
  tokenizer.bos_id, tokenizer.encode = None, lambda text: [ord(c) - ord('a') for c in text]
  tokens, mask = encode_prompts(tokenizer, ['cab', 'a'])
  assert [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)] == [[2, 0, 1], [0]]
  with pytest.raises(ValueError, match="prompt: expected at least one token, .*, got ''."):
    encode_prompts(tokenizer, [''])

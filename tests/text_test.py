"""Between text and tokens: prompts, demonstrations, verdicts, and the split of problems."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkpo_jax.tasks.grades import KINDS, Verdict
from pkpo_jax.tasks.text import (
  TextProblems,
  decode_completions,
  distinct_problems,
  encode_completions,
  encode_prompts,
  host_rng,
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

"""Answers in mathematics: where they stand in a text, what they equal, and what must not pass."""

import csv
import importlib.util
from concurrent import futures

import pytest

from benchmarks import common, math_agreement
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.math import verifier as math_answers
from pkpo_jax.tasks.math.verifier import MathVerifier, marked_answer

pytest.importorskip('math_verify', reason='needs the extra `problems`')

PAIRS = math_agreement.read_pairs()
# The right answer is 3.
HOSTILE = [
  '\\boxed{' + '{' * 450 + '3' + '}' * 450 + '4}',
  '\\boxed{' + '(' * 450 + '4' + ')' * 450 + '}',
  '\\boxed{' + '\\sqrt{' * 140 + '4' + '}' * 140 + '}',
  '\\boxed{' + '\\frac{1}{' * 90 + '4' + '}' * 90 + '}',
  '\\boxed{' + '4!' + '!' * 900 + '}',
  '\\boxed{' + '4^' * 400 + '4}',
  '\\boxed{' + '4,' * 490 + '4}',
  '\\boxed{\\int_0^1 \\int_0^1 \\int_0^1 e^{x^y^z} \\sin(xyz)^{x^x} dx dy dz}',
  '\\boxed{x^{99999} + (x+1)^{99999}}',
  '\\boxed{(x+y+z+w)^{9999} - 1}',
  '\\boxed{\\binom{10^{12}}{5 \\cdot 10^{11}}}',
  '\\boxed{10^{999999999999}}',
  '\\boxed{1' + '0' * 980 + '}',
  '$' * 19_999 + '4',
  '\\[' * 10_000,
  'answer ' * 2_857,
  '4 ' * 10_000,
  'final answer is ' * 1_250,
  '4^4^4^4^4^4^4',
  '1+' * 9_000 + '4',
  '\u202e3\u202d 4',
  '\\boxed{\ud83d4}',
  '\\boxed{3\x004}',
]


@pytest.fixture(scope='module')
def verifier():
  with MathVerifier(num_workers=2, deadline_s=60.0) as verifier:
    yield verifier


@pytest.fixture(scope='module')
def hasty_verifier():
  """For what hangs."""
  with MathVerifier(num_workers=2, deadline_s=2.0) as verifier:
    yield verifier


@pytest.fixture(scope='module')
def pair_verdicts():
  return math_agreement.judge(PAIRS)


def listed_rows(table):
  lines = (common.FOLDER / 'results' / 'math_agreement.csv').read_text().splitlines()
  rows = csv.DictReader(line for line in lines if line[:1] != '#')
  columns = math_agreement.TABLES[table]
  return [{c: row[c] for c in columns} for row in rows if row['table'] == table]


@pytest.mark.parametrize(
  'completion, answer',
  [
    (r'so \boxed{5}', '5'),
    (r'\boxed{1} and \boxed{2}', '2'),
    (r'\boxed{1} and \boxed{2', ''),  # Cut off within the second.
    (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'),
    (r'\boxed{\{1, 2\}}', r'\{1, 2\}'),
    (r'\boxed{\left\{ x \right.}', r'\left\{ x \right.'),  # Escaped braces need not pair.
    (r'\boxed {5} \fbox{6}', '6'),
    (r'\boxed{\boxed{5}}', r'\boxed{5}'),
    (r'{{{ \boxed{5} }', '5'),
    (r'}}} \boxed{5}', '5'),
    (r'\boxed{}', ''),
    (r'\boxed5', None),
    (r'\boxed', None),
    (r'boxed{5}', None),
    (r'\\boxed{5}', None),  # A line break and a word.
    ('\\boxed{1 \n 2}', '1 \n 2'),
    ('#### 5', '5'),
    ('#### 4\nno:\n####5 \n', '5 '),
    ('####\n5', None),
    ('### 5', None),
    (r'#### 4 \boxed{5}', '5'),
    ('The answer is 5.', None),
    ('', None),
  ],
)
def test_marked_answer(completion, answer):
  assert marked_answer(completion) == answer


def test_many_open_boxes_take_one_pass():
  """Quadratic time would be hours."""
  assert marked_answer('\\boxed{1} ' + '\\boxed{' * 300_000) == ''
  assert marked_answer('\\boxed{' * 300_000 + '1' + '}' * 300_000).startswith('\\boxed{\\boxed{')


def test_there_are_pairs_of_each_label():
  labels = [pair['label'] for pair in PAIRS]
  assert {label: labels.count(label) >= 50 for label in labels} == dict.fromkeys(
    ('equal', 'unequal', 'hostile'), True
  )
  assert len({tuple(sorted(pair.items())) for pair in PAIRS}) == len(PAIRS) >= 200


def test_every_right_answer_can_be_used(verifier):
  assert verifier.check_gold([pair['gold'] for pair in PAIRS]) == []


def test_disagreements_are_exactly_those_listed(pair_verdicts):
  """`python -m benchmarks.math_agreement` lists them anew."""
  found = math_agreement.disagreement_rows(PAIRS, pair_verdicts)
  assert found == listed_rows('disagreements')
  counts = math_agreement.agreement_rows(PAIRS, pair_verdicts)
  assert [{c: str(x) for c, x in row.items()} for row in counts] == listed_rows('agreement')


def test_no_hostile_pair_passes(pair_verdicts):
  passed = [
    pair
    for pair, verdict in zip(PAIRS, pair_verdicts, strict=True)
    if pair['label'] == 'hostile' and verdict.reward > 0
  ]
  assert not passed


@pytest.fixture(scope='module')
def hostile_verdicts(hasty_verifier):
  """In one batch, as many of them hang."""
  return hasty_verifier.verify_batch([('3', completion) for completion in HOSTILE])


@pytest.mark.parametrize('i', range(len(HOSTILE)), ids=lambda i: ascii(HOSTILE[i][:24]))
def test_a_hostile_text_is_judged_and_does_not_pass(hostile_verdicts, i):
  verdict = hostile_verdicts[i]
  assert verdict.reward == 0 and verdict.kind in ('wrong', 'malformed', 'unjudged')


def test_the_verifier_works_after_what_hangs(hasty_verifier):
  items = [('3', '\\boxed{9^{9^{9^9}}}'), ('3', '\\boxed{3}'), ('3', '\\boxed{4}')]
  assert [v.kind for v in hasty_verifier.verify_batch(items)] == ['unjudged', 'right', 'wrong']


@pytest.mark.parametrize(
  'completion, kind',
  [
    ('', 'empty'),
    (' \n\t', 'empty'),
    ('x' * 20_001, 'overlong'),
    ('\\boxed{3}' + ' ' * 20_000, 'overlong'),
    ('\\boxed{' + '3' * 1001 + '}', 'overlong'),
    ('\\boxed{}', 'malformed'),
    ('\\boxed{\\frac{1}}', 'malformed'),
    ('I do not know.', 'malformed'),
    ('\\boxed{3.}', 'right'),
    ('3', 'right'),
    ('4', 'wrong'),
    (' ' * 19_990 + '\\boxed{3}', 'right'),
  ],
  ids=lambda text: ascii(text[:12]),
)
def test_kinds(verifier, completion, kind):
  (verdict,) = verifier.verify_batch([('3', completion)])
  assert verdict.kind == kind
  assert (verdict.answer is None) == (kind not in ('right', 'wrong'))


def test_the_limit_of_length_is_in_characters():
  with MathVerifier(num_workers=1, deadline_s=60.0, max_length=4) as verifier:
    verdicts = verifier.verify_batch([('3', 'ü= 3'), ('3', 'ü = 3')])
  assert [verdict.kind for verdict in verdicts] == ['right', 'overlong']


def test_answers_of_equal_value_vote_for_the_same(verifier):
  def votes(gold, answers):
    found = verifier.verify_batch([(gold, f'\\boxed{{{answer}}}') for answer in answers])
    return {verdict.answer for verdict in found}

  halves = [r'\frac{1}{2}', r'\frac24', '0.5', '.50', 'x = 0.5', '2^{-1}', r'0.5 \text{ cm}']
  assert votes(r'\frac{1}{2}', halves) == {r'\frac{1}{2}'}
  (wrong,) = votes('3', halves)
  assert wrong not in votes('3', [r'\frac13', '-0.5', '3', '2'])
  assert len(votes('3', [r'2\sqrt{2}', r'\sqrt{8}', r'\frac{4}{\sqrt2}'])) == 1
  assert len(votes('3', [r'\{1, 2\}', r'\{2,1\}', '1,2'])) == 1
  assert len(votes('3', ['x+1', '1+x', 'y = x + 1'])) == 1


def test_a_vote_is_short(verifier):
  long = 'x + ' + '7' * 300
  (verdict,) = verifier.verify_batch([('3', f'\\boxed{{{long}}}')])
  assert verdict.kind == 'wrong' and len(verdict.answer) == 200


def test_an_interval_and_an_inequality_answer_each_other(verifier):
  items = [('1 < x < 2', '\\boxed{(1,2)}'), ('(1,2)', '\\boxed{1 < x < 2}')]
  assert [verdict.kind for verdict in verifier.verify_batch(items)] == ['right', 'right']


def test_order_is_kept_and_what_is_equal_is_compared_once(verifier, monkeypatch):
  asked = []

  def handle(items):
    asked.extend(items)
    return pool_map(items)

  pool_map = verifier._pool.map
  monkeypatch.setattr(verifier._pool, 'map', handle)
  completions = [
    'so \\boxed{3}',
    'thus \\boxed{4}',
    '',
    'or \\boxed{3}',
    '#### 3',
    '3',
    '\\boxed{3}',
  ]
  verdicts = verifier.verify_batch([(gold, text) for text in completions for gold in ('3', '4')])
  right, wrong = ['right', 'wrong'], ['wrong', 'right']
  kinds = [right, wrong, ['empty', 'empty'], right, right, right, right]
  assert [[v.kind for v in verdicts[i : i + 2]] for i in range(0, 14, 2)] == kinds
  # Each right answer with the marked 3, the marked 4 and the 3 in prose.
  assert len(asked) == 6
  assert verifier.verify_batch([]) == []


def test_a_right_answer_that_cannot_be_parsed_is_an_error(verifier):
  assert verifier.check_gold(['3', '\\frac', 'x=5', '', '\\frac', '\\frac{1}{0}', '[0,1)']) == [
    '\\frac',
    '',
    '\\frac{1}{0}',  # Equals nothing, not even itself.
  ]
  with pytest.raises(RuntimeError, match=r"gold: expected LaTeX .* got '\\\\frac'"):
    verifier.verify_batch([('3', '3'), ('\\frac', '3')])
  assert verifier.verify_batch([('3', '3')]) == [Verdict('right', '3')]


def test_any_thread_may_ask(hasty_verifier):
  """math-verify itself refuses to work outside the main thread."""
  items = [('3', '\\boxed{9^{9^{9^9}}}'), ('3', '\\boxed{3}')]
  with futures.ThreadPoolExecutor(1) as executor:
    verdicts = executor.submit(hasty_verifier.verify_batch, items).result()
  assert [verdict.kind for verdict in verdicts] == ['unjudged', 'right']


def test_a_missing_library_names_the_extra(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r"pip install 'pkpo_jax\[problems\]'"):
    MathVerifier(num_workers=1)


def test_the_checks_can_fail(monkeypatch):
  checks = [(['3', '4', False], ['right', '3'])]
  monkeypatch.setattr(math_answers, '_CHECKS', checks)
  with MathVerifier(num_workers=1, deadline_s=60.0) as verifier:
    with pytest.raises(RuntimeError, match="should give .*'right'.* got .*'wrong'"):
      verifier.verify_batch([('3', '3')])


@pytest.mark.parametrize('field, value', [('max_length', 0), ('num_workers', 0)])
def test_errors_name_the_field(field, value):
  with pytest.raises(ValueError, match=f'{field}: expected'):
    MathVerifier(**{'num_workers': 1, field: value})

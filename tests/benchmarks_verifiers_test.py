"""The benchmarks of verifiers, in their smallest form, write their rows; no time is judged."""

import csv

import pytest

from benchmarks import math_agreement, verifiers
from pkpo_jax.tasks.grades import Verdict

pytest.importorskip('math_verify', reason='needs the extra `problems`')


def read(path):
  lines = path.read_text().splitlines()
  names = [line[2:].partition(':')[0] for line in lines if line.startswith('#')]
  assert names == ['command', 'commit', 'hardware', 'versions', 'date', 'seed']
  return list(csv.DictReader(line for line in lines if not line.startswith('#')))


def test_every_verifier_has_its_rows(tmp_path):
  verifiers.main(['--quick', '--outdir', str(tmp_path)])
  rows = read(tmp_path / 'verifiers_cpu.csv')
  timed = [row for row in rows if not row['note']]
  assert {row['verifier'] for row in rows} == set(verifiers.CANDIDATES)
  # Without a sandbox that works, or without reasoning-gym, there is a row that says so.
  missing = {row['verifier'] for row in rows} - {row['verifier'] for row in timed}
  assert missing <= {'code', 'puzzles'}
  for row in timed:
    assert int(row['workers']) in verifiers.CANDIDATES[row['verifier']].workers
    assert all(float(row[column]) > 0 for column in ('start_s', 'per_s', 'ms_per_item'))
    assert (row['per_s/1_worker'] == '') == (row['workers'] == '0')
  assert '| math in prose | 2 |' in (tmp_path / 'verifiers_cpu.md').read_text()


@pytest.mark.parametrize('name', verifiers.CANDIDATES)
def test_items_are_new_in_each_turn(name):
  candidate = verifiers.CANDIDATES[name]
  first, labels = verifiers.draw_items(candidate, 20, seed=1)
  second, _ = verifiers.draw_items(candidate, 20, seed=2)
  assert labels == [True, False] * 10
  assert not set(map(repr, first)) & set(map(repr, second))
  assert verifiers.draw_items(candidate, 20, seed=1)[0] == first


def test_all_forms_of_math_answers_are_judged_as_drawn():
  candidate = verifiers.CANDIDATES['math']
  items, labels = verifiers.draw_items(candidate, 200, seed=3)
  with candidate.open(2) as judge:
    verifiers.check('math', judge, items, labels)


def test_a_wrong_verifier_is_found_before_it_is_timed():
  candidate = verifiers.CANDIDATES['maze']
  lenient = candidate._replace(
    open=verifiers.in_this_process(lambda maze, moves: Verdict('right', moves))
  )
  with pytest.raises(AssertionError, match='maze: .*drawn to be False'):
    verifiers.rows_of('maze', lenient, num_items=4, repeats=1)


def test_a_verifier_that_does_not_work_here_is_named():
  def missing(num_workers):
    raise ImportError('in this file:\nno such library\n')

  candidate = verifiers.CANDIDATES['math']._replace(open=missing)
  rows = verifiers.rows_of('math', candidate, num_items=4, repeats=1)
  assert rows == [{'verifier': 'math', 'note': 'no such library'}]


def test_agreement_is_written_by_topic(tmp_path, monkeypatch):
  pairs = [
    {'topic': 'one', 'gold': '3', 'answer': '3.0', 'label': 'equal'},
    {'topic': 'one', 'gold': '3', 'answer': '4', 'label': 'equal'},  # Mislabelled.
    {'topic': 'two', 'gold': '3', 'completion': 'it is 3', 'label': 'hostile'},  # This one too.
    {'topic': 'two', 'gold': '3', 'answer': '4', 'label': 'unequal'},
  ]
  monkeypatch.setattr(math_agreement, 'read_pairs', lambda: pairs)
  math_agreement.main(['--outdir', str(tmp_path)])
  rows = read(tmp_path / 'math_agreement.csv')
  counts = [list(row.values())[:6] for row in rows if row['table'] == 'agreement']
  assert counts == [
    ['agreement', 'one', '2', '1', '0', '0'],
    ['agreement', 'two', '0', '0', '2', '1'],
    ['agreement', 'all', '2', '1', '2', '1'],
  ]
  found = [(row['text'], row['verdict']) for row in rows if row['table'] == 'disagreements']
  assert found == [('`4`', 'wrong'), ('`it is 3`', 'right')]

"""Entries of reasoning-gym, from the prepared records to its scores."""

import json

import pytest

from tests.datasets_sources import load

reasoning_gym = pytest.importorskip('reasoning_gym', reason="needs pip install 'pkpo_jax[puzzles]'")

NAMES = ('spell_backward', 'countdown', 'propositional_logic')


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  data_dir = str(tmp_path_factory.mktemp('data'))
  return load('reasoning_gym', data_dir, names=NAMES, size=5, seed=7)['train']


def test_entries_are_those_of_the_package(records):
  places = [(name, i) for name in NAMES for i in range(5)]
  for record, (name, i) in zip(records, places, strict=True):
    entry = reasoning_gym.create_dataset(name, size=5, seed=7)[i]
    assert record['id'] == f'{name}/{i}'
    assert (record['dataset'], record['question']) == (name, entry['question'])
    assert record['answer'] == (entry['answer'] or '')
    assert json.loads(record['entry']) == json.loads(json.dumps(entry))


def test_entries_score(records):
  dataset = reasoning_gym.get_score_answer_fn('countdown')
  of_countdown = [record for record in records if record['dataset'] == 'countdown']
  for record, other in zip(of_countdown, of_countdown[1:] + of_countdown[:1], strict=True):
    entry = json.loads(record['entry'])
    assert dataset(record['answer'], entry) == 1
    assert dataset(other['answer'], entry) < 1


def test_the_answer_is_empty_where_there_are_several(records):
  (record, *_) = (x for x in records if x['dataset'] == 'propositional_logic')
  assert record['answer'] == '' and json.loads(record['entry'])['answer'] is None


@pytest.mark.parametrize(
  'options, message',
  [
    ({'names': ['no_such']}, 'reasoning_gym.names: expected some of .*spell_backward.*, got .no_s'),
    ({'names': []}, r'reasoning_gym.names: expected at least one, got \(\).'),
    ({'names': ['countdown'] * 2}, 'reasoning_gym.names: expected distinct names, got'),
    ({'size': 0}, 'reasoning_gym.size: expected at least 1, got 0.'),
    ({'seed': -1}, 'reasoning_gym.seed: expected at least 0, got -1.'),
    # Colours are keys of a dict, as integers: JSON makes texts of them.
    (
      {'names': ['graph_color']},
      'graph_color, entry 0: .* JSON can hold, got meta',
    ),
    # It compares tuples with the lists that JSON makes of them.
    (
      {'names': ['rearc']},
      'rearc, entry 0: expected JSON to leave the score',
    ),
  ],
)
def test_what_cannot_be_stored_is_named(tmp_path, options, message):
  options = {'names': ['spell_backward'], 'size': 2, 'seed': 0} | options
  with pytest.raises(ValueError, match=message):
    load('reasoning_gym', str(tmp_path), **options)

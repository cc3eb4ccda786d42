"""Metrics are written once per step, survive a resume, and reach TensorBoard."""

import json

import pytest
from tensorboardX import proto

from pkpo_jax.errors import DataError
from pkpo_jax.metrics import MetricWriter, read_metrics


def _write(workdir, first_step, steps, tensorboard=False):
  with MetricWriter(workdir, first_step, tensorboard) as writer:
    for step in steps:
      writer.write(step, {'train/loss': step / 2, 'train/k': step})


def test_lines_round_trip(tmp_path):
  _write(tmp_path, 0, range(3))
  assert read_metrics(tmp_path)[2] == {'step': 2, 'train/loss': 1.0, 'train/k': 2.0}


def test_resume_repeats_no_step(tmp_path):
  _write(tmp_path, 0, range(6))
  _write(tmp_path, 4, range(4, 9))
  assert [line['step'] for line in read_metrics(tmp_path)] == list(range(9))


def test_a_line_cut_short_is_dropped(tmp_path):
  _write(tmp_path, 0, range(3))
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"step": 3, "train/lo')
  _write(tmp_path, 3, range(3, 5))
  assert [line['step'] for line in read_metrics(tmp_path)] == list(range(5))


@pytest.mark.parametrize(
  'damage, words',
  [
    ('{"step": 1, "train/lo', 'expected JSON, got \'{"step": 1, "train/lo\''),
    ('', "expected JSON, got ''"),
    ('\0\0\0', 'expected JSON'),
    ('\udcff\udcfe', 'expected JSON'),
    ('[1, 2]', "expected an object with 'step', got '\\[1, 2\\]'"),
    ('{"train/loss": 1.0}', "expected an object with 'step'"),
  ],
)
def test_a_damaged_line_is_named(damage, words, tmp_path):
  _write(tmp_path, 0, range(3))
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_text().splitlines()
  lines[1] = damage
  path.write_bytes(('\n'.join(lines) + '\n').encode(errors='surrogateescape'))
  with pytest.raises(DataError, match=f'metrics.jsonl, line 2: {words}'):
    read_metrics(tmp_path)
  # The same for a run that is resumed behind the damage.
  with pytest.raises(DataError, match=f'metrics.jsonl, line 2: {words}'):
    MetricWriter(tmp_path, 3, False)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_non_finite_metrics_stop_the_run(tmp_path, value):
  with MetricWriter(tmp_path, 0, False) as writer:
    with pytest.raises(FloatingPointError, match='train/loss.*step 7.*(nan|inf)'):
      writer.write(7, {'train/loss': value})


def test_tensorboard_gets_the_same_numbers(tmp_path):
  _write(tmp_path, 0, range(3), tensorboard=True)
  (path,) = (tmp_path / 'tensorboard').iterdir()
  found = []
  data = path.read_bytes()
  while data:
    # A record: length (8 bytes), its checksum (4), an event, the event's checksum (4).
    length = int.from_bytes(data[:8], 'little')
    event = proto.event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
    found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert found == [
    (line['step'], tag, line[tag]) for line in lines for tag in ('train/loss', 'train/k')
  ]

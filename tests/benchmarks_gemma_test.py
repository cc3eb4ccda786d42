"""The Gemma-2 benchmarks, in their smallest form, write the rows they should; no time is judged."""

import csv
import importlib
import json
import sys
import textwrap
import time

import numpy as np
import pytest

from benchmarks import (
  attention_memory,
  gemma2_gpu,
  layer_scan,
  log_prob_memory,
  packing,
  rl_step,
  rollout,
  scaling,
  turns,
  update_padding,
  weak_scaling,
)
from pkpo_jax import session
from pkpo_jax.policies import POLICIES
from pkpo_jax.tasks import TASKS


class InThisProcess:
  """turns.Candidate without a process of its own, which would import everything once more."""

  def __init__(self, target, workload, python=sys.executable, timeout=None):
    self.missing = None
    module, _, name = target.partition(':')
    if python is None:
      self.missing = 'no interpreter was given for it'
      return
    try:
      self._candidate = getattr(importlib.import_module(module), name)(workload)
    except ImportError as error:
      self.missing = str(error)
      return
    self.about = getattr(self._candidate, 'about', {})

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self.missing is None:
      getattr(self._candidate, 'close', lambda: None)()

  def call(self):
    start, cpu_start = time.perf_counter(), time.process_time()
    found = self._candidate() or {}
    cpu_seconds = time.process_time() - cpu_start
    return {'seconds': time.perf_counter() - start, 'cpu_seconds': cpu_seconds, **found}

  def ask(self, method, *arguments):
    return getattr(self._candidate, method)(*arguments)


@pytest.fixture
def in_this_process(monkeypatch):
  monkeypatch.setattr(turns, 'Candidate', InThisProcess)


def read(path):
  lines = path.read_text().splitlines()
  rows = list(csv.DictReader(line for line in lines if not line.startswith('#')))
  names = [line[2:].partition(':')[0] for line in lines if line.startswith('#')]
  assert names == ['command', 'commit', 'hardware', 'versions', 'date', 'seed']
  tables = {}
  for row in rows:
    tables.setdefault(row['table'], []).append(row)
  assert path.with_suffix('.md').read_text().count('\n## ') == len(tables)
  return tables


def test_rollout(in_this_process, tmp_path):
  rollout.main(['--quick', '--outdir', str(tmp_path)])
  rows = {row['candidate']: row for row in read(tmp_path / 'rollout_cpu.csv')['rollout']}
  assert list(rows) == list(rollout.CANDIDATES)
  for name in (rollout.LIMIT, rollout.OURS, 'python loop', 'gemma'):
    assert float(rows[name]['tokens_per_s']) > 0 and not rows[name]['note']
  assert float(rows[rollout.OURS]['it/ours']) == float(rows[rollout.LIMIT]['share_of_limit']) == 1
  # The gemma library and this one run one function of one set of weights.
  assert float(rows['gemma']['same_greedy']) == 1
  assert float(rows['python loop']['same_greedy']) == 1
  assert rows['transformers']['note'].startswith('not run: ')
  assert rows['transformers']['tokens_per_s'] == ''


def test_training_step(in_this_process, tmp_path, monkeypatch):
  for names in (POLICIES, TASKS):
    monkeypatch.setitem(names, 'benchmark', None)  # Gone after the test.
  progress = session.progress
  monkeypatch.setattr(session, 'progress', progress)  # As it was for other tests, whatever happens.
  rl_step.main(['--quick', '--outdir', str(tmp_path)])
  tables = read(tmp_path / 'rl_step_cpu.csv')
  steps = {(row['case'], row['candidate']): row for row in tables['step']}
  assert [row['case'] for row in tables['cases']] == list(rl_step.QUICK) == ['equal', 'log-normal']
  for name, case in rl_step.QUICK.items():
    row = steps[name, rl_step.OURS]
    assert float(row['warm_s']) > 0 and float(row['it/ours']) == float(row['cpu/ours']) == 1
    lengths = case.workload(rl_step.OURS)['lengths']
    num_tokens = 2 * 2 * case.new_tokens if lengths is None else np.sum(lengths)
    assert int(row['num_tokens']) == num_tokens, 'completions end where they should'
  milliseconds = {row['phase']: float(row['ms']) for row in tables['pieces']}
  assert set(milliseconds) == {*rl_step.PHASES, 'outside the model', 'all'}
  assert all(ms > 0 for ms in milliseconds.values())
  bounds = {row['target']: row['bound'] for row in tables['targets']}
  assert bounds['equal: share of a step: outside the model'] == '<= 0.05'
  assert bounds['equal: share of a step: advantages'] == '<= 0.005'
  assert session.progress is progress, 'the loop is as it was'


def test_shares_of_a_step():
  replies = [
    {'prompts': 1, 'rollout': 5, 'rewards': 1, 'advantages': 0.5, 'update': 2, 'metrics': 0.5}
    | {'seconds': 10}
  ] * 3
  shares = {row['phase']: row['share'] for row in rl_step.piece_rows(replies)}
  assert shares['outside the model'] == pytest.approx(0.3)
  assert shares['advantages'] == pytest.approx(0.05) and shares['all'] == 1


def test_targets_are_those_of_the_fastest_settings():
  rows = [
    {'candidate': rl_step.OURS, 'it/ours': 1.0, 'cpu/ours': 1.0},
    {'candidate': rl_step.TUNIX[0], 'it/ours': 5.0, 'cpu/ours': 3.0},
    {'candidate': rl_step.TUNIX[2], 'it/ours': 4.0, 'cpu/ours': 6.0},
    {'candidate': rl_step.TUNIX[1], 'note': 'not run: ...'},
  ]
  case = rl_step.CASES['log-normal, 128 tokens']
  found = list(rl_step.target_rows('spread', case, rows, []))
  assert [row['measured'] for row in found] == [4.0, 3.0]
  assert [row['bound'] for row in found] == ['>= 4', '>= 4']
  assert [row['reached'] for row in found] == ['yes', 'no']


def test_layer_scan(tmp_path):
  layer_scan.main(['--quick', '--outdir', str(tmp_path)])
  tables = read(tmp_path / 'layer_scan_cpu.csv')
  assert [row['program'] for row in tables['compilation']] == ['sampling', 'update']
  assert float(tables['agreement'][0]['log_prob_error']) < 1e-5
  assert tables['agreement'][0]['same_completions'] == 'True'


@pytest.mark.parametrize(
  ('windows', 'length'),
  [((None,) * 3, 1), ((4, None) * 2, 2), ((4, 4, None) * 2, 3), ((4, 4, None, 4), 4)],
)
def test_the_pattern_of_layers(windows, length):
  assert layer_scan.pattern_of(windows) == length


def test_attention_memory(tmp_path):
  attention_memory.main(['--quick', '--outdir', str(tmp_path)])
  rows = read(tmp_path / 'attention_memory_cpu.csv')['memory']
  assert [row['tokens'] for row in rows] == ['16', '32']
  assert all(float(row['gradient_error']) < 1e-5 for row in rows)


def test_update_padding(tmp_path):
  update_padding.main(['--quick', '--outdir', str(tmp_path)])
  tables = read(tmp_path / 'update_padding_cpu.csv')
  assert all(float(row['gradient_error']) < 1e-5 for row in tables['programs'])
  assert [len(tables[name]) for name in ('lengths', 'signal', 'programs')] == [4, 4, 3]
  for row in tables['lengths'] + tables['signal']:
    is_first = row['num_sample_blocks'] == '1'
    assert (float(row['positions']) == float(row['whole/it']) == 1) == is_first


@pytest.mark.parametrize('ratio, prompt_share', [(4, 0.0), (8, 0.5), (1, 0.0)])
def test_lengths_are_as_said(ratio, prompt_share):
  case = update_padding.Case(1, ratio, prompt_share)
  lengths = update_padding.draw_lengths(np.random.default_rng(0), (8, 16), 1000, case)
  assert lengths.max() == 1000
  assert lengths.mean() == pytest.approx(1000 / ratio, rel=0.01)


def test_positions_are_counted():
  lengths = np.array([[1, 8], [2, 3]])
  mask, advantages = np.arange(8) < lengths[..., None], np.array([[0, 0], [0, 1]])
  count = lambda *setup: update_padding.count_positions(
    update_padding.Setup(*setup), mask, advantages, prompt_tokens=10
  )
  assert count() == 2 * 10 + 4 * 8
  # Short samples of both prompts, then the long ones.
  assert count(1, 2, 4) == 4 * 10 + 2 * 2 + 2 * 8
  assert count(2, 2, 4) == 4 * 10 + 2 + 4 + 1 + 8
  assert count(2, 1, 1, True) == 10 + 2 * 8


def test_packing(tmp_path):
  packing.main(['--quick', '--outdir', str(tmp_path)])
  tables = read(tmp_path / 'packing_cpu.csv')
  plain, packed = tables['packing']
  assert (plain['packings'], packed['packings']) == ('0', '1')
  assert float(plain['speedup']) == float(plain['row_steps_speedup']) == 1
  assert float(packed['row_steps_speedup']) > 1.5 and float(packed['same_tokens']) == 1
  assert all(float(row['max/mean 8']) > float(row['max/mean 4']) > 1 for row in tables['buckets'])
  whole, half, _ = tables['cache']
  assert (half['dtype'], half['cache_dtype']) == ('float32', 'bfloat16')
  assert float(half['cache_mib']) == pytest.approx(float(whole['cache_mib']) / 2, rel=1e-3)
  assert float(whole['max_difference']) < 1e-4 < float(half['max_difference']) < 0.1


def test_scaling(tmp_path, monkeypatch):
  subject_of = scaling.subject_of
  monkeypatch.setattr(scaling, 'subject_of', lambda *sizes: subject_of(*sizes).with_layers(1))
  monkeypatch.setattr(scaling, 'QUICK_SWEEPS', {'k': (1, 2), 'n': (2, 4)})
  scaling.main(['--quick', '--parts', 'sweeps', '--outdir', str(tmp_path)])
  tables = read(tmp_path / 'scaling_cpu.csv')
  assert (tmp_path / 'scaling_cpu.png').stat().st_size > 1000
  by_k, by_n = tables['sweeps'][:2], tables['sweeps'][2:]
  sizes = [[row[name] for name in scaling.Point._fields] for row in tables['sweeps']]
  # One thing varies, around a base point that both sweeps share.
  assert sizes[1] == sizes[3] == list(map(str, scaling.QUICK_BASE))
  assert [row['k'] for row in by_k] == ['1', '2'] and [row['n'] for row in by_n] == ['2', '4']
  for row in tables['sweeps']:
    parts = [float(row[name]) for name in scaling.TIMES[:-1]]
    assert min(parts) > 0 and 0 < float(row['estimator_share']) < 1
  # More samples need more memory, but parameters and prompts are there once.
  fewer, more = (float(row['update_mib']) for row in by_n)
  slopes = {(row['varied'], row['over']): float(row['update_mib']) for row in tables['slopes']}
  assert slopes['n', 'all'] == pytest.approx(np.log2(more / fewer), abs=1e-3)
  assert 0 < slopes['n', 'all'] < 1
  targets = {row['target']: row for row in tables['targets']}
  share = max(float(row['estimator_share']) for row in by_n)
  reached = targets['largest share of the estimator over n']['reached']
  assert reached == ('yes' if share <= scaling.MOST_SHARE else 'no')


def test_the_slope_is_the_exponent():
  sizes = np.array([1, 2, 4, 8])
  assert scaling.slope(sizes, 3 * sizes**1.5) == pytest.approx(1.5)
  assert scaling.slope(sizes, [5, 5, 5, 5]) == 0


def test_weak_scaling_is_relative_to_the_cores_there_are(tmp_path, monkeypatch):
  # A step of one process takes a second, of two on two cores 1.25, of four on them 2.5; of as many
  # runs apart 1.1 and 2.
  seconds = {(1, 1): 1.0, (2, 1): 1.25, (4, 1): 2.5, (2, 2): 1.1, (4, 4): 2.0}
  step = lambda s: {'time/rollout_s': 0.25 * s, 'time/update_s': 0.75 * s}
  train = lambda config, fields, count, runs, *_: runs * [step(seconds[count, runs])]
  monkeypatch.setattr(weak_scaling, 'train', train)
  monkeypatch.setattr(weak_scaling.os, 'sched_getaffinity', lambda _: {0, 1})
  rows = weak_scaling.rows('', {}, (1, 2, 4), prompts=8, num_steps=4, turns=2)
  assert {(row['processes'], row['runs']) for row in rows} == set(seconds)
  connected = [row for row in rows if row['runs'] == 1]
  assert [row['prompts'] for row in connected] == [8, 16, 32]
  assert [row['prompts_per_s'] for row in connected] == [8, 12.8, 12.8]
  assert [row['efficiency'] for row in connected] == pytest.approx([1, 0.8, 0.8])
  assert [row['apart/one'] for row in connected] == pytest.approx([1, 1.1 / 1.25, 2 / 2.5])
  lines = [{'step': 0, 'eval/pass@1': 0.5}]
  lines += [
    {'step': i, 'train/loss': 1.0, 'time/update_s': float(i), 'time/tokens_per_s': 100.0}
    for i in range(4)
  ]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  times = weak_scaling.times(tmp_path / 'metrics.jsonl')
  assert times == [{'time/update_s': 2.0}, {'time/update_s': 3.0}]  # Not those that compile.


def test_log_prob_memory(tmp_path):
  log_prob_memory.main(['--quick', '--outdir', str(tmp_path)])
  tables = read(tmp_path / 'log_prob_memory_cpu.csv')
  rows, steps = tables['memory'], tables['step']
  assert [row['chunk'] for row in rows] == [row['chunk'] for row in steps] == ['1', '4']
  assert all(float(row['gradient_error']) < 1e-5 for row in rows)
  assert float(rows[0]['logits_mib']) == pytest.approx(2 * 4 * 8 * 1000 * 4 / 2**20, rel=1e-2)
  # The fewer logits at a time, the less memory.
  assert float(rows[0]['plain/chunked_memory']) > float(rows[1]['plain/chunked_memory']) > 1
  for row in steps:
    assert float(row['state_mib']) < float(row['chunked_mib']) < float(row['plain_mib'])


def test_gemma2_gpu(in_this_process, tmp_path):
  profile = tmp_path / 'profile'
  gemma2_gpu.main(['--tiny', '--outdir', str(tmp_path), '--profile', str(profile)])
  assert {path.name for path in profile.iterdir()} == {'decode_2x2x32', 'update_2x2x32'}
  assert len(list(profile.rglob('*.xplane.pb'))) == 2
  tables = read(tmp_path / 'gemma2_cpu.csv')
  (machine,), (decode,), (update,) = tables['machine'], tables['decode'], tables['update']
  assert decode['note'] == update['note'] == ''
  # 1001600 weights of 2 bytes, but 4 for the scales of 17 norms; keys and values of 4 layers, 2
  # heads of 32, for 2 prompts of 8 tokens and 4 completions of 15.5 tokens in the mean.
  cache = 4 * (2 * 2 * 2 * 32) * (2 * 8 + 4 * 15.5)
  assert float(decode['step_gb']) == pytest.approx(
    (2 * 1001600 + 2 * 17 * 128 + cache) / 1e9, rel=1e-4
  )
  limit = 4 * float(machine['copy_gb_per_s']) / float(decode['step_gb'])
  assert float(decode['limit_tokens_per_s']) == pytest.approx(limit, rel=1e-3)
  assert update['microbatches'] == '2' and float(update['mfu']) > 0


def test_a_cell_that_fails_is_named(monkeypatch):
  class Failing(InThisProcess):
    def call(self):
      raise RuntimeError('trace\nRESOURCE_EXHAUSTED: out of memory\nend')

  monkeypatch.setattr(turns, 'Candidate', Failing)
  found = gemma2_gpu.measure('Machine', {'copy_mib': 1, 'matmul_size': 8})
  assert found == {'note': 'failed: RESOURCE_EXHAUSTED: out of memory'}


@pytest.fixture
def stub(tmp_path, monkeypatch):
  """Makes 'stub:Stub' importable in other processes."""
  code = """
    class Stub:
      about = {'versions': 'stub 1'}

      def __init__(self, workload):
        print('a library that prints')
        self.calls = workload['calls']

      def __call__(self):
        self.calls += 1
        return {'calls': self.calls}

      def add(self, a, b):
        return a + b

      def fail(self):
        raise ValueError('the reason')
  """
  (tmp_path / 'stub.py').write_text(textwrap.dedent(code))
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  return 'stub:Stub'


def test_candidates_take_turns(stub):
  with turns.Candidate(stub, {'calls': 0}) as a, turns.Candidate(stub, {'calls': 10}) as b:
    assert a.about == {'versions': 'stub 1'}
    replies = turns.take_turns({'a': a, 'b': b}, repeats=2, pause=0)
    assert a.ask('add', 1, 2) == 3
  assert [reply['calls'] for reply in replies['a'] + replies['b']] == [1, 2, 11, 12]
  assert turns.median(replies['b'], 'calls') == 11.5
  assert all(reply['seconds'] > 0 and reply['cpu_seconds'] >= 0 for reply in replies['a'])


def test_a_missing_candidate_says_why(stub):
  with turns.Candidate('not_installed:Stub', {}) as candidate:
    assert candidate.missing == "No module named 'not_installed'"
  with turns.Candidate(stub, {}, python=None) as candidate:
    assert candidate.missing == 'no interpreter was given for it'
  with turns.Candidate(stub, {}, python='/no/python') as candidate:
    assert candidate.missing == '/no/python: No such file or directory'


def test_a_failing_candidate_shows_its_errors(stub):
  with turns.Candidate(stub, {'calls': 0}) as candidate:
    with pytest.raises(RuntimeError, match='the reason'):
      candidate.ask('fail')


def test_matrix_products_depend_on_every_column():
  matmul = importlib.import_module('benchmarks.peers.matmul')
  x = np.ones((2, 3), np.float32)
  weight = np.eye(3, 5, dtype=np.float32)
  before = matmul._product(x, weight, 2)
  weight[0, 4] = 7
  assert not np.allclose(before, matmul._product(x, weight, 2))

"""The worker pool: whatever a worker does, each item gets its reply, and nothing stays behind."""

import gc
import os
import pathlib
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest

from pkpo_jax.workers import pool as pool_module
from pkpo_jax.workers.pool import Reply, WorkerPool

ROOT = pathlib.Path(__file__).parent.parent
WORKER = ROOT / 'tests' / 'fixtures' / 'pool_worker.py'
CHECK = (['echo', 'check'], 'check')
# Of items that hang; those that do not have far more time than they need.
SHORT_S = 2.0


def make_pool(num_workers=1, deadline_s=60.0, items_per_worker=100, checks=(CHECK,), **settings):
  return WorkerPool(WORKER, num_workers, deadline_s, items_per_worker, checks, **settings)


def done(*values):
  return [Reply('done', value) for value in values]


def children():
  """Returns the processes that this one has started and not reaped, by their worker file."""
  found = set()
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
      command = (folder / 'cmdline').read_text()
    except OSError:  # It has just ended.
      continue
    # The command of a zombie is empty.
    if parent == os.getpid() and (not command or str(WORKER) in command):
      found.add(int(folder.name))
  return found


def is_running(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
  except OSError:
    return False
  return state not in 'ZX'


def await_end(pids):
  """Waits until none of the processes runs; a minute stands for ever."""
  end = time.monotonic() + 60
  while any(map(is_running, pids)):
    assert time.monotonic() < end, f'still running: {[pid for pid in pids if is_running(pid)]}'
    time.sleep(0.05)


@pytest.fixture(autouse=True)
def nothing_is_left():
  before = children()
  yield
  assert children() <= before


def test_replies_are_in_the_order_of_the_items():
  with make_pool(num_workers=2) as pool:
    items = [['wait', 0.3, 0], *(['wait', 0.0, i] for i in range(1, 6)), ['wait', 0.2, 6]]
    assert pool.map(items) == done(*range(7))
    assert pool.map([]) == []
    assert pool.map(items[::-1]) == done(*range(6, -1, -1))


@pytest.mark.parametrize(
  'value', [None, 1.5, 'ü\ud800\0', {'a': [1, {'b': None}]}, '', 'x' * 3_000_000, [[]] * 100_000]
)
def test_items_and_values_are_any_json(value):
  with make_pool() as pool:
    assert pool.map([['echo', value]]) == done(value)


def test_both_workers_work():
  with make_pool(num_workers=2) as pool:
    replies = pool.map([['slow_pid'], ['slow_pid']])
    assert {reply.value for reply in replies} == children()
    assert len(children()) == 2


@pytest.mark.parametrize('item', ['hang', 'hold_the_interpreter', 'ignore_signals'])
def test_what_hangs_is_killed_at_its_deadline_and_the_pool_goes_on(item):
  with make_pool(num_workers=2, deadline_s=SHORT_S) as pool:
    replies = pool.map([['echo', 1], [item], ['echo', 2], ['echo', 3]])
    assert replies == [*done(1), Reply('timeout'), *done(2, 3)]
    assert pool.map([['echo', 4]]) == done(4)


def test_what_a_hanging_worker_has_started_ends_with_it(tmp_path):
  with make_pool(deadline_s=SHORT_S) as pool:
    path = tmp_path / 'pid'
    assert pool.map([['hang_beside_a_child', str(path)]]) == [Reply('timeout')]
    await_end([int(path.read_text())])


def test_an_item_whose_worker_died_is_tried_once_more_in_a_fresh_one(tmp_path):
  with make_pool(num_workers=2) as pool:
    items = [['echo', 1], ['die', str(tmp_path / 'pids'), 1], ['echo', 2]]
    assert pool.map(items) == done(1, 2, 2)  # Two processes have tried it.


def test_an_item_whose_worker_died_twice_has_crashed(tmp_path):
  with make_pool(num_workers=2) as pool:
    path = tmp_path / 'pids'
    replies = pool.map([['echo', 1], ['die', str(path), 5], ['echo', 2]])
    assert replies == [*done(1), Reply('killed'), *done(2)]
    assert len(path.read_text().split()) == 2
    assert pool.map([['leave'], ['echo', 3]]) == [Reply('crashed'), *done(3)]


@pytest.mark.parametrize(
  'number, status',
  [
    (signal.SIGKILL, 'killed'),  # By the kernel, for one, when the machine is out of memory.
    (signal.SIGTERM, 'killed'),
    (signal.SIGVTALRM, 'crashed'),  # A worker's own limit of CPU.
    (signal.SIGSEGV, 'crashed'),
    (signal.SIGABRT, 'crashed'),
  ],
)
def test_how_a_worker_died(number, status, tmp_path):
  path = tmp_path / 'has_died'
  with make_pool(num_workers=2) as pool:
    replies = pool.map([['die_of', number], ['echo', 1], ['die_of', number, str(path)]])
  assert replies == [Reply(status), *done(1, 'alive')]
  assert path.exists()


def test_a_worker_that_died_while_it_had_nothing_to_do_is_no_crash():
  with make_pool() as pool:
    ((_, pid),) = pool.map([['pid']])
    os.kill(pid, signal.SIGKILL)
    await_end([pid])
    assert pool.map([['echo', 1], ['echo', 2]]) == done(1, 2)


def test_memory_has_a_limit():
  with make_pool(memory_mib=400) as pool:
    replies = pool.map([['eat', 10**9], ['eat', 10**7]])
    assert replies == [Reply('crashed'), *done(10**7)]
  with make_pool() as pool:
    assert pool.map([['eat', 10**9]]) == done(10**9)


def test_workers_are_replaced_after_their_items():
  with make_pool(items_per_worker=3) as pool:
    pids = [reply.value for reply in pool.map([['pid']] * 7)]
  assert len(set(pids)) == 3
  assert pids == [pids[0]] * 2 + [pids[2]] * 3 + [pids[5]] * 2  # The first one had a check, too.


HEADER = struct.Struct('>I')


@pytest.mark.parametrize('then_hang', [False, True])
@pytest.mark.parametrize(
  'data',
  [
    b'\xff' * 8,  # A length past all limits.
    HEADER.pack(5) + b'12345',  # JSON, and no reply.
    HEADER.pack(9) + b'{"value":',  # No JSON.
    HEADER.pack(13) + b'{"value": "\xff"}',  # No UTF-8.
    HEADER.pack(2) + b'{}',  # What says that a worker is ready, too late.
    HEADER.pack(11) + b'{"value":1}' * 2,  # A reply, and something after it.
    HEADER.pack(200_000) + b'[' * 100_000 + b'[' * 100_000,  # Deeper than JSON may be.
  ],
  ids=['length', 'no reply', 'no JSON', 'no UTF-8', 'ready', 'too much', 'deep'],
)
def test_garbage_is_a_crash_and_the_pool_goes_on(data, then_hang):
  with make_pool() as pool:
    replies = pool.map([['echo', 1], ['say', data.hex(), then_hang], ['echo', 2]])
    assert replies == [*done(1), Reply('crashed'), *done(2)]


def test_half_a_reply_is_a_timeout():
  with make_pool(deadline_s=SHORT_S) as pool:
    item = ['say', (HEADER.pack(11) + b'{"va').hex(), True]
    assert pool.map([item, ['echo', 2]]) == [Reply('timeout'), *done(2)]


def test_what_libraries_print_and_read_is_no_message():
  with make_pool() as pool:
    assert pool.map([['make_noise'], ['make_noise']]) == done('', '')


def test_a_worker_loads_neither_the_package_nor_its_files_as_modules():
  with make_pool() as pool:
    assert pool.map([['modules']]) == done([])


def test_an_exception_of_the_handler_stops_the_run():
  with make_pool(num_workers=2) as pool:
    with pytest.raises(RuntimeError, match=r"KeyError: 'an odd word'\nThe item: .*odd word"):
      pool.map([['hang'], ['fail', 'an odd word'], ['echo', 1]])
    assert not children()
    assert pool.map([['echo', 1]]) == done(1)


@pytest.mark.parametrize(
  'check, got',
  [
    ((['echo', 1], 2), r"should give 2, got Reply\(status='done', value=1\)"),
    ((['leave'], 2), r"status='crashed'"),
    ((['hang'], 2), r"status='timeout'"),
  ],
)
def test_a_pool_whose_checks_fail_raises(check, got):
  with make_pool(deadline_s=SHORT_S, checks=[CHECK, check]) as pool:
    for _ in range(2):  # It does not get used to it.
      with pytest.raises(RuntimeError, match=got):
        pool.map([['echo', 1]])
      assert not children()


def test_a_worker_that_does_not_start_raises():
  with make_pool(arguments=['cannot start']) as pool:
    with pytest.raises(RuntimeError, match='(?s)did not start.*no such library.*no_such') as e:
      pool.map([['echo', 1]])
    assert str(WORKER) in str(e.value)


def test_a_worker_that_never_starts_raises(monkeypatch, tmp_path):
  monkeypatch.setattr(pool_module, 'START_DEADLINE_S', 0.5)
  worker = tmp_path / 'worker.py'
  worker.write_text('import time\ntime.sleep(1000)\n')
  with WorkerPool(worker, 1, 1.0, 1, [CHECK]) as pool:
    with pytest.raises(RuntimeError, match='did not start: timeout'):
      pool.map([['echo', 1]])


def test_a_pool_that_stops_working_raises(tmp_path):
  path = tmp_path / 'flag'
  with make_pool(num_workers=2, deadline_s=SHORT_S, arguments=['breaks', str(path)]) as pool:
    assert pool.map([['echo', 1]]) == done(1)
    # Nothing but timeouts, and yet the pool works.
    assert pool.map([['hang'], ['hang']]) == [Reply('timeout')] * 2
    path.touch()
    with pytest.raises(RuntimeError, match=r"\['echo', 'check'\] should give 'check', got .*time"):
      pool.map([['echo', 2], ['echo', 3]])


def test_checks_follow_a_batch_of_which_half_was_not_done(monkeypatch):
  with make_pool(num_workers=2, deadline_s=SHORT_S) as pool:
    pool.map([['echo', 1]])
    checks = []
    monkeypatch.setattr(pool, 'check', lambda: checks.append(1))
    pool.map([['hang'], ['echo', 1], ['echo', 2]])
    assert not checks
    pool.map([['hang'], ['echo', 1]])
    assert checks == [1]


def test_any_thread_may_call():
  with make_pool(num_workers=2, deadline_s=SHORT_S) as pool:
    for _ in range(2):  # The thread that started a worker is gone when the next one uses it.
      with futures.ThreadPoolExecutor(1) as executor:
        found = executor.submit(pool.map, [['hang'], ['echo', 1]]).result()
      assert found == [Reply('timeout'), *done(1)]


def test_an_interrupt_leaves_no_worker():
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
  try:
    with make_pool(num_workers=2) as pool:
      pool.map([['echo', 0]])
      timer.start()
      with pytest.raises(KeyboardInterrupt):
        pool.map([['hang'], ['hang'], ['hang']])
      assert not children()
      assert pool.map([['echo', 1]]) == done(1)
  finally:
    timer.cancel()
    signal.signal(signal.SIGINT, before)


def test_workers_start_when_there_is_work_and_end_with_close():
  pool = make_pool(num_workers=2)
  assert not children()
  pool.map([['echo', 1]])
  assert len(children()) == 1  # There was no work for a second one.
  pool.close()
  assert not children()
  assert pool.map([['echo', 2]]) == done(2)
  pool.close()
  pool.close()


def test_workers_end_with_a_pool_that_nobody_closed():
  pool = make_pool()
  pool.map([['echo', 1]])
  assert children()
  del pool
  gc.collect()
  assert not children()


PARENT = """
import sys
from pathlib import Path
from pkpo_jax.workers.pool import WorkerPool
with WorkerPool(Path(sys.argv[1]), 3, 5.0, 100, [(['echo', 1], 1)]) as pool:
  replies = pool.map([['slow_pid']] * 3)
  print(*(reply.value for reply in replies), flush=True)
  pool.map([['hang'], ['hold_the_interpreter']])
"""


def test_a_parent_killed_leaves_no_worker():
  """One worker has nothing to do, one sleeps in an item, one holds Python's lock."""
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT, str(WORKER)], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  with parent:
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(set(pids)) == 3 and all(map(is_running, pids))
    parent.kill()
  await_end(pids)


@pytest.mark.parametrize(
  'field, value',
  [
    ('num_workers', 0),
    ('deadline_s', 0.0),
    ('items_per_worker', 0),
    ('checks', ()),
    ('memory_mib', 0),
  ],
)
def test_errors_name_the_field(field, value):
  with pytest.raises(ValueError, match=f'{field}: expected'):
    make_pool(**{field: value})


def test_a_worker_has_to_exist(tmp_path):
  with pytest.raises(ValueError, match='worker: expected a Python file, got .*nothing.py'):
    WorkerPool(tmp_path / 'nothing.py', 1, 1.0, 1, [CHECK])

"""Loads GSM8K in processes that are killed at every moment, or that are several; a program.

python -m tests.datasets_processes SOURCE ROOT prepares ROOT/whole; ROOT/killed_1, ROOT/killed_2 and
so on, each killed one operation on a file later; and ROOT/together, by three processes at once.
"""

import json
import multiprocessing
import os
import pathlib
import signal
import sys

import tensorflow_datasets  # noqa: F401 Here, so that the processes need not.

import pkpo_jax.data.tfds_builder  # noqa: F401
from tests.datasets_sources import load

# Of a program with few threads, and much that is slow to import.
_context = multiprocessing.get_context('fork')


def _load(source, data_dir, num_processes=1, kill_at=None):
  """Returns exit codes, operations on files of data_dir, and how often it got prepared."""
  barrier, counts = _context.Barrier(num_processes), _context.Array('i', 2)
  given = (source, str(data_dir), kill_at, barrier, counts)
  processes = [_context.Process(target=_load_watched, args=given) for _ in range(num_processes)]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
  return [process.exitcode for process in processes], *counts


def _load_watched(source, data_dir, kill_at, barrier, counts):
  def watch(event, args):
    is_file = event in ('open', 'os.mkdir', 'os.remove', 'os.rename', 'os.rmdir')
    if not (is_file and str(args[0]).startswith(data_dir)):
      return
    with counts.get_lock():
      counts[0] += 1
      counts[1] += event == 'os.rename' and str(args[1]) == f'{data_dir}/gsm8k/1.0.0'
      is_end = counts[0] == kill_at
    if is_end:  # The lock has been given back.
      os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(watch)
  barrier.wait()
  load('gsm8k', data_dir, source)


if __name__ == '__main__':
  source, root = sys.argv[1], pathlib.Path(sys.argv[2])
  found = {'whole': _load(source, root / 'whole')}
  for number in range(1, found['whole'][1] + 1):
    found[f'killed_{number}'] = _load(source, root / f'killed_{number}', kill_at=number)
  found['together'] = _load(source, root / 'together', num_processes=3)
  print(json.dumps(found))

"""What runs beside each of several processes: python watch_main.py FOLDER INDEX COUNT.

Reads from stdin, in JSON lines, how its process is ('alive', 'done', 'failed'); an end without
'done' or 'failed' is a death. Writes that to FOLDER/INDEX.json, and reads the files of the others.
When one of them is gone it says so on stderr, and one line on stdout tells its own process to end.
It uses the standard library alone, so that it starts at once and holds nothing of the run.
"""

import json
import os
import pathlib
import select
import socket
import sys
import time

EVERY_S = 2.0  # Between signs of life.
# Without a sign for so long a process is gone. A shared file system may be slow, and a process may
# be stuck for some seconds in the operating system.
DEADLINE_S = 40.0


class Companion:
  """Shows how one process is, and looks at the others."""

  def __init__(self, folder: pathlib.Path, index: int, count: int):
    """Writes nothing yet."""
    self._folder, self._index, self._num_processes = folder, index, count
    self._record = {'host': socket.gethostname(), 'pid': os.getppid(), 'signs': 0, 'state': 'alive'}
    # Of each other process the last number of signs, and when it came by our clock.
    self._seen = {i: (-1, time.monotonic()) for i in range(count) if i != index}
    self._buffer = b''

  def run(self) -> None:
    """Returns when the process or another one has come to its end."""
    while True:
      is_open = self._listen()
      if self._record['state'] in ('done', 'failed'):
        self._write()
        return
      if not is_open:
        # Perhaps it died of the death of another, which then shows in its file by now.
        time.sleep(EVERY_S)
      gone = self._gone()
      if not is_open:
        self._record['state'] = 'followed' if gone else 'dead'
      self._write()
      if gone:
        print(
          f'{gone} Process {self._index} stops; the same command goes on from the last checkpoint.',
          file=sys.stderr,
          flush=True,
        )
        if is_open:
          print('stop', flush=True)
      if gone or not is_open:
        return

  def _listen(self) -> bool:
    """Takes what the process says until the next sign is due; returns whether it is there."""
    end = time.monotonic() + EVERY_S
    while (rest := end - time.monotonic()) > 0:
      if not select.select([0], [], [], rest)[0]:
        break
      data = os.read(0, 2**16)
      if not data:
        return False
      *lines, self._buffer = (self._buffer + data).split(b'\n')
      for line in lines:
        self._record |= json.loads(line)
        self._record['signs'] += 1
      if self._record['state'] in ('done', 'failed'):
        break
    return True

  def _write(self) -> None:
    path = self._folder / f'{self._index}.json'
    try:
      scratch = path.with_suffix('.tmp')
      scratch.write_text(json.dumps(self._record) + '\n')
      scratch.replace(path)
    except OSError as error:  # The others will miss it, should that last.
      print(f'{path}: cannot be written: {error.strerror}.', file=sys.stderr, flush=True)

  def _gone(self) -> str:
    """Returns a sentence about a process that is gone, '' if none is."""
    for i, (signs, since) in list(self._seen.items()):
      try:
        record = json.loads((self._folder / f'{i}.json').read_text())
      except (OSError, ValueError):
        record = {'signs': -1, 'state': 'alive', 'host': '?', 'pid': '?'}
      if record['state'] == 'done':
        del self._seen[i]
        continue
      if record['signs'] > signs:
        since = time.monotonic()
        self._seen[i] = record['signs'], since
      silent = time.monotonic() - since
      what = {'dead': 'has died', 'failed': f'has failed: {record.get("reason")}'}.get(
        record['state']
      )
      if what is None and silent > DEADLINE_S:
        what = f'has given no sign of life for {silent:.0f} s'
      if what is not None:
        place = f'{record["host"]}, pid {record["pid"]}'
        return f'Process {i} of {self._num_processes} ({place}) {what}.'
    return ''


if __name__ == '__main__':
  Companion(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).run()

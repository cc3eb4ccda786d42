"""What a worker process of `pkpo_jax.workers.pool` runs; imported by nobody.

    python -P worker_main.py WORKER DEADLINE_S MEMORY_MIB [ARGUMENT ...]

WORKER is a Python file with `make_handler(*arguments)`, which returns `handle(item) -> value`, both
JSON. Messages, each its length in 4 bytes and then JSON, come and go through the socket that is
file descriptor 0: {} once the handler is made; for each item, {"value": ...} or, if the handler
raises, {"error": traceback}. Out of memory, the process ends by itself, with a traceback.

With -P the folder of this file is not on the path, where math.py would be taken for Python's own.
"""

import importlib.util
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback

LENGTH = struct.Struct('>I')


def main(worker: str, deadline_s: str, memory_mib: str, *arguments: str) -> None:
  """Serves until the other end of the socket is closed."""
  channel = socket.socket(fileno=os.dup(0))
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # What a library reads or prints is not a message.
  if int(memory_mib):
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_mib) * 2**20,) * 2)
  # The parent keeps the deadline; if it has died, the kernel ends what hangs, GIL or not.
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  spec = importlib.util.spec_from_file_location('worker', worker)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  handle = module.make_handler(*arguments)
  messages = channel.makefile('rb')
  send(channel, '{}')
  while header := messages.read(LENGTH.size):
    item = json.loads(messages.read(*LENGTH.unpack(header)))
    signal.setitimer(signal.ITIMER_REAL, float(deadline_s) + 1)
    try:
      reply = json.dumps({'value': handle(item)})
    except MemoryError:
      raise
    except Exception:
      reply = json.dumps({'error': traceback.format_exc()})
    signal.setitimer(signal.ITIMER_REAL, 0)
    send(channel, reply)


def send(channel: socket.socket, text: str) -> None:
  """Sends a message of ASCII."""
  channel.sendall(LENGTH.pack(len(text)) + text.encode('ascii'))


if __name__ == '__main__':
  main(*sys.argv[1:])

"""Lets somebody else's training loop run one step at a time."""

import queue
import threading

import jax


class Gate:
  """Stands where the loop asks for its next batch: it waits there until a step is wanted."""

  def __init__(self):
    self._wanted, self._done = queue.Queue(), queue.Queue()
    self._thread = None

  def start(self, loop):
    """Runs `loop()` in another thread up to its first batch."""

    def run():
      try:
        loop()
      except BaseException as error:
        self._done.put(error)

    self._thread = threading.Thread(target=run, daemon=True)
    self._thread.start()
    self._wait_for_loop()

  def step(self):
    """Lets the loop do one step, and waits until it asks for the next batch."""
    self._wanted.put(True)
    self._wait_for_loop()

  def close(self):
    """Ends the loop."""
    self._wanted.put(False)
    self._thread.join()

  def is_open(self):
    """Is asked by the loop before each step, returns when one is wanted: False to end.

    Waits for all that the step before has started.
    """
    jax.block_until_ready(jax.live_arrays())
    self._done.put(None)
    return self._wanted.get()

  def _wait_for_loop(self):
    error = self._done.get()
    if error is not None:
      raise RuntimeError('The training loop failed.') from error

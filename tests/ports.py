"""Ports for processes that find each other on this machine."""

import socket


def free_port():
  """Returns a port that nobody listens on."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]

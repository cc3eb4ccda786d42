"""For tests after which another library leaves things half done: they fail no other test."""

import pytest

# A thread of the checkpointer that ends by its error; coroutines and reads that are never awaited,
# files that are never closed, all of which Python notices when it collects them.
_WARNINGS = ('PytestUnhandledThreadExceptionWarning', 'PytestUnraisableExceptionWarning')


def leaves_garbage(test):
  """Marks a test: its garbage is collected before the next test begins, and ignored."""
  for name in _WARNINGS:
    test = pytest.mark.filterwarnings(f'ignore::pytest.{name}')(test)
  return pytest.mark.usefixtures('garbage_collected')(test)

"""What tests of the code verifier share: a function to define, its tests, and verifiers."""

import pytest

from pkpo_jax.tasks.code.programs import UnitTests
from pkpo_jax.tasks.code.verifier import CodeItem, CodeVerifier
from pkpo_jax.tasks.grades import Verdict

# f(x) = x + 1; a completion that is not told would not guess the numbers.
SUCCESSOR = UnitTests(('assert f(41) == 42', 'assert f(766) == 767'), ('f',))
GOOD = CodeItem('def f(x):\n  return x + 1', SUCCESSOR)
RIGHT = Verdict('right', 'def f(x):\n    return x + 1', 1.0)
# What ends comes to its end in a small part of the one, what hangs takes all of the other.
PATIENT_S, IMPATIENT_S = 60.0, 2.0


def make_verifier(deadline_s):
  try:
    return CodeVerifier(num_workers=2, deadline_s=deadline_s, memory_mib=256)
  except RuntimeError as error:
    pytest.skip(str(error))


def make_unprotected():
  with pytest.warns(UserWarning, match='unsafe_no_sandbox is True'):
    return CodeVerifier(1, IMPATIENT_S, 256, unsafe_no_sandbox=True)


def verify(verifier, completion, *tests, functions=('f',), **kwargs):
  (verdict,) = verifier.verify_batch([CodeItem(completion, UnitTests(tests, functions, **kwargs))])
  return verdict

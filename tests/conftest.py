"""What must stand before pkpo_jax is imported and jax starts: virtual devices, shape checks."""

import gc
import os
from pathlib import Path

import jax
import jaxtyping
import pytest

NUM_DEVICES = 8
# Read when jax first looks for devices. Most of the tests' time is compilation, of which half is
# optimisation.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    f'--xla_force_host_platform_device_count={NUM_DEVICES}',
    '--xla_backend_optimization_level=0',
  ]
).strip()

# Tests, and the processes that they start, compile the same program once, and not again the next
# time.
for name, value in {
  'jax_compilation_cache_dir': str(Path(__file__).parent.parent / '.jax_cache'),
  'jax_persistent_cache_min_compile_time_secs': 0,
}.items():
  jax.config.update(name, value)
  os.environ[name.upper()] = str(value)
# As for pytest in pyproject.toml: an entry that another process is writing is compiled.
os.environ['PYTHONWARNINGS'] = 'ignore:Error reading persistent compilation cache entry'

# Every annotated shape and dtype of the package is checked in every test.
jaxtyping.install_import_hook('pkpo_jax', 'beartype.beartype')


@pytest.fixture(scope='module', autouse=True)
def room_for_programs():
  """Drops compiled programs once there are many, after each file.

  Each has memory mappings. Linux lets a process have 65,530; at the next one XLA crashes.
  """
  yield
  mappings = Path('/proc/self/maps')
  if mappings.exists() and mappings.read_bytes().count(b'\n') > 20_000:
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def no_type_checker():
  """Turns the annotations' checks off, so that the package's own error messages show."""
  jaxtyping.config.update('jaxtyping_disable', True)
  yield
  jaxtyping.config.update('jaxtyping_disable', False)


@pytest.fixture
def sandbox_needed():
  """Skips, with the reason, where code cannot run in a sandbox."""
  from pkpo_jax.tasks.code.verifier import CodeVerifier

  try:
    CodeVerifier(num_workers=1, deadline_s=5.0, memory_mib=256).close()
  except RuntimeError as error:
    pytest.skip(str(error))

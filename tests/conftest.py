"""What must stand before pkpo_jax is imported and jax starts: virtual devices, shape checks."""

import os

import jaxtyping
import pytest

NUM_DEVICES = 8
# Read when jax first looks for devices.
os.environ['XLA_FLAGS'] = ' '.join(
  [os.environ.get('XLA_FLAGS', ''), f'--xla_force_host_platform_device_count={NUM_DEVICES}']
).strip()

# Every annotated shape and dtype of the package is checked in every test.
jaxtyping.install_import_hook('pkpo_jax', 'beartype.beartype')


@pytest.fixture
def no_type_checker():
  """Turns the annotations' checks off, so that the package's own error messages show."""
  jaxtyping.config.update('jaxtyping_disable', True)
  yield
  jaxtyping.config.update('jaxtyping_disable', False)

"""What must stand before jax and pkpo_jax are imported: virtual devices and shape checks."""

import os

NUM_DEVICES = 8
os.environ['XLA_FLAGS'] = ' '.join(
  [os.environ.get('XLA_FLAGS', ''), f'--xla_force_host_platform_device_count={NUM_DEVICES}']
).strip()

import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# Every annotated shape and dtype of the package is checked in every test.
jaxtyping.install_import_hook('pkpo_jax', 'beartype.beartype')


@pytest.fixture
def no_type_checker():
  """Turns the annotations' checks off, so that the package's own error messages show."""
  jaxtyping.config.update('jaxtyping_disable', True)
  yield
  jaxtyping.config.update('jaxtyping_disable', False)

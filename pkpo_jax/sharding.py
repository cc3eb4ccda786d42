"""Where arrays live: the device mesh and the shardings over it.

Prompts are split over the mesh, so that the group of a prompt never straddles devices and the
advantages need no communication; parameters are the same everywhere.
"""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pkpo_jax.settings import MeshSettings, expect


def make_mesh(settings: MeshSettings) -> Mesh:
  """Returns the mesh with its axis 'data'.

  Raises:
    ValueError: if more devices are asked for than there are.
  """
  num_devices = jax.device_count()
  data = num_devices if settings.data == -1 else settings.data
  expect(data <= num_devices, 'mesh.data', f'at most {num_devices} (the devices)', data)
  return jax.make_mesh((data,), ('data',), (AxisType.Auto,), devices=jax.devices()[:data])


def over_prompts(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays whose leading axis is P."""
  return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())

"""Where arrays live: the device mesh and the shardings over it.

Prompts are split over the axes 'data' and 'fsdp', so that the group of a prompt never straddles
devices and the advantages need no communication. Parameters are split as the policy's rules say,
over 'fsdp' (gathered where they are used) and 'tensor' (each device computes with its part), and
so is what the optimizer keeps of them.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from pkpo_jax.errors import expect
from pkpo_jax.settings import MeshSettings

AXES = ('data', 'fsdp', 'tensor')
PROMPT_AXES = ('data', 'fsdp')

PartitionRules = Sequence[tuple[str, PartitionSpec]]


def make_mesh(settings: MeshSettings) -> Mesh:
  """Returns the mesh with its axes 'data', 'fsdp' and 'tensor'.

  Raises:
    ValueError: if more devices are asked for than there are, or not all of several processes, or
      there are several that are not connected.
  """
  expect(
    jax.process_count() == 1 or jax.distributed.is_initialized(),
    '--distributed',
    f'it, as the devices are those of {jax.process_count()} processes',
    False,
  )
  num_devices = jax.device_count()
  data = settings.data
  if data == -1:
    data, rest = divmod(num_devices, settings.fsdp * settings.tensor)
    expect(
      rest == 0,
      'mesh.data',
      f'fsdp * tensor to divide the {num_devices} devices when data is -1 (the rest)',
      f'{settings.fsdp} * {settings.tensor}',
    )
  shape = (data, settings.fsdp, settings.tensor)
  size = math.prod(shape)
  sizes = dict(zip(AXES, shape, strict=True))
  expect(
    size <= num_devices,
    f'mesh.{max(AXES, key=sizes.__getitem__)}',
    f'data * fsdp * tensor of at most {num_devices}, the number of devices of the backend '
    f'{jax.default_backend()!r} ({", ".join(map(str, jax.devices()[:8]))})',
    ' * '.join(map(str, shape)),
  )
  num_processes = jax.process_count()
  expect(
    num_processes == 1 or size == num_devices,
    'mesh.data',
    f'-1, or so many that data * fsdp * tensor is {num_devices}, the number of devices of all '
    f'{num_processes} processes',
    settings.data,
  )
  return jax.make_mesh(shape, AXES, (AxisType.Auto,) * 3, devices=jax.devices()[:size])


def over_prompts(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays whose leading axis is P."""
  return NamedSharding(mesh, PartitionSpec(PROMPT_AXES))


def num_prompt_shards(mesh: Mesh | AbstractMesh) -> int:
  """Returns in how many parts prompts are split; within `sum_over_data`, those of a device."""
  return math.prod(mesh.shape[axis] for axis in _prompt_axes(mesh))


def _prompt_axes(mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
  """Returns the axes that the compiler splits prompts over: not those that are split by hand."""
  return tuple(axis for axis in PROMPT_AXES if axis not in mesh.manual_axes)


def keep_by_prompts(x: jax.Array) -> jax.Array:
  """Returns `x`, `[P, ...]`, which the compiler then splits over devices by prompts.

  Without it a product with parameters that are split over 'fsdp' may leave them where they are, and
  each device computes a part of the sums of all prompts, which are many times larger. Where there
  is no mesh, or one whose devices do not divide P, nothing changes.
  """
  mesh = jax.typeof(x).sharding.mesh
  if mesh.empty or x.shape[0] % num_prompt_shards(mesh):
    return x
  free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
  spec = PartitionSpec(_prompt_axes(mesh), *free)
  return lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def by_prompts(fn: Callable[..., Any], params: Any, *arrays: Shaped[jax.Array, 'P *_']) -> Any:
  """Returns `fn(params, *arrays)`, where each device computes with its prompts alone.

  Parameters are gathered once before and their gradients added up once after. In a loop that the
  compiler splits by itself it would do either each time around.

  Args:
    fn: its results have the leading axis P, too, and those of one prompt need no other.
    params: arrays that every device needs whole, but for 'tensor'.
    *arrays: with leading axis P.
  """
  mesh = jax.typeof(arrays[0]).sharding.mesh
  if mesh.empty or arrays[0].shape[0] % num_prompt_shards(mesh) or num_prompt_shards(mesh) == 1:
    return fn(params, *arrays)
  axes = _prompt_axes(mesh)
  split, whole = PartitionSpec(axes), PartitionSpec()

  def on_device(params, *arrays):
    # Where it is said that they differ between devices their gradients are added up, in float32.
    differ = lambda x: lax.pcast(x.astype(jnp.float32), axes, to='varying').astype(x.dtype)
    return fn(jax.tree.map(differ, params), *arrays)

  return jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(whole, *[split] * len(arrays)),
    out_specs=split,
    axis_names=set(axes),
  )(params, *arrays)


def sum_over_data(
  fn: Callable[[Any, Any], tuple[Any, Any]], mesh: Mesh, params: Any, batch: Any
) -> tuple[Any, Any]:
  """Returns `fn(params, batch)`, where each part of 'data' computes with its prompts alone.

  What is computed is added up over devices once, at the end. The compiler by itself does so
  wherever a gradient of a parameter is computed: for each piece of an update, and apart for
  prompts and for completions. Not for a mesh with 'tensor': beside 'fsdp' XLA may end the process
  ("Check failed: partition_group_list", jax 0.12).

  Args:
    fn: its results are sums over prompts, and maxima over prompts.
    mesh: the devices.
    params: arrays that every part of 'data' has whole.
    batch: arrays with leading axis P.

  Returns:
    The sums and the maxima, of all prompts.
  """
  # In float32; with bfloat16 XLA ends the process on CPUs ("opcode copy", jax 0.12).
  total = lambda x: lax.psum(x.astype(jnp.float32), 'data').astype(x.dtype)

  def on_devices(params, batch):
    sums, maxima = fn(params, batch)
    return jax.tree.map(total, sums), lax.pmax(maxima, 'data')

  # Nothing is checked of what differs between devices: `fn` would have to tell of each constant.
  return jax.shard_map(
    on_devices,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec('data')),
    out_specs=PartitionSpec(),
    axis_names={'data'},
    check_vma=False,
  )(params, batch)


def tree_shardings(tree: Any, mesh: Mesh, rules: PartitionRules) -> Any:
  """Returns the sharding of each array of parameters, optimizer state or both.

  A rule holds for the arrays whose path, such as 'params/layer_0/mlp/linear', ends in what its
  regular expression matches: so moments and master copies, whose paths end like those of their
  parameters, are split like these. The first rule that matches counts; without one, and for
  scalars, every device holds the whole.

  Args:
    tree: arrays, or their shapes.
    mesh: the devices.
    rules: `(regular expression, spec)`, over the mesh axes.

  Raises:
    ValueError: if an array has fewer axes than its spec, or one that its devices do not divide.
  """

  def sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    matches = (spec for pattern, spec in rules if re.search(f'(?:{pattern})$', name))
    spec = next(matches, PartitionSpec()) if leaf.ndim else PartitionSpec()
    expect(len(spec) <= leaf.ndim, name, f'an axis for each entry of {spec}', leaf.shape)
    for i, axes in enumerate(spec):
      axes = (axes,) if isinstance(axes, str) else axes or ()
      size = math.prod(mesh.shape[axis] for axis in axes)
      fields = ' * '.join(f'mesh.{axis}' for axis in axes)
      expect(
        leaf.shape[i] % size == 0,
        name,
        f'axis {i} of the shape {leaf.shape} to be a multiple of {fields} = {size}',
        leaf.shape[i],
      )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(sharding, tree)


def gathered(shapes: Any, mesh: Mesh, rules: PartitionRules) -> Any:
  """Returns the shardings of `tree_shardings` without 'fsdp': each device has all of such an axis.

  What is split over 'fsdp' is gathered where it is used, in sampling once for each token. In this
  layout it has been gathered before.
  """

  def whole(axes):
    kept = [axis for axis in ((axes,) if isinstance(axes, str) else axes or ()) if axis != 'fsdp']
    return tuple(kept) or None

  without = [(pattern, PartitionSpec(*map(whole, spec))) for pattern, spec in rules]
  return tree_shardings(shapes, mesh, without)


def with_shardings(shapes: Any, shardings: Any) -> Any:
  """Returns ShapeDtypeStructs that carry their shardings."""
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
  )

"""Memory, work and least seconds of a rollout and of an update, on each device.

Parameters, the optimizer's state, gradients and caches are counted from their shapes and shardings.
What depends on the compiler (temporaries, products, collectives) is read off the programs that
training runs, compiled for virtual CPU devices. Of a model with many layers the update is compiled
with fewer, at two depths, and extended by a line. Smaller depths will not do: from 4 and 6 layers
the memory of a 2B model on four devices came out 42 % too low.
"""

import math
from typing import Any, NamedTuple

import jax

from pkpo_jax.planning.chips import Chip
from pkpo_jax.planning.hlo import Work, work_of
from pkpo_jax.planning.programs import Subject, compiled

GIB = 2**30
_MOST_LAYERS, _DEPTHS = 26, (14, 20)


class Phase(NamedTuple):
  """A rollout or an update, on each device.

  Attributes:
    memory: part -> bytes, at the moment when it needs most; their sum is the whole.
    work: of a training step.
    depths: layers of the programs that were compiled; one, or two that are extended.
  """

  memory: dict[str, float]
  work: Work
  depths: tuple[int, ...]

  @property
  def peak(self) -> float:
    """Bytes in all."""
    return sum(self.memory.values())

  def seconds(self, chip: Chip) -> float:
    """Returns the least seconds a training step spends in it."""
    return self.work.seconds(chip.flops, chip.bandwidth, chip.link)


class _Compiled(NamedTuple):
  """What is read off a program: bytes of its temporaries and new results; its work."""

  temporaries: float
  results: float
  work: Work


def plan(subject: Subject, depths: tuple[int, ...] | None = None) -> dict[str, Phase]:
  """Returns the phases 'rollout' and 'update'; see `rollout_of` and `update_of`."""
  return {'rollout': rollout_of(subject), 'update': update_of(subject, depths)}


def rollout_of(subject: Subject) -> Phase:
  """Returns the sampling of a step."""
  # Where no completion ends early, the loop after the first token runs so often.
  found = _read(subject, subject.rollout(), subject.policy.max_new_tokens - 1)
  parts = caches(subject) | {'logits': logits(subject, 'rollout')}
  memory = resident(subject) | _split(found.temporaries, parts) | {'batch': found.results}
  work = _times(found.work, subject.settings.rollout.num_pieces)
  if subject.settings.mesh.gather_for_sampling and subject.mesh.shape['fsdp'] > 1:
    params = subject.sampling_params()
    memory['gathered parameters'] = on_device(params) - memory['frozen parameters']
    number, size = work.collectives.get('all-gather', (0, 0))
    gathered = number + len(jax.tree.leaves(params)), size + memory['gathered parameters']
    work.collectives['all-gather'] = gathered
  return Phase(memory, work, (subject.num_layers,))


def update_of(subject: Subject, depths: tuple[int, ...] | None = None) -> Phase:
  """Returns the updates of a step.

  Args:
    subject: the run.
    depths: how many layers to compile with, one number or two; None is `update_depths`.
  """
  kept, loss = resident(subject), subject.settings.loss
  depths = depths or update_depths(subject)
  each = [_read(x, x.update(), 1) for x in map(subject.with_layers, depths)]
  found = each[0] if len(each) == 1 else _extended(*each, *depths, subject.num_layers)
  # Adam is no product of matrices: it reads and writes the state.
  state = kept['parameters'] + kept['optimizer state']
  products = {(0.0, 2.0 * state): loss.num_epochs * loss.num_minibatches} | found.work.products
  parts = {'gradients': gradients(subject), 'logits': logits(subject, 'update')}
  memory = kept | _split(found.temporaries, parts) | {'batch': _batch(subject)}
  return Phase(memory, found.work._replace(products=products), depths)


def update_depths(subject: Subject) -> tuple[int, ...]:
  """Returns how many layers to compile the update with: two numbers, or all where they are few."""
  if subject.num_layers <= _MOST_LAYERS:
    return (subject.num_layers,)
  first, second = (subject.pattern * math.ceil(n / subject.pattern) for n in _DEPTHS)
  return first, second


def resident(subject: Subject) -> dict[str, float]:
  """Returns what stays on a device all the time, bytes, from shapes and shardings."""
  state, frozen = subject.state()
  kept = {
    'parameters': on_device(state.params),
    'frozen parameters': on_device(frozen),
    'optimizer state': on_device(state.opt_state),
  }
  if subject.settings.loss.kl_coef:
    kept['reference policy'] = kept['parameters'] + kept['frozen parameters']
  return kept


def gradients(subject: Subject) -> float:
  """Returns the bytes of the gradients; those that microbatches add up are float32."""
  params = subject.state()[0].params
  if subject.settings.loss.num_microbatches == 1:
    return on_device(params)
  return on_device(params, itemsize=4)


def on_device(tree: Any, itemsize: int | None = None) -> float:
  """Returns the bytes of arrays' shards on one device."""
  size = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * (itemsize or x.dtype.itemsize)
  return float(sum(map(size, jax.tree.leaves(tree))))


def caches(subject: Subject) -> dict[str, float]:
  """Returns the bytes of keys and values while a piece of the prompts is sampled."""
  model, rollout = subject.policy.model, subject.settings.rollout
  architecture, length = model.architecture, subject.policy.max_new_tokens
  tensor, prompts = subject.mesh.shape['tensor'], subject.prompts_on_device / rollout.num_pieces
  shared = tensor if architecture.num_kv_heads % tensor == 0 else 1
  heads = architecture.num_kv_heads / shared
  dtype = subject.policy.cache_dtype or model.dtype
  token = 2 * heads * architecture.head_dim * jax.numpy.dtype(dtype).itemsize
  slots = lambda most: sum(min(most, window or most) for window in model.windows)
  return {
    'completion cache': prompts * rollout.num_samples * slots(length) * token,
    'prompt memory': prompts * slots(subject.prompt_tokens) * token,
  }


def logits(subject: Subject, phase: str) -> float:
  """Returns the bytes of one array of the logits that exist at a time."""
  settings, policy = subject.settings, subject.policy
  vocabulary = policy.architecture.num_embeddings / subject.mesh.shape['tensor']
  samples = subject.prompts_on_device * settings.rollout.num_samples
  if phase == 'rollout':
    return 4 * samples / settings.rollout.num_pieces * vocabulary
  samples /= settings.loss.num_minibatches * settings.loss.num_microbatches
  return 4 * samples * min(policy.log_prob_chunk, policy.max_new_tokens) * vocabulary


def _split(temporaries, parts):
  """Returns parts of the temporaries and the rest of them; the compiler may share their room."""
  found = {}
  for name, size in parts.items():
    found[name] = min(size, temporaries - sum(found.values()))
  return found | {'activations and other temporaries': temporaries - sum(found.values())}


def _batch(subject):
  """Returns the bytes of a rollout: tokens and log-probabilities with their masks."""
  samples = subject.prompts_on_device * subject.settings.rollout.num_samples
  return (4 + 1 + 4) * samples * subject.policy.max_new_tokens


def _read(subject, program, unknown_trips):
  done = compiled(program)
  memory = done.memory_analysis()
  operand_bytes = jax.numpy.dtype(subject.policy.model.dtype).itemsize
  work = work_of(done.as_text(), unknown_trips, operand_bytes)
  results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return _Compiled(memory.temp_size_in_bytes, results, work)


def _times(work, factor):
  products = {key: times * factor for key, times in work.products.items()}
  sent = {kind: (n * factor, size * factor) for kind, (n, size) in work.collectives.items()}
  return Work(products, sent)


def _extended(first, second, few, more, all_layers):
  """Returns what a program of all layers takes, by the line through those of few and more."""
  share = (all_layers - few) / (more - few)
  line = lambda a, b: a + share * (b - a)
  counts = lambda a, b: {k: line(a.get(k, 0), b.get(k, 0)) for k in a | b}
  pairs = first.work.collectives, second.work.collectives
  sent = {
    kind: tuple(line(x.get(kind, (0, 0))[i], y.get(kind, (0, 0))[i]) for i in (0, 1))
    for x, y in (pairs,)
    for kind in x | y
  }
  work = Work(counts(first.work.products, second.work.products), sent)
  return _Compiled(line(first.temporaries, second.temporaries), second.results, work)

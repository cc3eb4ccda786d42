"""What to change in a config whose run does not fit, by field, with the figure it would give."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pkpo_jax import sharding
from pkpo_jax.errors import FieldError
from pkpo_jax.flags import overridden
from pkpo_jax.planning.estimate import GIB, Phase, gradients, logits, resident
from pkpo_jax.planning.programs import Subject, make_subject

_TEMPORARIES = 'activations and other temporaries'


class Advice(NamedTuple):
  """One change.

  Attributes:
    changes: field -> value.
    why: what it does, and what it costs.
    gib: of the larger phase after it, about; None where only compiling would tell.
  """

  changes: dict[str, Any]
  why: str
  gib: float | None


def advise(config: ConfigDict, subject: Subject, phases: Mapping[str, Phase]) -> list[Advice]:
  """Returns changes that need less memory, those that leave least first.

  Parameters, state and gradients of a change are counted from shapes again. Temporaries are taken
  to shrink with what makes them; a plan of the changed config compiles it.
  """
  found = []
  for changes, why, shrink in _candidates(subject):
    gib = None
    if shrink is not None:
      try:
        changed = make_subject(overridden(config, changes), subject.prompt_tokens)
      except FieldError:
        continue  # Such as prompts that do not divide among that many pieces.
      gib = max(_after(changed, name, phase, shrink) for name, phase in phases.items()) / GIB
      if gib > 0.99 * max(phase.peak for phase in phases.values()) / GIB:
        continue
    found.append(Advice(changes, why, gib))
  return sorted(found, key=lambda x: (x.gib is None, x.gib or 0))


def _after(changed: Subject, name: str, phase: Phase, shrink: Mapping[str, float]) -> float:
  """Returns the bytes of a phase after a change; `shrink` is the factor of its temporaries."""
  sizes = dict(phase.memory) | resident(changed)
  factor = shrink.get(name, 1)
  if 'reference policy' in sizes and not changed.settings.loss.kl_coef:
    del sizes['reference policy']
  for part in ('completion cache', 'prompt memory', _TEMPORARIES):
    sizes[part] = sizes.get(part, 0) * factor
  sizes['logits'] = min(sizes['logits'] * factor, logits(changed, name))
  if name == 'update':
    sizes['gradients'] = min(sizes['gradients'], gradients(changed))
  return sum(sizes.values())


def _candidates(subject: Subject) -> Iterator[tuple[dict[str, Any], str, dict | None]]:
  """Yields changes, the reason, and by what factor temporaries shrink in each phase."""
  settings, policy, shape = subject.settings, subject.policy, subject.mesh.shape
  loss, rollout, fields = settings.loss, settings.rollout, settings.policy
  for factor in (2, 4):
    if rollout.num_prompts % (factor * sharding.num_prompt_shards(subject.mesh)) == 0:
      yield (
        {'loss.num_microbatches': factor * loss.num_microbatches},
        'the same gradient in smaller pieces',
        {'update': 1 / factor},
      )
      yield (
        {'rollout.num_pieces': factor * rollout.num_pieces},
        'samples fewer prompts at a time, which takes longer',
        {'rollout': 1 / factor},
      )
  if not fields['remat']:
    yield {'policy.remat': True}, 'computes blocks again in the backward pass', None
  if fields['attention_block'] is None and policy.max_new_tokens > 128:
    yield {'policy.attention_block': 128}, 'attention logits of 128 tokens at a time', None
  if policy.log_prob_chunk > 16:
    yield {'policy.log_prob_chunk': 16}, 'logits of 16 tokens of a completion at a time', {}
  if fields['dtype'] == 'float32':
    yield {'policy.dtype': 'bfloat16'}, 'with float32 masters; halves activations', None
  if fields['lora_rank'] is None:
    yield {'policy.lora_rank': 16}, 'trains adapters alone: hardly any state or gradients', {}
    if not fields['freeze_embedding']:
      yield {'policy.freeze_embedding': True}, 'neither moments nor gradients of the table', {}
  if settings.optimizer['name'] != 'sgd':
    yield {'optimizer.name': 'sgd'}, 'no moments; another way to train', {}
  if policy.max_new_tokens > 1:
    half = {'rollout': 0.5, 'update': 0.5}
    yield {'policy.max_new_tokens': policy.max_new_tokens // 2}, 'shorter completions', half
  if loss.kl_coef:
    yield {'loss.kl_coef': 0.0}, 'no reference policy', {}
  yield (
    {'mesh.fsdp': 2 * shape['fsdp']},
    'on twice as many devices: half of the state and of the prompts on each',
    None,
  )
  yield (
    {'mesh.tensor': 2 * shape['tensor']},
    'on twice as many devices: half of the heads and hidden units on each',
    None,
  )

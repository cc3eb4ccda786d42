"""What the program of an update keeps and sends when parameters are split over devices."""

import functools
import re

import jax
import pytest

from configs import llama3_1_8b_math
from pkpo_jax.flags import overridden
from pkpo_jax.planning import hlo
from pkpo_jax.planning.programs import compiled, make_subject

FSDP = 4
FIELDS = {
  'policy.preset': 'llama_micro',
  'policy.remat': True,
  'policy.max_new_tokens': 32,
  'policy.log_prob_chunk': 4,
  'rollout.num_prompts': 2 * FSDP,
  'rollout.num_pieces': 1,
  'loss.num_microbatches': 2,
}


@functools.cache
def program(num_layers, **changes):
  """Returns the compiled update and its parameters."""
  changes = {name.replace('__', '.'): value for name, value in changes.items()}
  config = overridden(llama3_1_8b_math.get_config('tiny'), FIELDS | changes)
  subject = make_subject(config, 32).with_layers(num_layers)
  return compiled(subject.update()), subject


def sent(program):
  """Returns the bytes of all collectives, and of the largest."""
  text = program.as_text()
  kinds = re.findall(rf' = (\(.*?\)|\S+) (?:{"|".join(hlo.COLLECTIVES)})\(', text)
  whole = hlo.work_of(text, unknown_trips=1, operand_bytes=4)
  return whole.sent, max(map(hlo._size, kinds))


@pytest.mark.parametrize('mesh', [{'fsdp': FSDP}, {'fsdp': FSDP // 2, 'data': 2}, {'data': FSDP}])
def test_parameters_and_their_gradients_are_sent_and_no_more(mesh):
  changes = {f'mesh__{axis}': size for axis, size in mesh.items()}
  done, subject = program(2, **changes)
  total, largest = sent(done)
  sizes = [4 * x.size for x in jax.tree.leaves(subject.state()[0].params)]
  # An all-reduce passes the links twice. Over 'data' there is one of all gradients. Over 'fsdp', in
  # each piece, for prompts and for completions: parameters are gathered for the forward pass, again
  # for the backward pass that recomputes it, and gradients are added up.
  times = 2.001 if 'data' in mesh else 0
  if 'fsdp' in mesh:
    times += subject.settings.loss.num_microbatches * 2 * (1 + 1 + 2)
  assert total <= times * sum(sizes)
  assert largest <= max(sizes)


def test_logits_a_few_tokens_at_a_time_send_no_more():
  whole, few = (
    sent(program(2, mesh__fsdp=FSDP, policy__log_prob_chunk=chunk)[0])[0] for chunk in (32, 4)
  )
  assert few == pytest.approx(whole, rel=0.01)


def test_a_layer_more_keeps_its_input_and_its_gradient():
  few, more = 2, 6
  (first, subject), (last, deep) = (program(layers, mesh__fsdp=FSDP) for layers in (few, more))
  memory = lambda program: program.memory_analysis().temp_size_in_bytes
  params = lambda subject: sum(4 * x.size for x in jax.tree.leaves(subject.state()[0].params))
  settings, policy = subject.settings, subject.policy
  tokens = settings.rollout.num_samples * policy.max_new_tokens + subject.prompt_tokens
  prompts = subject.prompts_on_device / settings.loss.num_microbatches
  inputs = 4 * prompts * tokens * policy.model.architecture.width
  growth = (memory(last) - memory(first)) / (more - few)
  # Keys and values of prompts are the rest. What is inside a layer is twelve times its input.
  assert growth < 1.5 * inputs + (params(deep) - params(subject)) / (more - few)

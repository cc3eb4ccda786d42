"""The two programs of a training step as they are compiled, over shapes alone, at any depth."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from pkpo_jax import sharding
from pkpo_jax.errors import FieldError, MissingDataError, expect
from pkpo_jax.models import PRESETS, architecture_of
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.parts import complete
from pkpo_jax.policies import POLICIES
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.run import check_mesh, jit_train_step, optimizer_of, state_shapes
from pkpo_jax.sampling import bucket
from pkpo_jax.settings import Config, Settings, build
from pkpo_jax.types import Prompts, Rollout

# Fits every model; a `Subject` then has the whole table of its own.
_TOKENIZER = SimpleNamespace(vocab_size=1, stop_ids=(0,))
_STAND_IN = 'llama_micro'
# As near to an accelerator as the CPU's compiler comes, which would else run operations side by
# side, put the gradients of all layers into one collective, and widen bfloat16. And machine code in
# a hurry: it is never run.
_OPTIONS = {
  'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED',
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}
_DISABLED = 'cpu-all-reduce-combiner', 'float-normalization-bf16'


class Subject(NamedTuple):
  """What a run is planned from.

  Attributes:
    settings: of the config.
    policy: a language model without weights.
    optimizer: makes the updates.
    mesh: the devices, virtual ones.
    prompt_tokens: T, with padding.
  """

  settings: Settings
  policy: LanguageModel
  optimizer: optax.GradientTransformation
  mesh: Mesh
  prompt_tokens: int

  @property
  def pattern(self) -> int:
    """Layers of the shortest pattern that the layers repeat; the last time not always whole."""
    windows = self.policy.model.windows
    is_pattern = lambda p: all(x == windows[i % p] for i, x in enumerate(windows))
    return next(p for p in range(1, len(windows) + 1) if is_pattern(p))

  @property
  def num_layers(self) -> int:
    """Layers of the model."""
    return len(self.policy.model.windows)

  @property
  def prompts_on_device(self) -> float:
    """Prompts of a step on each device."""
    return self.settings.rollout.num_prompts / sharding.num_prompt_shards(self.mesh)

  def with_layers(self, num_layers: int) -> 'Subject':
    """Returns the same run of a model with so many layers."""
    architecture = self.policy.architecture.with_layers(num_layers)
    return self._replace(policy=self.policy.with_architecture(architecture))

  def state(self) -> tuple[Any, Any]:
    """Returns the training state and the frozen parameters, as shapes with shardings."""
    return state_shapes(self.policy, self.optimizer, self.mesh)

  def sampling_params(self) -> dict[str, Any]:
    """Returns the parameters as they are sampled from, as `run.make_sampling_layout` has them."""
    state, frozen = self.state()
    params = state.params
    if self.settings.mesh.gather_for_sampling:
      shardings = sharding.gathered(params, self.mesh, self.policy.partition_rules)
      params = sharding.with_shardings(params, shardings)
    return frozen | params

  def rollout(self) -> jax.stages.Lowered:
    """Returns the sampler of one piece of the prompts, as `rollouts.PolicySamples` jits it."""
    rollout = self.settings.rollout
    params = self.sampling_params()
    over_prompts = sharding.over_prompts(self.mesh)
    sample = jax.jit(self.policy.sample, static_argnums=2, out_shardings=over_prompts)
    prompts = self._prompts(rollout.num_prompts // rollout.num_pieces)
    return sample.lower(params, prompts, rollout.num_samples, jax.random.key(0))

  def update(self) -> jax.stages.Lowered:
    """Returns the training step, as `run.jit_train_step` jits it."""
    settings = self.settings
    shape = (settings.rollout.num_prompts, settings.rollout.num_samples)
    whole = (*shape, self.policy.max_new_tokens)
    prompts = self._prompts(shape[0])
    rollout = Rollout(
      prompt_tokens=prompts.tokens,
      prompt_mask=prompts.mask,
      completions=self._array(whole, jnp.int32),
      completion_mask=self._array(whole, bool),
      sampling_log_probs=self._array(whole, jnp.float32),
      ref_log_probs=self._array(whole, jnp.float32) if settings.loss.kl_coef else None,
    )
    train_step = jit_train_step(self.policy, self.optimizer, settings.loss, self.mesh)
    advantages = self._array(shape, jnp.float32)
    return train_step.lower(*self.state(), rollout, advantages, jax.random.key(0))

  def _prompts(self, num_prompts):
    shape = (num_prompts, self.prompt_tokens)
    tokens, mask = self._array(shape, jnp.int32), self._array(shape, bool)
    return Prompts(ids=self._array(shape[:1], jnp.int32), tokens=tokens, mask=mask, hidden=())

  def _array(self, shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.over_prompts(self.mesh))


def make_devices(number: int) -> None:
  """Makes the CPU look like at least so many devices, where jax has not looked for any yet."""
  expect(number >= 1, '--devices', 'at least 1', number)
  jax.config.update('jax_platforms', 'cpu')
  try:
    jax.config.update('jax_num_cpu_devices', number)
  except RuntimeError:  # It has looked.
    expect(jax.device_count() >= number, '--devices', f'at most {jax.device_count()}', number)


def compiled(program: jax.stages.Lowered) -> jax.stages.Compiled:
  """Returns a program as the CPU's compiler makes it where memory counts; it is not run."""
  options = lambda passes: _OPTIONS | {'xla_disable_hlo_passes': ','.join(passes)}
  try:
    return program.compile(compiler_options=options(_DISABLED))
  except jax.errors.JaxRuntimeError:  # There may be operations that the CPU has not in bfloat16.
    return program.compile(compiler_options=options(_DISABLED[:1]))


def make_subject(config: Config, prompt_tokens: int | None = None) -> Subject:
  """Returns what a config describes, without reading weights, a tokenizer or data.

  Args:
    config: of a run.
    prompt_tokens: tokens of the longest prompt; None is task.max_prompt_tokens.

  Raises:
    FieldError: if a field is wrong, or the length of prompts or the model is not known.
  """
  settings = Settings.from_config(complete(config))
  fields = dict(settings.policy)
  fields.pop('tokenizer', None)
  policy_class = POLICIES.get(fields.get('name'))
  is_text = policy_class is not None and policy_class.completions == 'text'
  expect(is_text, 'policy.name', 'a language model, as others cost nothing', fields.get('name'))
  architecture = _architecture(fields.pop('preset'), fields.pop('weights'))
  task = SimpleNamespace(tokenizer=_TOKENIZER)
  # Each packing would be a loop of its own, of a length that nobody knows: all rows to the end.
  fields |= {'preset': _STAND_IN, 'num_packings': 0}
  policy = build('policy', fields, POLICIES, task=task)
  if prompt_tokens is None:
    prompt_tokens = settings.task.get('max_prompt_tokens')
    known = 'a number of tokens, as the config has no task.max_prompt_tokens'
    expect(prompt_tokens is not None, '--prompt_tokens', known, None)
  expect(prompt_tokens >= 1, '--prompt_tokens', 'at least 1', prompt_tokens)
  mesh = sharding.make_mesh(settings.mesh)
  check_mesh(settings, mesh)
  policy, optimizer = policy.with_architecture(architecture), optimizer_of(settings)
  return Subject(settings, policy, optimizer, mesh, bucket(prompt_tokens))


def _architecture(preset: str | None, weights: str | None) -> Architecture:
  """Returns the architecture; its name, or a config.json beside weights that need not be there."""
  try:
    return architecture_of(preset, weights)
  except FieldError as error:
    raise error.within('policy') from error
  except MissingDataError as error:
    names = f'one of {sorted(PRESETS)}, or policy.weights to be a folder with config.json'
    raise FieldError('policy.preset', f'expected {names}, got None and {weights!r}.') from error

"""A language model as a policy: samples completions of prompts, gives their log-probabilities."""

import copy
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from pkpo_jax import sharding
from pkpo_jax.errors import expect
from pkpo_jax.models import architecture_of, loading
from pkpo_jax.models.architecture import Architecture
from pkpo_jax.models.lora import Lora
from pkpo_jax.models.recipes import LINEAR
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies.base import Policy
from pkpo_jax.sampling import sample
from pkpo_jax.tokenizers import check_vocabulary
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key

_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
# An estimate from the times of `benchmarks.packing` on a CPU: below, some fifty rollouts do not
# save what it takes to compile the other loops.
_LEAST_TOKENS_TO_PACK = 64


class LanguageModel(Policy):
  """pi(completion | prompt), at a temperature that sampling and training share."""

  completions = 'text'
  eval_fields = frozenset({'max_new_tokens', 'temperature', 'top_k', 'top_p'})

  def __init__(
    self,
    task: Any,
    preset: str | None = 'gemma2_tiny',
    weights: str | None = None,
    dtype: str = 'float32',
    remat: bool = False,
    attention_block: int | None = None,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora_targets: tuple[str, ...] = tuple(LINEAR),
    freeze_embedding: bool = False,
    max_new_tokens: int = 16,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    log_prob_chunk: int = 16,
    cache_dtype: str | None = None,
    num_packings: int | None = None,
  ):
    """Sets up the model; reads no weights yet.

    Args:
      task: a text task; its `tokenizer` gives the vocabulary and the stop tokens.
      preset: the architecture, a key of `pkpo_jax.models.PRESETS`; None is that of the config.json
        in the folder of weights.
      weights: folder of released weights, of Hugging Face or, for Gemma, of the gemma library; None
        is random.
      dtype: of parameters and activations, 'float32' or 'bfloat16'.
      remat: recompute blocks in the backward pass instead of storing what is inside them.
      attention_block: tokens of a completion, or of a prompt, that look at the tokens before them
        at a time; memory is then linear in the length. None is all, which takes less time where it
        fits.
      lora_rank: rank of adapters, which alone are trained and saved; None trains all weights.
      lora_alpha: adapters' updates are multiplied by lora_alpha / lora_rank; None is the rank.
      lora_targets: matrices with an adapter, in each layer: 'q', 'k', 'v' and 'o' of attention,
        'gate', 'up' and 'down' of the feed-forward layer.
      freeze_embedding: neither train nor save the embedding table, which may be most of a small
        model; where it is tied, logits are read with it, too. A head of its own is trained.
      max_new_tokens: L, where a completion is cut if it has not ended.
      temperature: divides the logits, in sampling and in the log-probabilities; 0 is greedy.
      top_k: draw among this many most likely tokens, for evaluation only; None is all.
      top_p: draw among the most likely tokens of this total probability, for evaluation only.
      log_prob_chunk: completion tokens whose logits exist at a time, of each completion.
      cache_dtype: of the keys and values that sampling keeps, 'float32' or 'bfloat16'; None is
        dtype. In bfloat16 beside float32 weights they take half the memory, and the tokens are
        drawn from a distribution that is off by their rounding.
      num_packings: how often sampling goes on with a quarter of the rows, once the completions that
        have not ended fit into them; changes no token. Each compiles the model once more. None is
        2, or 0 where L is below 64 and there is too little to save.

    Raises:
      ValueError: if a name is unknown, a number out of range, or the tokenizer has more tokens than
        the preset.
    """
    expect(dtype in _DTYPES, 'dtype', f'one of {sorted(_DTYPES)}', dtype)
    expect(
      attention_block is None or attention_block >= 1,
      'attention_block',
      'at least 1 or None',
      attention_block,
    )
    expect(max_new_tokens >= 1, 'max_new_tokens', 'at least 1', max_new_tokens)
    expect(temperature >= 0, 'temperature', 'a number >= 0', temperature)
    expect(top_k is None or top_k >= 1, 'top_k', 'at least 1 or None', top_k)
    expect(top_p is None or 0 < top_p <= 1, 'top_p', 'in (0, 1] or None', top_p)
    expect(log_prob_chunk >= 1, 'log_prob_chunk', 'at least 1', log_prob_chunk)
    expect(
      cache_dtype is None or cache_dtype in _DTYPES,
      'cache_dtype',
      f'one of {sorted(_DTYPES)} or None',
      cache_dtype,
    )
    is_number = num_packings is None or num_packings >= 0
    expect(is_number, 'num_packings', 'at least 0 or None', num_packings)
    lora = None
    if lora_rank is not None:
      lora = Lora(lora_rank, float(lora_rank) if lora_alpha is None else lora_alpha, lora_targets)
    self.architecture = architecture_of(preset, weights)
    vocab_size = task.tokenizer.vocab_size
    expect(
      vocab_size <= self.architecture.num_embeddings,
      'preset',
      f"a model with at least the tokenizer's {vocab_size} tokens",
      f'{self.architecture.name} with {self.architecture.num_embeddings}',
    )
    if weights is not None:
      check_vocabulary(task.tokenizer, weights)
    self.model = Transformer(
      *(self.architecture, _DTYPES[dtype], remat, lora, freeze_embedding, vocab_size),
      attention_block,
    )
    self.frozen = self.model.frozen
    self.partition_rules = self.model.partition_rules
    # Greedy decoding and truncated sampling draw from another distribution than the model's.
    self.samples_exactly = temperature > 0 and top_k is None and top_p is None
    self._weights = weights
    self.max_new_tokens = max_new_tokens
    self._stop_ids = task.tokenizer.stop_ids
    self._temperature = temperature
    self._top_k = top_k
    self._top_p = top_p
    self.cache_dtype = cache_dtype and _DTYPES[cache_dtype]
    if num_packings is None:
      num_packings = 2 if max_new_tokens >= _LEAST_TOKENS_TO_PACK else 0
    self._num_packings = num_packings
    self.log_prob_chunk = log_prob_chunk

  def with_architecture(self, architecture: Architecture) -> 'LanguageModel':
    """Returns the same policy with another model, which has no weights to load."""
    policy = copy.copy(self)
    policy.architecture, policy._weights = architecture, None
    policy.model = self.model.with_architecture(architecture)
    policy.partition_rules = policy.model.partition_rules
    return policy

  def init(self, key: Key) -> dict[str, Any]:
    """Returns random parameters; `pretrained` has those to use in their place."""
    return self.model.init(key)

  def pretrained(self, like: dict[str, Any]) -> dict[str, Any]:
    """Returns the released weights, `{}` if the config names none.

    Args:
      like: parameters as ShapeDtypeStructs, with the shardings to load into.

    Raises:
      FileNotFoundError, ValueError: if the folder does not hold weights of this architecture.
    """
    if self._weights is None:
      return {}
    weights = self.model.weights(like)
    loaded = loading.load_params(self._weights, weights, self.architecture)
    return self.model.with_frozen_apart(loaded)

  def sample(self, params: Any, prompts: Prompts, num_samples: int, key: Key) -> Rollout:
    """Returns `num_samples` independent completions of each prompt.

    Rows are packed on each of the devices that the prompts are split over.
    """
    num_prompts = prompts.tokens.shape[0]
    fold_in_all = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = jax.vmap(fold_in_all, in_axes=(0, None))(
      fold_in_all(key, jnp.arange(num_prompts)), jnp.arange(num_samples)
    )
    completions, mask, log_probs = sample(
      self.model,
      params,
      prompts.tokens,
      prompts.mask,
      keys,
      max_new_tokens=self.max_new_tokens,
      stop_ids=self._stop_ids,
      temperature=self._temperature,
      top_k=self._top_k,
      top_p=self._top_p,
      num_packings=self._num_packings,
      num_shards=_num_shards(prompts.tokens),
      cache_dtype=self.cache_dtype,
    )
    return Rollout(
      prompt_tokens=prompts.tokens,
      prompt_mask=prompts.mask,
      completions=completions,
      completion_mask=mask,
      sampling_log_probs=log_probs,
    )

  def log_probs_and_entropy(
    self, params: Any, rollout: Rollout
  ) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
    """Returns the log-probability and the entropy of each token, nats, differentiable.

    Where the completion has no token they are those of padding and mean nothing.
    """
    hidden = completion_hidden(
      self.model, params, rollout.prompt_tokens, rollout.prompt_mask, rollout.completions
    )

    def of_prompts(head, hidden, tokens):
      logits = lambda hidden: self.model.logits(head, hidden) / self._temperature
      return chunked_log_probs_and_entropy(hidden, tokens, logits, self.log_prob_chunk)

    return sharding.by_prompts(of_prompts, self.model.head(params), hidden, rollout.completions)


def _num_shards(prompt_tokens: Int[jax.Array, 'P T']) -> int:
  """Returns in how many equal parts the prompts may lie on devices; 1 without a mesh."""
  mesh = jax.typeof(prompt_tokens).sharding.mesh
  return 1 if mesh.empty else math.gcd(len(prompt_tokens), sharding.num_prompt_shards(mesh))


def completion_hidden(
  model: Any,
  params: Any,
  prompt_tokens: Int[jax.Array, 'P T'],
  prompt_mask: Bool[jax.Array, 'P T'],
  completions: Int[jax.Array, 'P N L'],
) -> Float[jax.Array, 'P N L D']:
  """Returns the hidden states that each completion token is predicted from.

  The prompt is read once for its N completions, as in sampling.
  """
  num_prompts, num_samples, length = completions.shape
  positions = model.prompt_positions(prompt_mask)
  hidden, key_values = model(params, prompt_tokens[:, None], positions[:, None])
  shape = (num_prompts, num_samples, 1, hidden.shape[-1])
  first = jnp.broadcast_to(hidden[:, :, -1:], shape)
  if length == 1:
    return first
  start = positions[:, -1:, None] + 1
  positions = jnp.broadcast_to(start + jnp.arange(length - 1), (*shape[:2], length - 1))
  memory = model.prompt_memory(key_values)
  rest, _ = model(params, completions[..., :-1], positions, memory)
  return jnp.concatenate([first, rest], axis=2)


def chunked_log_probs_and_entropy(
  hidden: Float[jax.Array, 'P N L D'],
  tokens: Int[jax.Array, 'P N L'],
  logits_fn: Callable[[jax.Array], jax.Array],
  chunk: int,
) -> tuple[Float[jax.Array, 'P N L'], Float[jax.Array, 'P N L']]:
  """Returns the log-probabilities of tokens and the entropies, without logits of all positions.

  Logits exist for `chunk` tokens of each completion at a time, in the backward pass too, where
  they are computed again: the peak is P N chunk V numbers instead of P N L V.

  Args:
    hidden: `[P, N, L, D]`.
    tokens: `[P, N, L]`.
    logits_fn: `[..., D]` to `[..., V]` float32.
    chunk: tokens of each completion at a time.

  Returns:
    Two `[P, N, L]`, nats.
  """

  @jax.checkpoint
  def of_chunk(hidden, tokens):
    log_probs = jax.nn.log_softmax(logits_fn(hidden), axis=-1)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0], entropy

  length = tokens.shape[-1]
  num_whole = length // chunk
  split = lambda x: jnp.moveaxis(
    x[:, :, : num_whole * chunk].reshape(*x.shape[:2], num_whole, chunk, *x.shape[3:]), 2, 0
  )
  join = lambda x: jnp.moveaxis(x, 0, 2).reshape(*tokens.shape[:2], num_whole * chunk)
  parts = []
  if num_whole:
    outputs = lax.map(lambda arrays: of_chunk(*arrays), (split(hidden), split(tokens)))
    parts.append(jax.tree.map(join, outputs))
  if length % chunk:
    rest = slice(num_whole * chunk, None)
    parts.append(of_chunk(hidden[:, :, rest], tokens[:, :, rest]))
  log_probs, entropy = zip(*parts, strict=True)
  return jnp.concatenate(log_probs, axis=-1), jnp.concatenate(entropy, axis=-1)

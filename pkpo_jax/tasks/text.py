"""Between the text of a task and the tokens of a policy."""

from collections.abc import Sequence

import jax
import numpy as np

from pkpo_jax.sampling import PAD_ID, bucket
from pkpo_jax.tokenizers import Tokenizer
from pkpo_jax.types import Rollout


def encode_prompts(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
  """Returns `[P, T]` int32: beginning of sequence and text, padded on the left to a bucket."""
  encoded = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
  length = bucket(max(map(len, encoded)))
  return np.asarray([[PAD_ID] * (length - len(ids)) + ids for ids in encoded], np.int32)


def decode_completions(tokenizer: Tokenizer, rollout: Rollout) -> list[list[str]]:
  """Returns the text of each completion, `[P][N]`; waits for the rollout."""
  tokens, masks = jax.device_get((rollout.completions, rollout.completion_mask))
  return [
    [tokenizer.decode(row[mask].tolist()) for row, mask in zip(*group, strict=True)]
    for group in zip(tokens, masks, strict=True)
  ]


def host_rng(key: jax.Array) -> np.random.Generator:
  """Returns NumPy's generator, seeded by a key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)))

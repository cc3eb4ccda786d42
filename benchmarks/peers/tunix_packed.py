"""google-tunix with its packed updates, which its Gemma does not have."""

import functools
from unittest import mock

import jax.numpy as jnp

from benchmarks.peers import tunix_gemma2


class SegmentedLengths(tunix_gemma2.ForcedLengths):
  """A Gemma that also takes segments, as tunix's Qwen and its Gemma 4 do.

  For times alone: its local layers, which are tunix's, count their windows from the start of a row
  and not of a segment.
  """

  def __call__(self, last_tokens, positions, cache, attention_mask, segment_ids=None):
    if attention_mask is None:
      index = jnp.arange(segment_ids.shape[1])
      is_same = segment_ids[:, :, None] == segment_ids[:, None]
      attention_mask = is_same & (segment_ids > 0)[:, None] & (index[:, None] >= index)
    return super().__call__(last_tokens, positions, cache, attention_mask)


class Learner(tunix_gemma2.Learner):
  """GRPOLearner.train with completions and prompts packed into rows, without padding.

  A row has the tokens of two samples of full length. Each row is a micro batch, so that there is an
  update after as many rows as there are prompts, which is not a batch.
  """

  def __init__(self, workload):
    longest = workload['prompt_length'] + workload['new_tokens']
    cluster = tunix_gemma2.rl_cluster
    packed = functools.partial(cluster.RLTrainingConfig, max_seq_token_per_tpu=2 * longest)
    with (
      mock.patch.object(tunix_gemma2, 'ForcedLengths', SegmentedLengths),
      mock.patch.object(cluster, 'RLTrainingConfig', packed),
    ):
      super().__init__(workload)

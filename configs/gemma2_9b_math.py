"""Gemma-2 9B on MATH: `gemma2_2b_math` with the larger model.

  python -m pkpo_jax.main --config=configs/gemma2_9b_math.py --workdir=runs/math_9b_k8 \
    --config.task.source=FOLDER --config.policy.weights=FOLDER --config.policy.tokenizer.path=FILE

Hardware: meant for one host with 8 GPUs or TPU chips of 80 GB or more. The paper's final rolling
pass@k in per cent (arXiv 2505.15201, mean of 3 seeds):

             k_eval = 1     2      4      8     16
  advantage.k=1   22.24  25.35  30.73  37.08  42.59
  advantage.k=8   20.69  26.78  33.68  42.62  48.37

Variants, sweep and choices are those of `gemma2_2b_math`. Run so far: `:tiny` alone, on made-up
problems in the real format. No released weights, no MATH.
"""

from ml_collections import ConfigDict

from configs import gemma2_2b_math, released

SWEEP, NUM_SEEDS = gemma2_2b_math.SWEEP, gemma2_2b_math.NUM_SEEDS


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  config = gemma2_2b_math.make_config('gemma2_9b_math', arg, 'gemma2_9b')
  if 'tiny' not in (arg or ''):
    released.spread_over_eight(config)
  return config

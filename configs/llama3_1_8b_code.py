"""Llama 3.1 8B trained on MBPP, held out HumanEval: `gemma2_2b_code` with another model.

  python -m pkpo_jax.main --config=configs/llama3_1_8b_code.py --workdir=runs/code_8b_k8 \
    --config.task.mbpp_source=FOLDER --config.policy.weights=FOLDER \
    --config.policy.tokenizer.path=FOLDER

The FOLDER of weights and tokenizer is that of the released instruction-tuned model, with
config.json and tokenizer.json. All runs, three seeds each:

  python -m experiments.launcher --config=configs/llama3_1_8b_code.py --root=runs/code_8b

A later version of PKPO (arXiv 2505.15201) adds this model; its numbers were not at hand. Variants,
sweep and what is our choice are those of `gemma2_2b_code`. Prompts are in the model's chat
template.

Hardware: meant for one host with 8 GPUs or TPU chips of 80 GB or more. Run so far: `:tiny` alone,
with a Llama of 0.1 million weights, on problems in MBPP's format. No released weights of Llama, no
MBPP.
"""

from ml_collections import ConfigDict

from configs import gemma2_2b_code, released

SWEEP, NUM_SEEDS = gemma2_2b_code.SWEEP, gemma2_2b_code.NUM_SEEDS


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  config = gemma2_2b_code.make_config('llama3_1_8b_code', arg, 'llama3_1_8b')
  if 'tiny' not in (arg or ''):
    released.spread_over_eight(config)
  return config

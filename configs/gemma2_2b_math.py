"""Gemma-2 2B on MATH (PKPO, arXiv 2505.15201, section 8): 12,000 problems, 500 held out.

  python -m pkpo_jax.main --config=configs/gemma2_2b_math.py --workdir=runs/math_2b_k8 \
    --config.task.source=FOLDER --config.policy.weights=FOLDER --config.policy.tokenizer.path=FILE

FOLDER of the task has train.jsonl and test.jsonl of the 12,000/500 re-split (PRM800K's
math_splits), or train/ and test/ of Hendrycks MATH. All runs of the paper, three seeds each:

  python -m experiments.launcher --config=configs/gemma2_2b_math.py --root=runs/math_2b

Hardware: meant for one host with 4 TPU chips or GPUs of 32 GB or more (mesh.fsdp; other numbers of
devices: change it). The paper's final rolling pass@k in per cent, mean of 3 seeds:

             k_eval = 1     2      4      8     16
  advantage.k=1   15.91  18.12  23.37  29.58  35.02
  advantage.k=2   15.15  20.73  25.81  31.96  37.75
  advantage.k=4   14.86  19.86  27.59  34.27  38.91
  advantage.k=8   14.19  19.33  26.45  35.49  40.73
  tzsm            13.11  18.09  24.58  31.81  37.24
  best entropy    14.51  18.95  25.33  30.95  36.18

`:anneal` goes from k = 8 to k = 1 at step 1500 (Figure 3): its pass@k is better than that of k = 1
for every k > 1, with no loss of pass@1. `:quick` takes four steps with the same model. `:tiny`
takes two with a model of a million weights, on a few problems of our own wording.
`released.make_config` says what is our choice; 512 new tokens, prompts of at most 384 tokens
and the instruction-tuned weights are, too.

Run so far: `:tiny` alone, on made-up problems in the real format. No released weights, no MATH.
"""

from ml_collections import ConfigDict

from configs import default, released

SWEEP = {**released.PKPO_SWEEP, 'anneal': ('anneal', {})}
NUM_SEEDS = 3


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant: 'anneal', 'quick', 'tiny', 'anneal_quick', ..."""
  return make_config('gemma2_2b_math', arg, 'gemma2_2b')


def make_config(name: str, arg: str | None, model: str) -> ConfigDict:
  """Returns the variant `arg` of the config `name` for a key of `released.MODELS`."""
  structure, size = released.parse_arg(name, arg, ('anneal',))
  config = released.make_config(default.task('math_problems'), model, size)
  if size != 'tiny':
    config.policy.max_new_tokens = 512
  if not size:
    config.eval.num_prompts = 448  # Of 500; some have longer prompts. A multiple of 64.
  if structure == 'anneal':
    released.anneal(config, at=1 if size else 1500)
  return config

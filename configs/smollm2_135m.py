"""SmolLM2 135M Instruct, pretrained, on a drill: the sum of three digits.

  python -m pkpo_jax.pretrained smollm2_135m
  python -m pkpo_jax.main --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m_k8

As `gemma3_270m`, with a Llama: before any training, 5 % of the completions are right, and in 47 %
of problems one of sixteen (experiments/pretrained/results/survey.csv). Prompts are plain text with
four examples, not chats. All runs of the comparison, three seeds each:

  python -m experiments.pretrained.training --models=smollm2_135m

Hardware: a run took 9 to 14 minutes on one CPU core beside other work, and 6 GB of memory.
"""

from ml_collections import ConfigDict

from configs import gemma3_270m, packaged

SWEEP, NUM_SEEDS = gemma3_270m.SWEEP, gemma3_270m.NUM_SEEDS


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant 'short' or 'quick'."""
  path = 'weights/smollm2_135m'
  return packaged.make_config('smollm2_135m', arg, 'add_digits', 'huggingface', path)

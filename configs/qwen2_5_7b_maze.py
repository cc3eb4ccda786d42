"""Qwen 2.5 7B on mazes, as in Pass@k Training (Chen et al. 2025, arXiv 2508.10751, Table 7).

  python -m pkpo_jax.main --config=configs/qwen2_5_7b_maze.py --workdir=runs/maze_7b_analytical \
    --config.policy.weights=FOLDER --config.policy.tokenizer.path=FOLDER

FOLDER is that of the released weights, with config.json and tokenizer.json. All ways to train:

  python -m experiments.launcher --config=configs/qwen2_5_7b_maze.py --root=runs/maze_7b

`gemma2_maze` with the paper's own model: its variants, its sweep and what its docstring says of the
paper's hyper-parameters and of our choice hold here. Prompts are in the model's chat template.

Hardware: meant for one host with 8 GPUs or TPU chips of 80 GB or more. Expect the paper's order
(per cent, pass@1/pass@32 over its sizes): Pass@1 training 13.9/14.4, full sampling 12.7/24.7,
bootstrap 16.8/26.7, analytical 47.7/65.0.

Run so far: `:tiny` alone, with a Llama of 0.1 million weights. No released weights of Qwen.
"""

from ml_collections import ConfigDict

from configs import gemma2_maze, released

SWEEP, NUM_SEEDS = gemma2_maze.SWEEP, gemma2_maze.NUM_SEEDS


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  config = gemma2_maze.make_config('qwen2_5_7b_maze', arg, 'qwen2_5_7b')
  if 'tiny' not in (arg or ''):
    released.spread_over_eight(config)
  return config

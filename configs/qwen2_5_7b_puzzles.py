"""Qwen 2.5 7B on puzzles, as Pass@k Training (Chen et al. 2025, arXiv 2508.10751) on Enigmata.

  python -m pkpo_jax.main --config=configs/qwen2_5_7b_puzzles.py --workdir=runs/puzzles_7b \
    --config.policy.weights=FOLDER --config.policy.tokenizer.path=FOLDER

Enigmata's puzzles are not in here: those of the package reasoning-gym stand in for them, so no
number of the paper can be expected to come out. All ways to train:

  python -m experiments.launcher --config=configs/qwen2_5_7b_puzzles.py --root=runs/puzzles_7b

Variants, sweep and hyper-parameters are those of `gemma2_maze`. Which puzzles is our choice: four
kinds about text and four about numbers, 2,256 of each, 32 of each held out.

Hardware: meant for one host with 8 GPUs or TPU chips of 80 GB or more. Run so far: `:tiny` alone,
with a Llama of 0.1 million weights. No released weights of Qwen.
"""

from ml_collections import ConfigDict

from configs import default, gemma2_maze, released

SWEEP, NUM_SEEDS = gemma2_maze.SWEEP, gemma2_maze.NUM_SEEDS
_NAMES = (
  *('spell_backward', 'letter_counting', 'word_sorting', 'caesar_cipher'),
  *('gcd', 'chain_sum', 'simple_equations', 'number_sequence'),
)


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant: 'schedule', 'quick', 'tiny', 'schedule_quick', ..."""
  structure, size = released.parse_arg('qwen2_5_7b_puzzles', arg, ('schedule',))
  task = default.task('puzzles', names=_NAMES, num_held_out=32, max_prompt_tokens=512)
  config = released.make_config(task, 'qwen2_5_7b', size)
  if size == 'tiny':
    config.task.names, config.task.size, config.task.num_held_out = _NAMES[:1], 24, 8
  gemma2_maze.train_as_passk_training(config, structure, size)
  if size != 'tiny':
    released.spread_over_eight(config)
  return config

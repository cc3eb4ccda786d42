"""Gemma-2 on mazes, the synthetic task of Pass@k Training (Chen et al. 2025, arXiv 2508.10751).

  python -m pkpo_jax.main --config=configs/gemma2_maze.py --workdir=runs/maze_analytical \
    --config.policy.weights=FOLDER --config.policy.tokenizer.path=FILE

and all of the paper's ways to train (analytical, bootstrap, full sampling, combination, adaptive,
Pass@1, and Pass@1 -> Pass@k -> Pass@1):

  python -m experiments.launcher --config=configs/gemma2_maze.py --root=runs/maze_2b

From the paper: 32 samples of each of 128 prompts a step, learning rate 1e-6, PPO with clip-higher
(0.2 and 0.28), the mean over all tokens, no KL penalty, no entropy bonus; Pass@1 training is GRPO
(z-scores), which is passk_analytical with k = 1.

Our choice, as the paper says nothing of it or its model is another (Qwen2.5-7B): Gemma-2 2B; k = 8;
mazes of 7 x 7 alone (the paper averages over sizes), 20,000 of them; 300 steps, in the schedule
Pass@1 to step 50, Pass@k to step 200, then Pass@1; two updates a step, so that clipping matters.

Hardware: meant for one host with 4 TPU chips or GPUs of 32 GB or more. Expect the paper's order
(per cent, pass@1/pass@32 over its sizes): Pass@1 training 13.9/14.4, full sampling 12.7/24.7,
bootstrap 16.8/26.7, analytical 47.7/65.0.

`:schedule` has that schedule. `:quick` takes four steps with the same model, `:tiny` two with a
model of a million weights. Run so far: `:tiny` alone; `configs/maze_tiny.py` has trained with
k = 1, 4, 8.
"""

from ml_collections import ConfigDict

from configs import default, released

SWEEP = {
  'analytical': ('', {}),
  'bootstrap': ('', {'advantage.name': 'passk_bootstrap'}),
  'full_sampling': ('', {'advantage.name': 'passk_full_sampling'}),
  'combination': ('', {'advantage.name': 'passk_combination'}),
  'adaptive': ('', {'advantage.name': 'passk_adaptive'}),
  'pass1': ('', {'advantage.k': 1}),
  'pass1_passk_pass1': ('schedule', {}),
}
NUM_SEEDS = 3


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant: 'schedule', 'quick', 'tiny', 'schedule_quick', ..."""
  return make_config('gemma2_maze', arg, 'gemma2_2b')


def make_config(name: str, arg: str | None, model: str) -> ConfigDict:
  """Returns the variant `arg` of the config `name` for a key of `released.MODELS`."""
  structure, size = released.parse_arg(name, arg, ('schedule',))
  task = default.task('maze')
  task.num_train, task.num_held_out = 20_000, 256
  task.size, task.min_moves, task.max_moves = 7, 4, 16
  task.prompt_format = 'gemma_it'
  config = released.make_config(task, model, size)
  if size == 'tiny':
    config.task.num_train, config.task.num_held_out = 16, 8
  train_as_passk_training(config, structure, size)
  return config


def train_as_passk_training(config: ConfigDict, structure: str, size: str) -> None:
  """Sets what Pass@k Training does alike on all of its tasks."""
  config.advantage.name = 'passk_analytical'
  config.loss.normalization = 'token'
  config.loss.num_minibatches = 2
  config.eval.num_prompts = 4 if size == 'tiny' else 256
  begin, end = 1, 2
  if size != 'tiny':
    config.policy.max_new_tokens = 512
  if size == 'quick':
    config.loss.num_microbatches = 2
  elif not size:
    config.num_train_steps = 300
    config.rollout.num_prompts, config.rollout.num_samples = 128, 32
    config.loss.num_microbatches = 16
    config.eval.every, config.checkpoint.every = 50, 50
    config.eval.ks, config.eval.num_samples = (1, 2, 4, 8, 16, 32), 32
    begin, end = 50, 200
  if structure == 'schedule':
    config.advantage.schedule = default.schedule('pass1_passk_pass1')
    config.advantage.schedule.begin, config.advantage.schedule.end = begin, end

"""What the configs of released weights have in common; no config of its own."""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from configs import default

SIZES = ('', 'quick', 'tiny')


class Model(NamedTuple):
  """Released weights, and what a model of the same family is called that is tiny.

  Attributes:
    preset: the architecture; None is that of the config.json beside the weights.
    weights: folder of the weights.
    tokenizer: the kind of tokenizer.
    tokenizer_path: of its file or folder.
    prompt_format: the turns that the model was trained on.
    tiny: the preset of `:tiny`.
  """

  preset: str | None
  weights: str
  tokenizer: str
  tokenizer_path: str
  prompt_format: str
  tiny: str


def _gemma2(size: str) -> Model:
  return Model(
    preset=f'gemma2_{size}',
    weights=f'weights/gemma2-{size}-it',
    tokenizer='sentencepiece',
    tokenizer_path='weights/tokenizer.model',
    prompt_format='gemma_it',
    tiny='gemma2_tiny',
  )


def _by_config_file(weights: str) -> Model:
  return Model(
    preset=None,
    weights=weights,
    tokenizer='huggingface',
    tokenizer_path=weights,
    prompt_format='chat',
    tiny='llama_micro',
  )


MODELS = {
  'gemma2_2b': _gemma2('2b'),
  'gemma2_9b': _gemma2('9b'),
  'llama3_1_8b': _by_config_file('weights/Llama-3.1-8B-Instruct'),
  'qwen2_5_7b': _by_config_file('weights/Qwen2.5-7B-Instruct'),
}


def parse_arg(name: str, arg: str | None, structures: Sequence[str]) -> tuple[str, str]:
  """Returns the structure, one of `structures`, and the size, one of SIZES, that `arg` names.

  Either may be missing; both are joined by '_', as in 'anneal_tiny'.
  """
  choices = {
    '_'.join(filter(None, (structure, size))): (structure, size)
    for structure in ('', *structures)
    for size in SIZES
  }
  if (arg or '') not in choices:
    raise ValueError(
      f'configs/{name}.py: expected one of {tuple(choices)} after the colon, got {arg!r}.'
    )
  return choices[arg or '']


def make_config(task: ConfigDict, model: str, size: str) -> ConfigDict:
  """Returns the config of PKPO's section 8 (arXiv 2505.15201) for a task, with k = 8.

  `model` is a key of MODELS.

  From the paper: 16 samples of each of 16 problems a step, PPO, s_loo1, pass@k for k = 1, 2, 4, 8,
  12, 16. It states no learning rate, optimizer, KL, clipping, temperature or lengths; those here
  are our choice, and so are the number of steps (four epochs of MATH, twice as far as the paper's
  annealing), when to evaluate and save, and all numbers of memory and of hardware:
    one update a step, so that the gradient is the unbiased one and no ratio is ever clipped;
    Adam at 1e-6, a usual rate where all weights of such a model are trained by RL, reached in ten
      steps, as its second moments know nothing at first; gradients clipped at 1, a common guard;
    no KL penalty, which would hold the policy where pass@k is low; temperature 1, as training
    needs the very distribution that is sampled from;
    the instruction-tuned weights, which answer in a form that verifiers find, and lengths that most
      of their answers stay below.

  'quick' takes four small steps with the same model, to see that all of it fits and runs. 'tiny'
  takes two steps with a model of at most one million weights.
  """
  config, released = default.get_config(), MODELS[model]
  config.num_train_steps = 3000
  config.task = task
  if 'prompt_format' in task and task.prompt_format == 'gemma_it':
    config.task.prompt_format = released.prompt_format

  config.policy = default.policy('language_model')
  config.policy.tokenizer = default.tokenizer(released.tokenizer)
  config.policy.tokenizer.path = released.tokenizer_path
  config.policy.preset = released.preset
  config.policy.weights = released.weights
  config.policy.dtype = 'bfloat16'
  config.policy.remat = True
  config.policy.log_prob_chunk = 64

  config.rollout.num_prompts = 16
  config.rollout.num_samples = 16
  if 'num_workers' in config.task:
    config.task.num_workers = 8  # Verifiers' processes; hosts of accelerators have many cores.
  config.rollout.num_pieces = 2  # The verifier works on one half while the other is sampled.
  config.advantage.k = 8
  config.loss.name = 'ppo'
  config.loss.num_microbatches = 4

  config.optimizer.learning_rate = 1e-6
  config.optimizer.warmup_steps = 10
  config.optimizer.decay = 'constant'
  config.optimizer.max_grad_norm = 1.0

  config.eval.every = 100
  config.eval.ks = (1, 2, 4, 8, 12, 16)
  config.eval.policy = default.eval_policy()
  config.checkpoint.every = 100
  config.mesh.fsdp = 4
  if size == 'quick':
    config.num_train_steps = 4
    config.optimizer.warmup_steps = 1
    config.eval.every, config.checkpoint.every = 2, 2
    config.eval.num_prompts = 16
    config.log.every = 1
  elif size == 'tiny':
    shrink(config, released.tiny)
  return config


def shrink(config: ConfigDict, preset: str) -> None:
  """Makes a config tiny: the same code on a tiny model and few samples."""
  config.num_train_steps = 2
  config.optimizer.warmup_steps = 1
  config.policy.tokenizer = default.tokenizer('characters')
  if 'num_workers' in config.task:
    config.task.num_workers = 2
  # Problems of our own in the published formats; a folder on the command line replaces them.
  if config.task.name == 'math_problems':
    config.task.source = 'samples'
  elif config.task.name == 'code_problems':
    config.task.mbpp_source = config.task.humaneval_source = 'samples'
  if 'max_prompt_tokens' in config.task:
    config.task.max_prompt_tokens = None  # Characters are many.
  config.policy.preset = preset
  if 'prompt_format' in config.task and config.task.prompt_format == 'chat':
    config.task.prompt_format = 'plain'  # Characters come without a chat template.
  config.policy.weights = None
  config.policy.dtype = 'float32'
  config.policy.max_new_tokens = 8
  config.policy.log_prob_chunk = 4
  config.rollout.num_prompts, config.rollout.num_samples = 4, 4
  config.advantage.k = min(config.advantage.k, 2)
  config.loss.num_microbatches = 1
  config.eval.every, config.checkpoint.every = 1, 1
  config.eval.ks = (1, 2, 4)
  config.eval.num_prompts, config.eval.num_samples = 4, 4
  config.mesh.fsdp = 1
  config.log.every = 1


def spread_over_eight(config: ConfigDict) -> None:
  """Splits a model over eight devices, with one prompt on each of them at a time."""
  config.mesh.fsdp = 8
  config.loss.num_microbatches = config.rollout.num_prompts // (8 * config.loss.num_minibatches)


def anneal(config: ConfigDict, at: int) -> None:
  """Makes k fall to 1 at a step, as in Figure 3 of PKPO."""
  config.advantage.schedule = default.schedule('step')
  config.advantage.schedule.final_k = 1
  config.advantage.schedule.at = at


# Runs of a sweep: the structure after the colon, and flat overrides.
PKPO_SWEEP = {
  **{f'k{k}': ('', {'advantage.k': k}) for k in (1, 2, 4, 8)},
  'tzsm': ('', {'advantage.name': 'tzsm', 'advantage.k': 16}),
  # EntropyReg, of which the paper takes the best, is k = 1 with a bonus.
  **{
    f'entropy_{coef}': ('', {'advantage.k': 1, 'loss.entropy_coef': coef})
    for coef in (0.001, 0.005, 0.01, 0.05, 0.1)
  },
}

"""The hidden answer as a string, for a Gemma-2 of one million weights: pass@k with known optima.

  python -m pkpo_jax.main --config=configs/hidden_answer_tiny.py:warm \
    --workdir=runs/hidden_answer_warm
  python -m pkpo_jax.main --config=configs/hidden_answer_tiny.py --workdir=runs/hidden_answer_k8 \
    --config.warm_start=runs/hidden_answer_warm --config.advantage.k=8

`:warm` imitates all strings of a context alike, so that the policy begins where the bandit does,
undecided. Each run takes a minute on 2 CPU cores. Expect at advantage.k = k an eval/pass@k_exact of
93 to 95 % of the optimum (mean of 5 seeds; experiments/hidden_answer). `:quick` and `:warm_quick`
only show that everything runs.
"""

from ml_collections import ConfigDict

from configs import default
from configs.text_tiny import make_config


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config, or its variant."""
  task = default.task('hidden_answer_text')
  # Three letters and the end.
  config = make_config('hidden_answer_tiny', arg, task, 4, num_train_steps=400, num_warm_steps=450)
  config.rollout.num_prompts, config.rollout.num_samples = 16, 16
  config.optimizer.learning_rate = 2e-3 if config.rollout.source == 'demonstrations' else 2e-4
  # Gradients of pass@16 have a norm of about 3: clipped, they are no longer unbiased.
  config.optimizer.max_grad_norm = 10.0
  return config

"""PKPO's toy problem: x ~ Normal(theta, 0.1), reward x^2 on [0, 1] (arXiv 2505.15201).

python -m pkpo_jax.main --config=configs/gaussian.py --workdir=runs/gaussian
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config; there are no variants."""
  config = default.get_config(arg)
  config.task = default.task('parabola')
  config.policy = default.policy('gaussian')
  config.optimizer.learning_rate = 0.01
  return config

"""Policies: what samples completions and gives their log-probabilities."""

from pkpo_jax.policies.bandit import SoftmaxBandit
from pkpo_jax.policies.base import Policy
from pkpo_jax.policies.gaussian import Gaussian
from pkpo_jax.policies.language_model import LanguageModel

POLICIES: dict[str, type[Policy]] = {
  'gaussian': Gaussian,
  'language_model': LanguageModel,
  'softmax_bandit': SoftmaxBandit,
}

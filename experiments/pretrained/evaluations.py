"""What a run's file of samples says of its evaluations."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def outcomes(samples: Sequence[dict[str, Any]]) -> np.ndarray:
  """Returns whether the samples of an evaluation are right, `[P, N]` of 0 and 1."""
  groups = {}
  for sample in samples:
    groups.setdefault(sample['group'], []).append(float(sample['success']))
  return np.array(list(groups.values()), np.float32)


def question(sample: dict[str, Any]) -> str:
  """Returns the question of a drill: the last of the prompt, whose others are examples."""
  return sample['prompt'].rsplit('Problem: ', 1)[1].partition('\n')[0]

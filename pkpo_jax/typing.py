"""The axis legend and the array aliases of the kernels.

Axes, as they stand in shape comments and jaxtyping annotations:

  P  prompts of one step, one group of samples each
  N  samples of one prompt (the papers' n)
  L  tokens of one completion
  V  vocabulary entries, or arms of a bandit
  K  values of k

`*p` stands for any number of leading axes, usually just P; `n` for the sample axis N.
"""

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

AnyArray = jax.Array | np.ndarray

# Task rewards: any real dtype; integers and booleans are promoted to float32.
Rewards = Shaped[AnyArray, '*p n']
# What every kernel returns per sample.
Advantages = Float[jax.Array, '*p n']
# True (or 1) where a sample exists; None stands for "everywhere".
Mask = Shaped[AnyArray, '*p n'] | None
# Samples the objective takes the best of: a Python int or a traced scalar.
K = int | np.integer | Int[AnyArray, '']
# The same where it is not used, or one for each group.
AnyK = K | Int[AnyArray, '*p'] | None
# One number per group.
PerGroup = Float[jax.Array, '*p']
Key = Shaped[jax.Array, '...']

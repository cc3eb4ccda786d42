"""The layout of PRNG keys: which key of a run is for what. The one place that splits them."""

from typing import NamedTuple

import jax

from pkpo_jax.typing import Key


class RunKeys(NamedTuple):
  """The keys of a run.

  Attributes:
    init: of the initial parameters.
    train: of all steps; see `step_keys`.
    eval: of all evaluations; see `eval_keys`.
  """

  init: Key
  train: Key
  eval: Key


class StepKeys(NamedTuple):
  """The keys of a training step, named after what draws with them."""

  prompts: Key
  sample: Key
  grade: Key
  advantages: Key
  update: Key


class EvalKeys(NamedTuple):
  """The keys of an evaluation, named after what draws with them."""

  prompts: Key
  sample: Key
  grade: Key


def run_keys(key: Key) -> RunKeys:
  """Returns the keys of the run whose seed `key` is."""
  return RunKeys(*jax.random.split(key, 3))


def step_keys(train_key: Key, step: int | jax.Array) -> StepKeys:
  """Returns the keys of a step, by `RunKeys.train`; traceable."""
  return StepKeys(*jax.random.split(jax.random.fold_in(train_key, step), 5))


def eval_keys(key: Key) -> EvalKeys:
  """Returns the keys of one evaluation."""
  return EvalKeys(*jax.random.split(key, 3))


def piece_key(key: Key, piece: int, num_pieces: int) -> Key:
  """Returns the key of one of several pieces that a batch is split into; `key` if it is whole."""
  return key if num_pieces == 1 else jax.random.fold_in(key, piece)

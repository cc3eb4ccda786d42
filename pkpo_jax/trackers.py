"""Services that metrics go to, beside the files of the workdir."""

import contextlib
import hashlib
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any


class Wandb:
  """Metrics for Weights & Biases, online or, with WANDB_MODE=offline, in files of the workdir.

  The run's id follows from the workdir, so that a resumed run goes on in the same one; of the steps
  that it repeats the service keeps what came first. Nothing that goes wrong with the service stops
  the run: a line says what, and the workdir has all metrics.
  """

  def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any]):
    """Begins or goes on with the service's run.

    Args:
      workdir: the run's folder, which names it.
      config: all fields, for the service to show. WANDB_PROJECT names the project, else it is
        pkpo_jax; WANDB_MODE and the other variables of the environment are wandb's own.
    """
    self._run = None
    path = workdir.resolve()
    with self._only_warn('was not begun'):
      import wandb

      self._run = wandb.init(
        project=os.environ.get('WANDB_PROJECT', 'pkpo_jax'),
        name=path.name,
        id=hashlib.sha256(bytes(path)).hexdigest()[:16],
        dir=str(path),
        config=dict(config),
        resume='allow',
      )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Hands over the scalars of a step."""
    if self._run is not None:
      with self._only_warn(f'did not take the metrics of step {step}'):
        self._run.log(dict(scalars), step=step)

  def close(self) -> None:
    """Ends the service's run, which may wait for what is still on its way."""
    if self._run is not None:
      with self._only_warn('was not ended'):
        self._run.finish()

  @contextlib.contextmanager
  def _only_warn(self, problem: str):
    try:
      yield
    except Exception as error:
      text = ' '.join(f'{type(error).__name__}: {error}'.split())
      print(f'wandb {problem} ({text:.300}); the workdir has them.', file=sys.stderr)

"""Grading a rollout on the host: by this process, or by all of them, each its share."""

import jax
import numpy as np
from jax.sharding import NamedSharding

from pkpo_jax import processes
from pkpo_jax.tasks import Task
from pkpo_jax.tasks.grades import Grades, concatenate
from pkpo_jax.types import Prompts, Rollout
from pkpo_jax.typing import Key


def trim_and_grade(
  task: Task, prompts: Prompts, rollout: Rollout, key: Key, over_prompts: NamedSharding | None
) -> tuple[Rollout, Grades]:
  """Returns a rollout as the task trims it, and the grades of all its samples.

  Several processes share the prompts out, if the task grades each by itself, and exchange what they
  found: every process returns the grades of all.

  Args:
    task: trims and grades.
    prompts: `[P]`.
    rollout: their samples, on the devices.
    key: of what grading draws.
    over_prompts: how prompts are split over devices.
  """
  if processes.count() == 1:
    rollout = task.trim(rollout)
    return rollout, task.grade(prompts, rollout, key)
  prompts, on_host = processes.to_host((prompts, rollout))
  if not task.grades_apart:
    mask, grades = _on_host(task, prompts, on_host, key)
  else:
    own = processes.share(len(prompts.ids))
    part = jax.tree.map(lambda x: x[own], (prompts, on_host))
    parts = processes.gather(_on_host(task, *part, key) if own.size else None)
    masks, graded = zip(*(each for each in parts if each is not None), strict=True)
    mask, grades = np.concatenate(masks), concatenate(graded)
  return rollout.replace(completion_mask=processes.put(mask, over_prompts)), grades


def _on_host(task: Task, prompts: Prompts, rollout: Rollout, key: Key) -> tuple[np.ndarray, Grades]:
  """Returns the trimmed mask and the grades of a rollout that is on the host."""
  rollout = task.trim(rollout)
  grades = task.grade(prompts, rollout, key)
  return rollout.completion_mask, Grades(*jax.device_get(grades[:3]), grades.verdicts)

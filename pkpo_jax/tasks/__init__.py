"""Tasks: what gives prompts and grades completions."""

from collections.abc import Mapping

from pkpo_jax.own_code import OpenChoices
from pkpo_jax.tasks.arc.task import ArcTask
from pkpo_jax.tasks.base import Task
from pkpo_jax.tasks.code.task import CodeProblems
from pkpo_jax.tasks.copy import Copy
from pkpo_jax.tasks.countdown import CountdownTask
from pkpo_jax.tasks.drills import Drills
from pkpo_jax.tasks.hidden_answer import HiddenAnswer
from pkpo_jax.tasks.hidden_answer_text import HiddenAnswerText
from pkpo_jax.tasks.jsonl.task import JsonlProblems
from pkpo_jax.tasks.math.task import MathProblems
from pkpo_jax.tasks.maze import MazeTask
from pkpo_jax.tasks.parabola import Parabola
from pkpo_jax.tasks.puzzles.task import PuzzlesTask
from pkpo_jax.tasks.safe_risky import SafeRisky

# Open to tasks of the user's own: config.task.name = 'path/to/file.py:ClassName'.
TASKS: Mapping[str, type[Task]] = OpenChoices(
  Task,
  {
    'arc': ArcTask,
    'code_problems': CodeProblems,
    'copy': Copy,
    'countdown': CountdownTask,
    'drills': Drills,
    'hidden_answer': HiddenAnswer,
    'hidden_answer_text': HiddenAnswerText,
    'jsonl_problems': JsonlProblems,
    'math_problems': MathProblems,
    'maze': MazeTask,
    'parabola': Parabola,
    'puzzles': PuzzlesTask,
    'safe_risky': SafeRisky,
  },
)

"""The data sets that can be prepared, one in a file."""

from pkpo_jax.data.base import Dataset
from pkpo_jax.data.builders.arc_agi_1 import ArcAgi1
from pkpo_jax.data.builders.countdown import Countdown
from pkpo_jax.data.builders.gsm8k import Gsm8k
from pkpo_jax.data.builders.humaneval import HumanEval
from pkpo_jax.data.builders.math import Math
from pkpo_jax.data.builders.maze import Maze
from pkpo_jax.data.builders.mbpp import Mbpp
from pkpo_jax.data.builders.reasoning_gym import ReasoningGym

_ALL = (ArcAgi1, Countdown, Gsm8k, HumanEval, Math, Maze, Mbpp, ReasoningGym)
DATASETS: dict[str, type[Dataset]] = {dataset.name: dataset for dataset in _ALL}

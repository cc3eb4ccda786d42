"""The data sets that can be prepared, by name."""

from pkpo_jax.data.base import Dataset
from pkpo_jax.tasks.arc.dataset import ArcAgi1
from pkpo_jax.tasks.code.humaneval import HumanEval
from pkpo_jax.tasks.code.mbpp import Mbpp
from pkpo_jax.tasks.countdown import CountdownDataset
from pkpo_jax.tasks.jsonl.dataset import JsonlProblemsData
from pkpo_jax.tasks.math.competition import Math
from pkpo_jax.tasks.math.gsm8k import Gsm8k
from pkpo_jax.tasks.maze import MazeDataset
from pkpo_jax.tasks.puzzles.dataset import ReasoningGym

_ALL = (ArcAgi1, CountdownDataset, Gsm8k, HumanEval, JsonlProblemsData, Math, MazeDataset, Mbpp)
_ALL += (ReasoningGym,)
DATASETS: dict[str, type[Dataset]] = {dataset.name: dataset for dataset in _ALL}

"""Functions to write, judged by unit tests: MBPP and HumanEval."""

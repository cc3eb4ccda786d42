r"""A reward function of one's own, for problems of one's own files.

  python -m pkpo_jax.main --config=configs/maze_tiny.py --workdir=runs/own_reward \
    --config.task.name=jsonl_problems --config.task.source=examples/problems.jsonl \
    --config.task.verifier=examples/reward.py:closeness --config.task.reward=score \
    --config.task.num_held_out=16 --config.eval.num_prompts=16

It runs in worker processes. If it hangs or ends its process, the completion counts as not judged.
"""

import re


def closeness(problem: dict, completion: str) -> dict:
  """Returns a reward in [0, 1] that is the larger the closer a number is to the right one.

  Args:
    problem: the row of the file, a dict.
    completion: what the model has written.

  Returns: 'reward'; 'success', which pass@k counts; 'answer', which votes count. True, False or a
    number in place of the dict would do, too.
  """
  numbers = re.findall(r'-?\d+', completion)
  if not numbers:
    return {'reward': 0.0, 'success': False}
  answer = int(numbers[-1][:12])
  distance = abs(answer - problem['answer'])
  return {'reward': 1 / (1 + distance), 'success': distance == 0, 'answer': str(answer)}

"""Trains the quickstart's mazes with other rewards and in bfloat16, from one warm start a seed.

python -m experiments.maze_rewards.sweep [--workers=2] [--smoke]
"""

from pathlib import Path

from experiments.mazes import Study

RESULTS = Path(__file__).parent / 'results'
_SHARE = {'task.reward': 'share'}
_BFLOAT16 = {'policy.dtype': 'bfloat16'}
_NOISE = (0.1, 0.3, 0.5)
STUDY = Study(
  'maze_rewards',
  methods={
    'k1': {'advantage.k': 1},
    'k8': {'advantage.k': 8},
    'k1_share': {'advantage.k': 1} | _SHARE,
    'k8_share': {'advantage.k': 8} | _SHARE,
    **{f'k1_noise_{noise}': {'advantage.k': 1, 'task.reward_noise': noise} for noise in _NOISE},
    'k8_bfloat16': {'advantage.k': 8} | _BFLOAT16,
    'k8_bfloat16_ratios': {'advantage.k': 8, 'loss.name': 'ppo'} | _BFLOAT16,
  },
  pairs=(
    ('k8', 'k1'),
    ('k1_share', 'k1'),
    ('k8_share', 'k8'),
    ('k8_share', 'k1_share'),
    *[(f'k1_noise_{noise}', 'k1') for noise in _NOISE],
    ('k8_bfloat16', 'k8'),
    ('k8_bfloat16_ratios', 'k8_bfloat16'),
  ),
  small=('k8_share', 'k1_noise_0.3', 'k8_bfloat16_ratios'),
)


if __name__ == '__main__':
  STUDY.main(RESULTS)

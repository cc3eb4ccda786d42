"""Trains the quickstart's mazes with many methods from one warm start a seed, at equal compute.

python -m experiments.maze_methods.sweep [--workers=2] [--smoke]
"""

from pathlib import Path

from experiments.mazes import KS, Study

RESULTS = Path(__file__).parent / 'results'
_PASSK = {'advantage.k': 8}
_STEP = {'advantage.schedule.name': 'step', 'advantage.schedule.at': 100}
_THREE = {'advantage.schedule.name': 'pass1_passk_pass1'}
_THREE |= {'advantage.schedule.begin': 25, 'advantage.schedule.end': 100}
_FREE = {'optimizer.max_grad_norm': 100.0}
STUDY = Study(
  'maze_methods',
  methods={
    **{f'k{k}': {'advantage.k': k} for k in KS[:-1]},
    'analytical': _PASSK | {'advantage.name': 'passk_analytical'},
    'bootstrap': _PASSK | {'advantage.name': 'passk_bootstrap'},
    'full_sampling': _PASSK | {'advantage.name': 'passk_full_sampling'},
    'combination': _PASSK | {'advantage.name': 'passk_combination'},
    'adaptive': _PASSK | {'advantage.name': 'passk_adaptive'},
    'maxrl': {'advantage.name': 'maxrl'},
    'k8_then_1': _PASSK | _STEP,
    'k1_8_1': _PASSK | _THREE,
    'k1_unclipped': {'advantage.k': 1} | _FREE,
    'k8_unclipped': _PASSK | _FREE,
  },
  pairs=(
    *[(f'k{k}', 'k1') for k in KS[1:-1]],
    *[(name, 'full_sampling') for name in ('bootstrap', 'analytical')],
    ('analytical', 'bootstrap'),
    *[(name, 'analytical') for name in ('combination', 'adaptive', 'k8')],
    *[(name, 'k1') for name in ('maxrl', 'k8_then_1', 'k1_8_1')],
    ('k1_unclipped', 'k1'),
    ('k8_unclipped', 'k8'),
  ),
  small=('k8', 'analytical'),
)


if __name__ == '__main__':
  STUDY.main(RESULTS)

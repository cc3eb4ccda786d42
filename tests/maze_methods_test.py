"""The comparisons of methods on mazes: what their rows are made of."""

import json

import numpy as np
import pytest

from experiments import mazes
from experiments.maze_methods.sweep import STUDY
from experiments.maze_rewards.sweep import STUDY as REWARDS
from pkpo_jax.workdir import flatten


@pytest.mark.parametrize('study', [STUDY, REWARDS], ids=lambda study: study.name)
def test_every_method_is_the_quickstart_with_its_changes(study):
  plain = flatten(study.job('k8', 1).load().to_dict())
  assert plain['seed'] == 1 and plain['advantage.k'] == 8
  for method, changes in study.methods.items():
    fields = flatten(study.job(method, 1).load().to_dict())
    assert {name: fields[name] for name in changes} == changes
    others = fields.keys() & plain.keys() - changes.keys() - {'advantage.k'}
    assert {name: fields[name] for name in others} == {name: plain[name] for name in others}
  assert {name for pair in study.pairs for name in pair} == set(study.methods)
  assert set(study.small) < set(study.methods)
  assert mazes.warm(3).load().rollout.source == 'demonstrations'


def test_trainings_of_two_comparisons_in_one_workdir_are_one_training():
  for method in STUDY.methods.keys() & REWARDS.methods.keys():
    assert STUDY.job(method, 2) == REWARDS.job(method, 2)


def test_the_end_of_a_run_and_its_share_of_clipped_steps(tmp_path):
  evaluation = {f'eval/pass@{k}': k / 100 for k in mazes.KS} | {'eval/entropy': 0.5}
  lines = [{'step': 0, **evaluation, 'eval/pass@1': 0.0}]
  for step, norm in enumerate((0.5, 1.5, 2.0, 1.0)):
    lines.append({'step': step, 'train/cumulative_solve_rate': step / 10, 'train/grad_norm': norm})
  lines.append({'step': 4, **evaluation})
  (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  found = mazes.end(tmp_path)
  assert found['pass@1'] == 0.01 and found['pass@16'] == 0.16 and found['entropy'] == 0.5
  assert found['solved'] == 0.3 and found['clipped_share'] == 0.5


def test_differences_are_paired_by_seed():
  rng = np.random.default_rng(0)
  offsets = rng.normal(size=3)  # Of the seeds; the same for all methods.
  rows = [
    {'method': method, 'seed': seed, **dict.fromkeys(mazes.MEASURES, offset + (method == 'k8'))}
    for method in STUDY.methods
    for seed, offset in enumerate(offsets)
  ]
  found = {
    (row['method'], row['baseline'], row['measure']): row
    for row in mazes.paired_rows(rows, STUDY.pairs)
  }
  row = found['k8', 'k1', 'pass@8']
  assert row['difference'] == pytest.approx(1) and row['standard_error'] == pytest.approx(
    0, abs=1e-9
  )
  assert row['num_seeds_above'] == row['num_seeds'] == 3
  assert found['k2', 'k1', 'pass@8']['difference'] == 0

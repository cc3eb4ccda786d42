"""The quickstart: its config, and what the README says of its table, in the committed seeds."""

from pathlib import Path

import pytest

from configs import default, quickstart
from experiments import results
from experiments.quickstart_seeds import sweep
from pkpo_jax.run import make_run

ROWS = Path(sweep.__file__).parent / 'results' / 'seeds.csv'


def test_every_claim_holds_in_nine_of_ten_seeds():
  rows = results.read_rows(ROWS)
  seeds = {row['seed'] for row in rows}
  assert len(seeds) == sweep.NUM_SEEDS == 10
  assert len(rows) == 3 * len(seeds)
  counts = sweep.count_seeds(rows)
  assert set(counts) == set(sweep.CLAIMS)
  assert min(counts.values()) >= 9, counts


def test_seeds_in_which_a_claim_holds_are_counted(monkeypatch):
  values = {'pass@1': (0.3, 0.2, 0.1), 'pass@8': (0.2, 0.2, 0.3)}
  rows = [
    {'seed': seed, 'trained_on': label, 'pass@1': value}
    for label, group in values.items()
    for seed, value in enumerate(group)
  ]
  claims = (('pass@1', 'pass@1', 'pass@8'), ('pass@1', 'pass@8', 'pass@1'))
  monkeypatch.setattr(sweep, 'CLAIMS', claims)
  assert list(sweep.count_seeds(rows).values()) == [1, 1]


@pytest.mark.parametrize('arg', [None, 'warm', 'quick', 'warm_quick'])
def test_variants_of_the_config(arg):
  config = quickstart.get_config(arg)
  settings = make_run(config).settings
  assert (settings.rollout.source == 'demonstrations') == ('warm' in (arg or ''))
  assert config.policy.preset == 'gemma2_micro'
  assert config.task.size < default.task('maze').size
  # The longest demonstration and its end.
  assert config.task.max_moves + 1 <= config.policy.max_new_tokens
  if 'quick' in (arg or ''):
    assert settings.eval.every < settings.num_train_steps <= 10

"""The benchmark beside OrderGrad, with a stand-in for it, whose first rank is the best, too."""

import sys

import pytest
from benchmarks_runs_test import rows_of

from benchmarks import ordergrad

STAND_IN = """
import dataclasses
import numpy as np
from pkpo_jax import order_statistic

@dataclasses.dataclass
class OrderStatTransform:
  k: int
  a: object = None

  @classmethod
  def precompute(cls, n, k, *, dtype):
    return cls(k)

  def with_lstat_weights(self, a):
    return OrderStatTransform(self.k, a)

  def lstat_advantage(self, x):
    ranks = tuple(float(w) for w in np.asarray(self.a)[::-1])
    return order_statistic(x, k=self.k, rank_weights=ranks) / self.k
"""


def test_it_compares(tmp_path, monkeypatch):
  folder = tmp_path / 'clone' / 'ordergrad'
  folder.mkdir(parents=True)
  (folder / '__init__.py').touch()
  (folder / 'jax_backend.py').write_text(STAND_IN)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  ordergrad.main(['--quick', '--ordergrad', str(folder.parent), '--outdir', str(tmp_path)])
  rows = rows_of(tmp_path / 'ordergrad_cpu.csv')
  assert len(rows) == 8
  for row in rows:
    assert float(row['ordergrad/ours']) > 0
    if row['statistic'] == 'max':
      assert max(float(row['our_error']), float(row['ordergrad_error'])) < 1e-6


def test_a_missing_clone_is_one_line(tmp_path, capsys):
  with pytest.raises(SystemExit):
    ordergrad.main(['--ordergrad', str(tmp_path)])
  assert 'expected a clone of github.com/paavo5/ordergrad' in capsys.readouterr().err

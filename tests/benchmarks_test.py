"""The kernel benchmark, in its smallest form, writes the rows it should; no time is judged."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest

import pkpo_jax
from benchmarks import kernels, numpy_pkpo


@pytest.fixture(scope='module')
def outdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('benchmarks')
  kernels.main(['--quick', '--large', '--outdir', str(folder)])
  return folder


@pytest.fixture(scope='module')
def rows(outdir):
  lines = (outdir / 'kernels_cpu.csv').read_text().splitlines()
  return list(csv.DictReader(line for line in lines if not line.startswith('#')))


def test_header_says_how_the_results_came_about(outdir):
  lines = (outdir / 'kernels_cpu.csv').read_text().splitlines()
  names = [line[2:].partition(':')[0] for line in lines if line.startswith('#')]
  assert names == ['command', 'commit', 'hardware', 'versions', 'date', 'seed']
  arguments = f'--quick --large --outdir {outdir.name}'  # No path of one machine.
  assert lines[0] == f'# command: python -m benchmarks.kernels {arguments}'


def test_every_kernel_is_timed_on_every_shape_beside_its_rivals(rows):
  speed = [row for row in rows if row['table'] == 'speed']
  assert {(row['kernel'], row['prompts'], row['n']) for row in speed} == {
    (kernel, *shape)
    for kernel in kernels.RIVALS
    for shape in (('8', '16'), ('1', '512'), ('32', '16'))
  }
  columns = ('ours_ms', 'numpy_ms', 'sort_ms', 'numpy/ours', 'ours/sort', 'copy_ms', 'ours/copy')
  assert all(float(row[column]) > 0 for row in speed for column in columns)


def test_cost_is_normalised_to_the_first_size(rows):
  scaling = [row for row in rows if row['table'] == 'scaling']
  assert [row['n'] for row in scaling] == ['256', '1024']
  assert float(scaling[0]['ours_per_nlogn']) == float(scaling[0]['sort_per_nlogn']) == 1


def test_compilations_are_counted(rows):
  counts = {row['k_is']: row['num_compilations'] for row in rows if row['table'] == 'compilation'}
  assert counts == {'traced': '1', 'static': '4'}


def test_the_vote_is_timed_beside_the_maximum(rows):
  (row,) = [row for row in rows if row['table'] == 'majority']
  assert (row['kernel'], row['prompts'], row['n']) == ('maj_at_k', '4', '8')
  assert float(row['ours/max']) == pytest.approx(
    float(row['ours_ms']) / float(row['max_ms']), rel=1e-3
  )


def test_markdown_holds_every_row(outdir, rows):
  tables = [
    line for line in (outdir / 'kernels_cpu.md').read_text().splitlines() if line[:1] == '|'
  ]
  assert len(tables) == len(rows) + 2 * len(kernels.TABLES)


@pytest.mark.parametrize('power', [1.0, 2.0])
def test_exponent_of_exact_costs(power):
  n = 2 ** np.arange(10, 20)
  costs = 3e-5 * (n * np.log2(n)) ** power
  rows = [{'n': int(n), 'ours_ms': float(cost)} for n, cost in zip(n, costs, strict=True)]
  np.testing.assert_allclose(kernels.exponent(rows, 'ours_ms'), power)


def test_a_wrong_kernel_is_found_before_it_is_timed():
  rewards = kernels.draw_rewards(3, 16)
  rival = kernels.loop(numpy_pkpo.s, rewards.astype(np.float64))
  ours = pkpo_jax.pkpo(jnp.asarray(rewards), k=kernels.K) / 16
  kernels.check_equal('pkpo', ours, rival)
  with pytest.raises(AssertionError, match='pkpo is not what NumPy finds'):
    kernels.check_equal('pkpo', ours, 1.001 * rival)


def test_the_rival_on_the_worked_example():
  g = np.array([3.0, 1, 4, 1, 5, 9, 2, 6])
  s = np.array([125 / 56, 31 / 14, 16 / 7, 31 / 14, 67 / 28, 27 / 8, 31 / 14, 18 / 7])
  s_loo = [-1361 / 1960, -71 / 98, -148 / 245, -71 / 98, -83 / 196, 69 / 56, -71 / 98, -6 / 49]
  s_loo1 = [1 / 14, 0, 5 / 28, 0, 5 / 14, 7 / 4, 1 / 56, 5 / 8]
  np.testing.assert_allclose(numpy_pkpo.s(g, 3), s)
  np.testing.assert_allclose(numpy_pkpo.s_loo(g, 3), s_loo)
  np.testing.assert_allclose(numpy_pkpo.s_loo1(g, 3), s_loo1, atol=1e-12)

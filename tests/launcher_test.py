"""The launcher of sweeps trains what is missing, resumes what was cut, says what failed."""

import json
import shutil

import pytest

from experiments import launcher
from experiments.launcher import Job, product_jobs, run_jobs, steps_done


def _job(tmp_path, name='run', **overrides):
  overrides = {'advantage.k': 2, 'log.tensorboard': False, **overrides}
  return Job(tmp_path / name, 'bandit:hidden_answer_quick', overrides)


def test_a_command_says_all_that_the_job_says(tmp_path):
  command = _job(tmp_path).command()
  assert '--config=configs/bandit.py:hidden_answer_quick' in command
  assert f'--workdir={tmp_path}/run' in command
  assert '--config.advantage.k=2' in command
  assert Job(tmp_path, 'bandit', {}).command()[3] == '--config=configs/bandit.py'
  assert _job(tmp_path).load().advantage.k == 2


def test_missing_runs_are_trained_and_finished_ones_are_left_alone(tmp_path, monkeypatch):
  root = tmp_path / 'runs' / 'sweep'
  jobs = [_job(root, f'seed{seed}', seed=seed) for seed in range(2)]
  run_jobs(jobs, 2, 'sweep')  # It makes the folder of its runs.
  assert {x.name for x in root.iterdir()} >= {'seed0', 'seed0.log', 'seed1', 'seed1.log'}
  for seed, job in enumerate(jobs):
    assert steps_done(job) == 20
    config = json.loads((job.workdir / 'config.json').read_text())
    assert config['seed'] == seed and config['advantage']['k'] == 2
  lines = [(job.workdir / 'metrics.jsonl').read_bytes() for job in jobs]
  assert lines[0] != lines[1]

  # As if killed between the last line and the last checkpoint.
  shutil.rmtree(jobs[1].workdir / 'checkpoints' / '20')
  run_jobs(jobs, 1, 'sweep')
  assert launcher.is_finished(jobs[1])

  def start(*arguments):
    raise AssertionError('started a finished run')

  monkeypatch.setattr(launcher, '_start', start)
  run_jobs(jobs, 2, 'sweep')
  with pytest.raises(ValueError, match='advantage.k: 2 there, 4 now'):
    run_jobs([_job(root, 'seed0', seed=0, **{'advantage.k': 4})], 1, 'sweep')


def test_a_failure_names_the_log(tmp_path):
  with pytest.raises(RuntimeError, match=r'run: training stopped; see .*run\.log'):
    run_jobs([_job(tmp_path, **{'advantage.k': 99})], 1, 'sweep')
  assert 'advantage.k: expected 1 <= k <= n = 16, got 99' in (tmp_path / 'run.log').read_text()


def test_a_line_cut_short_does_not_count(tmp_path):
  job = _job(tmp_path)
  assert steps_done(job) == 0
  job.workdir.mkdir()
  (job.workdir / 'metrics.jsonl').write_text('{"step": 3}\n{"step": 4}\n{"step": 5, "tr')
  assert steps_done(job) == 4


def test_every_combination_of_values_is_a_run(tmp_path):
  values = {
    'advantage.k': [1, 8],
    'advantage.name': ['grpo', 'rs_grpo'],
    'task.name': ['safe_risky'],
  }
  jobs = product_jobs(
    'configs/bandit.py:hidden_answer_quick', tmp_path, values, 2, {'log.every': 3}
  )
  assert len(jobs) == len({job.workdir for job in jobs}) == 8
  assert jobs[0].workdir.name == 'k1_advantage_namegrpo_task_namesafe_risky_seed0'
  config = jobs[-1].load()
  assert (config.advantage.k, config.advantage.name, config.advantage.beta) == (8, 'rs_grpo', 2.0)
  assert config.task.prizes and 'num_arms' not in config.task
  assert (config.seed, config.log.every) == (1, 3)


@pytest.mark.parametrize(
  'text, values',
  [
    ('1,8', [1, 8]),
    ('0.1', [0.1]),
    ('grpo,rloo', ['grpo', 'rloo']),
    ('(4, 1),(8,)', [(4, 1), (8,)]),
    ('1,None', [1, None]),
  ],
)
def test_values_stand_between_commas(text, values):
  assert launcher._literals(text) == values

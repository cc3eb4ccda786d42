"""Samples that are kept: which, what of them, in a bounded file that a resumed run repeats."""

import contextlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX import proto

from configs import bandit, default
from pkpo_jax import ADVANTAGES, samples
from pkpo_jax.evaluate import evaluate_workdirs
from pkpo_jax.metrics import MetricWriter, read_metrics
from pkpo_jax.sample_writer import SampleWriter, choose
from pkpo_jax.samples import label, read_samples, show
from pkpo_jax.session import Session
from pkpo_jax.settings import LogSettings
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.base import Task
from pkpo_jax.tasks.grades import Grades, Verdict
from pkpo_jax.tasks.maze import verify_maze
from pkpo_jax.tasks.text import encode_completions
from pkpo_jax.tokenizers import CharacterTokenizer
from pkpo_jax.train import train
from pkpo_jax.types import Prompts, Rollout

ROOT = Path(__file__).parent.parent
MIB = 2**20


def log_settings(**changes):
  return LogSettings(**(default.get_config().log.to_dict() | changes))


# Which samples are a few.


def test_a_few_samples_have_the_best_and_the_worst():
  rng = np.random.default_rng(0)
  for _ in range(200):
    num_prompts, num_samples = rng.integers(1, 6, 2)
    rewards = rng.integers(0, 3, (num_prompts, num_samples)).astype(np.float32)
    num = int(rng.integers(0, 12))
    chosen = choose(Grades(rewards), num)
    assert len(set(chosen)) == len(chosen) == min(num, rewards.size)
    assert chosen == sorted(chosen)
    for p, places in itertools.groupby(chosen, key=lambda place: place[0]):
      of_prompt = [rewards[p, i] for _, i in places]
      if len(of_prompt) > 1:
        assert {min(of_prompt), max(of_prompt)} == {rewards[p].min(), rewards[p].max()}
    if 2 <= num and (rewards.min(1) < rewards.max(1)).any():
      assert len({rewards[place] for place in chosen}) > 1, 'a prompt with both comes first'


def test_a_few_samples_of_a_step_without_a_success_are_from_its_first_prompts():
  zeros = np.zeros((3, 2), np.float32)
  assert choose(Grades(zeros), 3) == [(0, 0), (0, 1), (1, 1)]


def test_a_sample_that_was_not_judged_ranks_below_all():
  rewards, where = np.asarray([[np.nan, 0.0, 1.0]], np.float32), np.asarray([[False, True, True]])
  assert choose(Grades(rewards, where=where), 2) == [(0, 0), (0, 2)]


# What is kept of them.


@pytest.fixture(scope='module')
def maze():
  config = default.task('maze', num_train=4, num_held_out=2, size=3, min_moves=2).to_dict()
  del config['name']
  return TASKS['maze'](CharacterTokenizer(), **config)


def mazes(task, texts, cut=()):
  """Returns prompts, and a rollout of these texts; those at the places in `cut` have no end."""
  prompts = task.prompts_of(np.arange(len(texts)))
  rollout = encode_completions(task.tokenizer, prompts, texts, 7)
  for place in cut:
    rollout.completions[place][:] = task.tokenizer.encode('U')[0]
    rollout.completion_mask[place][:] = True
  return prompts, rollout


def test_a_sample_has_its_texts_its_verdict_and_its_lengths(maze, tmp_path):
  texts = [['RRDD', 'x', '', 'UUUUUU'], ['U ', 'LL', 'DD', 'R']]
  prompts, rollout = mazes(maze, texts, cut=[(1, 3)])
  writer = SampleWriter(tmp_path / 'samples.jsonl', maze, 'eval', log_settings())
  writer.add(5, prompts, rollout, maze.grade(prompts, rollout, jax.random.key(0)))
  few = writer.write()
  kept = read_samples(tmp_path / 'samples.jsonl')
  assert [(x['group'], x['sample']) for x in kept] == list(np.ndindex(2, 4))
  assert len(few) == 4 and all(x in kept for x in few)
  for x in kept:
    p, i = x['group'], x['sample']
    assert (x['step'], x['split'], x['prompt_id']) == (5, 'eval', p)
    if (p, i) == (1, 3):
      assert (x['completion'], x['num_tokens'], x['is_truncated']) == ('U' * 7, 7, True)
      assert (x['verdict'], x['answer'], x['reward']) == ('overlong', None, 0.0)
      continue
    verdict = verify_maze(x['prompt'].splitlines()[:-1], texts[p][i])
    assert (x['completion'], x['num_tokens']) == (texts[p][i], len(texts[p][i]) + 1)
    assert x['is_truncated'] is False
    assert (x['verdict'], x['answer']) == (verdict.kind, verdict.answer)
    assert (x['reward'], x['success']) == (verdict.reward, verdict.is_success)
  assert {x['verdict'] for x in kept} >= {'wrong', 'empty', 'malformed', 'overlong'}


def test_what_the_judge_failed_on_has_no_reward(maze, tmp_path):
  prompts, rollout = mazes(maze, [['U', 'D']])
  grades = Grades(
    np.asarray([[np.nan, 0.1]], np.float32),
    np.asarray([[np.nan, 0.0]], np.float32),
    np.asarray([[False, True]]),
    [[Verdict('unjudged'), Verdict('wrong', 'D', 0.1)]],
  )
  writer = SampleWriter(tmp_path / 'samples.jsonl', maze, 'train', log_settings())
  advantages = np.asarray([[0.0, -0.3]], np.float32)
  writer.add(0, prompts, rollout, grades, advantages=advantages, k=np.int32(2))
  writer.write()
  unjudged, wrong = read_samples(tmp_path / 'samples.jsonl')
  assert (unjudged['verdict'], unjudged['reward'], unjudged['success']) == ('unjudged', None, None)
  assert (wrong['reward'], wrong['success'], wrong['advantage'], wrong['k']) == (
    0.1,
    False,
    -0.3,
    2,
  )
  assert 'reward' not in show([unjudged]) and 'advantage -0.3' in show([wrong])


# The file and its bound.


class Sized(Task):
  """Completions are as many characters as their only token says."""

  completions = 'arms'
  prompts = held_out = grade = None

  def texts(self, prompts, rollout):
    return [''] * len(prompts.ids), [
      ['x' * int(i) for i in group[:, 0]] for group in rollout.completions
    ]


def write_sized(writer, step, size, num_samples=2):
  """Writes a step of `num_samples` samples of `size` characters each."""
  completions = np.full((1, num_samples, 1), size, np.int32)
  ones, mask = np.ones((1, 1), np.int32), np.ones((1, 1), bool)
  rollout = Rollout(ones, mask, completions, completions > 0, np.zeros(completions.shape))
  grades = Grades(np.zeros((1, num_samples), np.float32))
  writer.add(step, Prompts(ones[0], ones, mask, ()), rollout, grades)
  writer.write()


def sized_writer(path, first_step=0, split='train'):
  return SampleWriter(path, Sized(), split, log_settings(max_samples_mib=1), first_step)


@pytest.mark.parametrize('seed', range(5))
def test_the_file_has_the_newest_steps_that_fit_and_a_kill_changes_nothing(seed, tmp_path):
  rng, path, killed = random.Random(seed), tmp_path / 'whole', tmp_path / 'killed'
  sizes = [rng.choice([1000, 60_000, 400_000]) for _ in range(30)]
  writer, blocks = sized_writer(path), []
  for step, size in enumerate(sizes):
    write_sized(writer, step, size)
    alone = tmp_path / f'{step}'
    write_sized(sized_writer(alone), step, size)
    blocks.append(alone.read_bytes())
    ends = [b''.join(blocks[i:]) for i in range(len(blocks))]
    assert path.read_bytes() == next(end for end in ends if len(end) <= MIB)
  assert len(ends[0]) > 2 * MIB
  step = 0
  while step < len(sizes):
    resumed = sized_writer(killed, step)
    reached = min(len(sizes), step + rng.randint(1, 20))
    for i in range(step, reached):
      write_sized(resumed, i, sizes[i])
    if reached < len(sizes):
      with killed.open('ab') as file:
        file.write(blocks[reached][: rng.randint(0, 50)])
    step = reached if reached == len(sizes) else rng.randint(step, reached)
  assert killed.read_bytes() == path.read_bytes()


def test_a_step_that_does_not_fit_says_how_many_were_left_out(tmp_path, capsys):
  path = tmp_path / 'samples.jsonl'
  writer = sized_writer(path, split='eval')
  write_sized(writer, 0, 10)
  write_sized(writer, 5, 100_000, num_samples=16)
  assert path.stat().st_size <= MIB < 11 * 100_000
  *kept, note = [json.loads(line) for line in path.read_text().splitlines()]
  assert [(x['step'], x['sample']) for x in kept] == [(5, i) for i in range(10)]
  assert note == {'step': 5, 'split': 'eval', 'left_out': 6}
  assert '10 of 16 samples of step 5 were kept' in capsys.readouterr().err
  assert read_samples(path) == kept
  samples.main([str(path)])
  assert '6 more were not kept' in capsys.readouterr().out
  write_sized(writer, 10, 60_000)
  assert {x['step'] for x in read_samples(path)} == {10}, 'a step is dropped with its note'


def test_a_damaged_line_is_named(tmp_path):
  path = tmp_path / 'samples.jsonl'
  path.write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
  with pytest.raises(ValueError, match='samples.jsonl, line 2: expected JSON'):
    read_samples(path)


# Runs.


def config_of(**changes):
  config = bandit.get_config()
  config.update_from_flattened_dict(
    {
      'num_train_steps': 7,
      'task.num_contexts': 2,
      'task.num_arms': 4,
      'rollout.num_prompts': 4,
      'rollout.num_samples': 4,
      'advantage.name': 'rloo',
      'advantage.k': 1,
      'eval.every': 3,
      'eval.ks': (1, 2),
      'eval.num_prompts': 8,
      'eval.num_samples': 2,
      'checkpoint.every': 2,
      'log.every': 2,
      'log.samples_per_step': 8,
    }
    | changes
  )
  return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The workdir of a run."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  train(config_of(), workdir)
  return workdir


def files_of(workdir):
  return {path.name: path.read_bytes() for path in (workdir / 'samples').iterdir()}


def test_evaluations_keep_all_samples(whole):
  rates = {x['step']: x['eval/pass@1'] for x in read_metrics(whole) if 'eval/pass@1' in x}
  assert list(rates) == [0, 3, 6, 7]
  for step, rate in rates.items():
    kept = read_samples(whole, 'eval', step)
    assert [(x['group'], x['sample']) for x in kept] == list(np.ndindex(8, 2))
    assert np.mean([x['success'] for x in kept]) == pytest.approx(rate, abs=1e-6)
    assert all(x['prompt'] == str(x['prompt_id']) and x['num_tokens'] == 1 for x in kept)


def test_logged_steps_keep_a_few_with_what_they_were_trained_with(whole):
  kept = read_samples(whole, 'train')
  assert sorted({x['step'] for x in kept}) == [0, 2, 4, 6]
  for _, group in itertools.groupby(kept, key=lambda x: (x['step'], x['group'])):
    group = list(group)
    assert [x['sample'] for x in group] == list(range(4)), '8 samples are two whole groups'
    rewards = np.asarray([x['reward'] for x in group], np.float32)
    expected = ADVANTAGES['rloo'](rewards, k=1)
    np.testing.assert_allclose([x['advantage'] for x in group], expected, atol=1e-6)
    assert {x['k'] for x in group} == {1}


@pytest.mark.parametrize('step', [3, 6])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_files(
  step, whole, tmp_path, monkeypatch
):
  log = Session.log

  def killed(self, at, *args):
    if at == step:
      raise KeyboardInterrupt
    log(self, at, *args)

  with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
    patch.setattr(Session, 'log', killed)
    train(config_of(), tmp_path / 'run')
  assert files_of(tmp_path / 'run') != files_of(whole)
  for path in (tmp_path / 'run' / 'samples').iterdir():
    with path.open('a') as file:
      file.write('{"step": ')
  train(config_of(), tmp_path / 'run')
  assert files_of(tmp_path / 'run') == files_of(whole)


@pytest.mark.parametrize(
  'changes, names',
  [({'samples_per_step': 0}, ['eval.jsonl']), ({'max_samples_mib': 0}, [])],
)
def test_zero_keeps_none(changes, names, tmp_path):
  train(config_of(num_train_steps=1, **{f'log.{x}': y for x, y in changes.items()}), tmp_path)
  assert [path.name for path in tmp_path.glob('samples/*')] == names


@pytest.mark.parametrize('field', ['samples_per_step', 'max_samples_mib'])
def test_less_than_zero_is_refused(field):
  with pytest.raises(ValueError, match=f'{field}: expected at least 0, got -1'):
    log_settings(**{field: -1})


def texts_of(workdir):
  """Returns (step, tag, text) of each text in the event file of a folder."""
  (path,) = (workdir / 'tensorboard').iterdir()
  data, found = path.read_bytes(), []
  while data:
    # A record: length (8 bytes), its checksum (4), an event, the event's checksum (4).
    length = int.from_bytes(data[:8], 'little')
    event = proto.event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
    for value in event.summary.value:
      if value.metadata.plugin_data.plugin_name == 'text':
        found.append((event.step, value.tag, value.tensor.string_val[0].decode()))
  return found


def test_tensorboard_shows_a_few_samples_of_each_evaluation(whole):
  texts = texts_of(whole)
  assert [(step, tag) for step, tag, _ in texts] == [
    (step, 'eval/samples/text_summary') for step in (0, 3, 6, 7)
  ]
  for step, _, text in texts:
    assert text.count(' sample ') == 8
    assert all(line.startswith('    ') for line in text.splitlines()), 'no Markdown'
    blocks = [show([x]).splitlines()[2:] for x in read_samples(whole, 'eval', step)]
    shown = [line.removeprefix('    ') for line in text.splitlines()]
    pairs = list(itertools.pairwise(shown))
    assert all(
      tuple(block) in {tuple(x) for x in blocks} for block in pairs if ' sample ' in block[0]
    )


def test_a_text_without_samples_is_none(tmp_path):
  with MetricWriter(tmp_path, 0, True) as writer:
    writer.write_text(0, 'eval/samples', '')
  assert texts_of(tmp_path) == []


def test_the_command_that_evaluates_keeps_samples(whole, tmp_path):
  config = json.loads((whole / 'config.json').read_text())
  report = evaluate_workdirs(config, [whole, whole], 'latest', 0, 2, output=tmp_path)
  assert report['num_pieces'] == 4
  for name, run in zip(('samples', 'other_samples'), report['runs'], strict=True):
    kept = read_samples(tmp_path / f'{name}.jsonl', step=7)
    assert [(x['group'], x['sample']) for x in kept] == list(np.ndindex(8, 2))
    rate = np.mean([x['success'] for x in kept])
    assert rate == pytest.approx(run['curves']['pass@k']['mean'][0], abs=1e-6)
  assert read_samples(tmp_path) == read_samples(tmp_path / 'samples.jsonl')


# The command.


def shown(capsys, *arguments):
  samples.main([str(argument) for argument in arguments])
  return capsys.readouterr().out


def test_the_command_shows_a_step(whole, capsys):
  text = shown(capsys, whole)
  last = read_samples(whole, step='last')
  num_right = sum(x['success'] for x in last)
  assert 'there are steps 0, 3, 6, 7' in text and 'step 7: 16 samples of 8 prompts: ' in text
  assert f'{num_right} right' in text and f'mean reward {num_right / 16:.4f}' in text
  assert text.count(' sample ') == 10 and '10 of 16 samples, evenly spaced' in text
  assert shown(capsys, whole, '--num=16').count(' sample ') == 16
  assert shown(capsys, whole, '--num=16').count('prompt ') == 8, 'each prompt once'
  few = shown(capsys, whole, '--split=train', '--step=4')
  assert 'step 4: 8 samples of 2 prompts kept: ' in few and 'k = 1' in few and 'advantage' in few


def test_the_command_picks(whole, capsys):
  lines = shown(capsys, whole, '--step=3', '--verdict=wrong', '--prompt_id=1', '--json')
  expected = [x for x in read_samples(whole, step=3) if x['prompt_id'] == 1 and not x['success']]
  assert [json.loads(line) for line in lines.splitlines()] == expected != []
  assert read_samples(whole, step=3, verdicts=['wrong'], prompt_id=1) == expected
  assert len(shown(capsys, whole, '--json', '--num=3').splitlines()) == 3


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--step=1'], 'no samples of step 1; there are steps 0, 3, 6, 7'),
    (['--verdict=hostile,empty'], r'no samples that are hostile or empty; there are \d+ '),
    (['--prompt_id=9'], 'no samples of prompt 9; there are prompts 0, 1'),
  ],
)
def test_the_command_says_what_there_is(arguments, message, whole):
  with pytest.raises(SystemExit, match=f'^.*eval.jsonl: {message}.*$'):
    samples.main([str(whole), *arguments])


def test_the_command_names_a_file_that_is_not_there(whole, tmp_path):
  with pytest.raises(SystemExit, match='nope: expected the workdir of a run, found no such folder'):
    samples.main([str(tmp_path / 'nope')])
  with pytest.raises(SystemExit, match='eval.jsonl: no such file .* log.max_samples_mib > 0'):
    samples.main([str(tmp_path)])
  (tmp_path / 'samples').mkdir()
  (tmp_path / 'samples' / 'eval.jsonl').touch()
  with pytest.raises(SystemExit, match='train.jsonl: no such file .* --split=eval is there'):
    samples.main([str(tmp_path), '--split=train'])
  with pytest.raises(SystemExit, match='no samples of step last; there are none'):
    samples.main([str(tmp_path)])


@pytest.mark.parametrize('argument', ['--step=first', '--num=0', '--split=test'])
def test_the_command_refuses_values(argument, whole, capsys):
  with pytest.raises(SystemExit) as stopped:
    samples.main([str(whole), argument])
  assert stopped.value.code == 2
  assert argument.split('=')[0] in capsys.readouterr().err.splitlines()[-1]


def sample_of(completion, **changes):
  return {
    'step': 0,
    'split': 'eval',
    'prompt_id': 3,
    'group': 0,
    'sample': 0,
    'prompt': '1+1=',
    'completion': completion,
    'num_tokens': 9,
    'is_truncated': False,
    'verdict': 'wrong',
    'answer': None,
    'reward': 0.0,
    'success': False,
  } | changes


def test_long_texts_lose_their_middle():
  text = 'a' * 700 + 'b' * 900 + 'c' * 700
  cut = show([sample_of(text)])
  assert 'b' * 100 not in cut and '[... 1300 characters ...]' in cut
  assert cut.count('a' * 500) == cut.count('c' * 500) == 1
  assert text in show([sample_of(text)], full=True)


def test_a_terminal_does_not_obey_what_is_shown():
  assert r'\x1b[2Jred\r' in show([sample_of('\x1b[2Jred\r')])
  assert '| été\n' in show([sample_of('été\nà')])


def test_facts_of_a_sample():
  head = lambda **changes: show([sample_of('12', **changes)]).splitlines()[2]
  assert head() == '  sample 0: wrong, reward 0, 9 tokens'
  assert head(answer='12') == head(), 'an answer that is the completion is not repeated'
  assert head(answer='11').endswith(", answer '11'")
  assert head(is_truncated=True, num_tokens=1).endswith('1 token, cut off')
  assert label(sample_of('', verdict=None, success=None)) is None


def test_the_command_starts_without_the_trainer(whole):
  program = """
import sys
sys.argv = ['samples', sys.argv[1]]
from pkpo_jax import samples
samples.main()
print(*sorted({'flax', 'gemma', 'grain', 'optax', 'orbax', 'absl'} & set(sys.modules)), sep='!')
"""
  run = subprocess.run(
    [sys.executable, '-c', program, whole], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert run.stdout.splitlines()[-1] == ''

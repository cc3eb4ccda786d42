"""Several processes train one run: the numbers of one, and no end of one that the others miss."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.common import free_port
from tests.interruptions import command_process, verifiers_of

# So long that a signal in the middle comes before the end.
BANDIT = ['--config=configs/bandit.py:quick', '--config.num_train_steps=60']
BANDIT += ['--config.log.tensorboard=False']
BANDIT += ['--config.rollout.num_prompts=8', '--config.rollout.num_samples=4']
BANDIT += ['--config.advantage.k=2', '--config.eval.ks=(1,2)', '--config.eval.num_prompts=8']
BANDIT += ['--config.mesh.data=-1', '--config.log.every=1', '--config.checkpoint.every=5']
TEXT = ['--config=tests/processes_config.py']


class Processes:
  """One command in several processes, each with its output in a file."""

  def __init__(self, folder, count, arguments, of_last=()):
    """Starts them; the last also gets the arguments `of_last`, instead of those of this name."""
    address = f'127.0.0.1:{free_port()}'
    self._outputs = [folder / f'output_{i}.txt' for i in range(count)]
    self.processes = []
    for i, output in enumerate(self._outputs):
      own = [*arguments, *(of_last if i == count - 1 else ())]
      own += [f'--coordinator_address={address}', f'--num_processes={count}', f'--process_id={i}']
      self.processes.append(command_process(own, output))

  def wait(self, timeout_s=240):
    """Returns the exit codes, after at most so many seconds."""
    end = time.monotonic() + timeout_s
    for process in self.processes:
      process.join(max(end - time.monotonic(), 0.1))
    return [process.exitcode for process in self.processes]

  def output(self, i):
    return self._outputs[i].read_text()

  def wait_for_line(self, i, beginning, timeout_s=20):
    """Returns the line that process i, or its companion, writes, which begins so."""
    end = time.monotonic() + timeout_s
    while True:
      for line in self.output(i).splitlines():
        if line.startswith(beginning):
          return line
      assert time.monotonic() < end, self.output(i)
      time.sleep(0.1)

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    for process in self.processes:
      process.kill()
      process.join()


def _run(folder, count, arguments):
  """Trains to the end in several processes; returns their outputs."""
  with Processes(folder, count, arguments) as run:
    codes = run.wait()
    outputs = [run.output(i) for i in range(count)]
  assert codes == [0] * count, outputs
  return outputs


def _metrics(workdir):
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [{k: v for k, v in line.items() if not k.startswith('time/')} for line in lines]


def _assert_same(workdir, other, steps=slice(None)):
  """Compares the metrics to rounding, and the samples."""
  ours, theirs = _metrics(workdir)[steps], _metrics(other)[steps]
  assert len(ours) == len(theirs)
  for mine, its in zip(ours, theirs, strict=True):
    # The largest difference between trainer and sampler is itself one of rounding.
    assert mine == pytest.approx(its, rel=2e-5, abs=2e-6)
  for split in ('train', 'eval'):
    texts = [
      [
        json.loads(line)['completion']
        for line in (x / f'samples/{split}.jsonl').read_text().splitlines()
      ]
      for x in (workdir, other)
    ]
    assert texts[0] == texts[1] and texts[0]


def _wait_for_step(workdir, step, run):
  """Returns once the run has written the metrics of a step."""
  path, end = workdir / 'metrics.jsonl', time.monotonic() + 120
  while not path.exists() or len(path.read_text().splitlines()) <= step:
    assert time.monotonic() < end and run.processes[0].is_alive(), run.output(0)
    time.sleep(0.05)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """The workdir of a run of the language model in one process."""
  folder = tmp_path_factory.mktemp('alone')
  _run(folder, 1, [*TEXT, f'--workdir={folder / "run"}'])
  return folder / 'run'


@pytest.fixture(scope='module')
def four(tmp_path_factory):
  """The same in four processes: each has a quarter of the weights, and half of the prompts."""
  folder = tmp_path_factory.mktemp('four')
  mesh = ['--config.mesh.data=1', '--config.mesh.fsdp=2', '--config.mesh.tensor=2']
  outputs = _run(folder, 4, [*TEXT, *mesh, f'--workdir={folder / "run"}'])
  assert 'Last evaluation' in outputs[0]
  assert all('Last evaluation' not in output for output in outputs[1:])
  return folder / 'run'


def test_four_processes_train_as_one_does(alone, four):
  _assert_same(alone, four)
  assert len({json.dumps(line) for line in _metrics(alone)}) > 5
  assert any(line.get('train/grad_norm', 0) > 1e-3 for line in _metrics(alone))


def _cut_back(workdir, folder):
  """Returns a copy of a run as it was at its last checkpoint but one."""
  copy = shutil.copytree(workdir, folder / 'run')
  steps = sorted(int(path.name) for path in (copy / 'checkpoints').iterdir())
  shutil.rmtree(copy / 'checkpoints' / str(steps[-1]))
  return copy, steps[-2]


@pytest.mark.parametrize(
  ('source', 'count', 'mesh'),
  [
    ('four', 1, ()),
    ('four', 2, ()),
    ('alone', 2, ('--config.mesh.data=1', '--config.mesh.fsdp=2')),
  ],
)
def test_a_checkpoint_of_some_processes_goes_on_in_others(
  source, count, mesh, alone, request, tmp_path
):
  workdir, step = _cut_back(request.getfixturevalue(source), tmp_path)
  outputs = _run(
    tmp_path,
    count,
    [*TEXT, '--config.mesh.fsdp=1', '--config.mesh.tensor=1', *mesh, f'--workdir={workdir}'],
  )
  assert f'at step {step}.' in outputs[0]
  _assert_same(alone, workdir)


@pytest.fixture(scope='module')
def bandit(tmp_path_factory):
  """The workdir of a bandit that two processes have trained without a break."""
  folder = tmp_path_factory.mktemp('bandit')
  _run(folder, 2, [*BANDIT, f'--workdir={folder / "run"}'])
  return folder / 'run'


# So many steps that a signal comes before the end.
LONG = ['--config.num_train_steps=100000', '--config.optimizer.decay_steps=20']
LONG += ['--config.eval.every=1000000']


def test_sigterm_to_one_saves_the_same_step_in_all(tmp_path):
  arguments = [*BANDIT, *LONG, f'--workdir={tmp_path / "run"}']
  with Processes(tmp_path, 2, arguments) as run:
    _wait_for_step(tmp_path / 'run', 7, run)
    run.processes[1].terminate()
    assert run.wait(60) == [0, 0], (run.output(0), run.output(1))
    assert 'Stopped by SIGTERM after' in run.output(0)
  saved = max(int(path.name) for path in (tmp_path / 'run/checkpoints').iterdir())
  last = _metrics(tmp_path / 'run')[-1]['step']
  assert saved == last + 1
  with Processes(tmp_path, 2, arguments) as run:
    _wait_for_step(tmp_path / 'run', saved + 3, run)
    assert f'at step {saved}.' in run.output(0)
  steps = [line['step'] for line in _metrics(tmp_path / 'run') if 'train/loss' in line]
  assert steps == list(range(len(steps)))


@pytest.mark.parametrize('victim', [0, 1])
def test_where_one_is_killed_the_other_says_so_and_the_rerun_is_exact(victim, bandit, tmp_path):
  workdir = tmp_path / 'run'
  # Slow steps, of which some come after the last checkpoint.
  with Processes(tmp_path, 2, [*BANDIT, f'--workdir={workdir}']) as run:
    _wait_for_step(workdir, 8, run)
    run.processes[victim].kill()
    codes = run.wait(60)
    assert codes[1 - victim] != 0
    run.wait_for_line(1 - victim, f'Process {victim} of 2')
  _run(tmp_path, 2, [*BANDIT, f'--workdir={workdir}'])
  assert _metrics(workdir) == _metrics(bandit)


def test_a_pool_that_dies_in_one_stops_all(tmp_path):
  arguments = ['--config=tests/processes_config.py:pool', f'--workdir={tmp_path / "run"}']
  with Processes(tmp_path, 2, arguments) as run:
    victim = run.processes[1]
    _wait_for_step(tmp_path / 'run', 0, run)
    while all(process.is_alive() for process in run.processes):
      for pid in verifiers_of(victim.pid):
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
      time.sleep(0.01)
    codes = run.wait(60)
    assert 0 not in codes
    assert 'RuntimeError' in run.output(1) and 'a worker did not start' in run.output(1)
    line = run.wait_for_line(0, 'Process 1 of 2')
    assert 'has failed: RuntimeError' in line


@pytest.mark.parametrize(
  ('of_last', 'message'),
  [
    (['--config.advantage.k=1'], 'config.advantage.k: expected the same in all processes'),
    (['--workdir={elsewhere}'], 'workdir: expected a folder that all processes share'),
    (['--config.mesh.data=1'], 'mesh.data: expected -1, or so many that'),
  ],
)
def test_what_differs_in_one_process_ends_all_before_work(of_last, message, tmp_path):
  arguments = [*BANDIT, f'--workdir={tmp_path / "run"}']
  of_last = [word.format(elsewhere=tmp_path / 'elsewhere') for word in of_last]
  with Processes(tmp_path, 2, arguments, of_last) as run:
    assert run.wait(120) == [1, 1]
    assert message in run.output(1)
    assert 'process 1 of 2' in run.output(0) and message in run.output(0)
    assert 'Traceback' not in run.output(0) + run.output(1)
  assert not (tmp_path / 'run/metrics.jsonl').exists()


def test_a_damaged_checkpoint_is_passed_over_by_all(bandit, tmp_path):
  workdir = shutil.copytree(bandit, tmp_path / 'run')
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda path: int(path.name))
  for path in (newest / 'params').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  outputs = _run(tmp_path, 2, [*BANDIT, f'--workdir={workdir}'])
  assert 'at step 55.' in outputs[0] and 'Cannot read checkpoint' in outputs[0]
  assert _metrics(workdir) == _metrics(bandit)


def test_evaluation_by_two_is_that_by_one(alone, tmp_path):
  found = {}
  for count in (1, 2):
    folder, port = tmp_path / str(count), free_port()
    command = [
      sys.executable,
      '-m',
      'pkpo_jax.evaluate',
      f'--workdir={alone}',
      f'--output={folder}',
    ]
    command += [f'--coordinator_address=127.0.0.1:{port}', f'--num_processes={count}']
    env = os.environ | {'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    runs = [
      subprocess.Popen([*command, f'--process_id={i}'], env=env, stdout=subprocess.PIPE, text=True)
      for i in range(count)
    ]
    outputs = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * count
    assert 'Figure:' in outputs[0] and not any('Figure:' in text for text in outputs[1:])
    samples = (folder / 'samples.jsonl').read_text()
    found[count] = json.loads((folder / 'evaluation.json').read_text())['runs'][0], samples
  assert found[2][1] == found[1][1]
  assert found[2][0]['curves'] == found[1][0]['curves']


def test_a_process_that_gives_no_sign_is_named(tmp_path):
  """Its companion lives; the process itself hangs."""
  code = (
    'import pathlib, sys; from pkpo_jax import watch_main as w; w.EVERY_S, w.DEADLINE_S = .1, 1;'
  )
  code += 'w.Companion(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 2).run()'
  companions = [
    subprocess.Popen(
      [sys.executable, '-c', code, str(tmp_path), str(i)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    for i in range(2)
  ]
  hanging, watching = companions
  alive = b'{"state": "alive", "reason": ""}\n'
  hanging.stdin.write(alive)
  hanging.stdin.flush()
  with contextlib.suppress(BrokenPipeError):  # It has come to its end.
    for _ in range(300):
      watching.stdin.write(alive)
      watching.stdin.flush()
      time.sleep(0.1)
  assert watching.wait(10) == 0
  assert watching.stdout.read() == b'stop\n'
  assert b'Process 0 of 2' in (said := watching.stderr.read())
  assert b'has given no sign of life for 1 s. Process 1 stops' in said
  hanging.kill()
  for companion in companions:
    with contextlib.suppress(BrokenPipeError):
      companion.communicate()

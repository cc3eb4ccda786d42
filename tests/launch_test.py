"""The launch scripts, with processes of this machine for hosts and stand-ins for the tools."""

import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks.common import free_port

ROOT = pathlib.Path(__file__).parent.parent
RUN = ['--config=configs/bandit.py:quick', '--config.num_train_steps=4', '--config.mesh.data=-1']
RUN += ['--config.log.tensorboard=False', '--config.eval.num_prompts=8']
# Each stands for a command-line tool. What a host would run, a process runs here; it finds the
# others by flags in place of the pod's own metadata.
SRUN = """#!/usr/bin/env bash
pids=()
for i in 0 1; do
  SLURM_JOB_ID={job} SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_PROCID=$i \\
    SLURM_LOCALID=$i SLURM_STEP_NUM_NODES=1 "$@" & pids+=($!)
done
trap 'kill -TERM "${{pids[@]}}"' TERM
code=0
for pid in "${{pids[@]}}"; do wait "$pid" || code=$?; done
exit $code
"""
GCLOUD = """#!/usr/bin/env bash
echo "gcloud $*" >> {folder}/calls
case "$4" in
  describe) cat {folder}/state ;;
  create) echo READY > {folder}/state ;;
  scp) cp "$5" {folder}/pkpo_jax.tar.gz ;;
  ssh)
    command=${{8#--command=}}
    cd {folder}
    if [[ $command == mkdir* ]]; then
      mkdir -p pkpo_jax && tar -xzf pkpo_jax.tar.gz -C pkpo_jax && ln -sfn {venv} pkpo_jax/.venv
      exit
    fi
    if [[ -e preempt ]]; then rm preempt; echo PREEMPTED > state; exit 255; fi
    pids=()
    for i in 0 1; do
      bash -c "${{command/--distributed/--coordinator_address=127.0.0.1:{port} --num_processes=2 \\
        --process_id=$i}}" & pids+=($!)
    done
    for pid in "${{pids[@]}}"; do wait "$pid" || exit 1; done ;;
esac
"""


def _tool(folder, name, text, **values):
  """Puts a stand-in for a tool in a folder; returns the environment in which it is found."""
  path = folder / name
  path.write_text(text.format(folder=folder, **values))
  path.chmod(0o755)
  environment = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
  return environment | {'PATH': f'{folder}:{environment["PATH"]}', 'PYTHON': sys.executable}


def _launch(script, *arguments, env, cwd=ROOT):
  return subprocess.run(
    ['bash', ROOT / 'launch' / script, *arguments],
    cwd=cwd,
    env=env,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def test_local(tmp_path):
  env = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0', 'PYTHON': sys.executable}
  done = _launch('local.sh', '2', *RUN, f'--workdir={tmp_path / "run"}', env=env)
  assert done.returncode == 0, done.stderr
  assert '[0] Last evaluation' in done.stdout and '[1] Last evaluation' not in done.stdout
  wrong = _launch('local.sh', '2', *RUN, '--config.seed=-1', '--workdir=run', env=env)
  assert wrong.returncode == 1
  assert '[0] config.seed: expected at least 0' in wrong.stderr
  assert '[1] config.seed: expected at least 0' in wrong.stderr


def test_slurm(tmp_path):
  env = _tool(tmp_path, 'srun', SRUN, job=os.getpid())
  (tmp_path / '.venv/bin').mkdir(parents=True)
  (tmp_path / '.venv/bin/python').write_text(f'#!/bin/sh\ncd {ROOT}; exec {sys.executable} "$@"\n')
  (tmp_path / '.venv/bin/python').chmod(0o755)
  run = [*RUN, f'--workdir={tmp_path / "run"}']
  done = _launch('slurm.sh', *run, env=env, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'Last evaluation' in done.stdout


def test_a_preempted_slice_is_made_again(tmp_path):
  venv = pathlib.Path(sys.executable).parent.parent
  env = _tool(tmp_path, 'gcloud', GCLOUD, venv=venv, port=free_port()) | {
    'PAUSE_S': '0',
    'ATTEMPTS': '3',
  }
  (tmp_path / 'state').write_text('READY\n')
  (tmp_path / 'preempt').touch()
  run = [*RUN, f'--workdir={tmp_path / "run"}']
  done = _launch('tpu_preemptible.sh', 'name', 'zone', 'v5litepod-16', 'v2', *run, env=env)
  assert done.returncode == 0, done.stderr
  assert 'Attempt 1: name is READY' in done.stdout
  assert 'Attempt 2: name is PREEMPTED' in done.stdout
  assert 'Last evaluation' in done.stdout
  lines = (tmp_path / 'calls').read_text().splitlines()
  verbs = [line.split()[4] for line in lines if line.startswith('gcloud ')]
  begun = ['describe', 'scp', 'ssh', 'ssh']
  assert verbs == [*begun, 'describe', 'delete', 'create', *begun[1:]]


def test_xpk_gets_the_command_in_one_word(tmp_path):
  env = _tool(tmp_path, 'xpk', '#!/bin/sh\nprintf "%s\\n" "$@"\n')
  arguments = ['cluster', 'name', 'v5litepod-16', '--config=configs/bandit.py', '--workdir=a b']
  done = _launch('xpk.sh', *arguments, env=env)
  assert done.returncode == 0, done.stderr
  *flags, last = done.stdout.split('\n--command=')
  assert '--tpu-type=v5litepod-16' in flags[0].splitlines()
  assert last.rstrip().endswith(r'--config=configs/bandit.py --workdir=a\ b')


@pytest.mark.parametrize(
  'script', ['local.sh', 'slurm.sh', 'tpu_slice.sh', 'tpu_preemptible.sh', 'xpk.sh']
)
def test_without_arguments_a_script_says_how_it_is_called(script):
  done = _launch(script, env=os.environ)
  assert done.returncode == 2
  assert f'launch/{script} ' in done.stderr
  assert '#' not in done.stderr

#!/usr/bin/env bash
#SBATCH --job-name=pkpo_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
# Trains on GPUs under SLURM, one process for each:
#   sbatch --nodes=4 launch/slurm.sh --config=... --workdir=... [--config.mesh.data=-1]
# To be submitted from a clone in which launch/setup.sh has run, on a file system that all nodes
# share. Two minutes before its time is over SLURM sends SIGTERM: the run saves, and the job goes
# back into the queue.
set -euo pipefail

if (($# < 2)); then
  sed -n '11,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
# The batch script outlives the signal, which is meant for the processes.
trap ':' TERM
code=0
srun .venv/bin/python -u -m pkpo_jax.main --distributed --stopped_exit_code=42 "$@" || code=$?
if ((code == 42)); then
  scontrol requeue "$SLURM_JOB_ID"
  code=0
fi
exit "$code"

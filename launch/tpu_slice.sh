#!/usr/bin/env bash
# Trains on a TPU VM, or on all hosts of a slice, from another machine:
#   launch/tpu_slice.sh NAME ZONE --config=... --workdir=... [--config.mesh.data=-1]
# Copies the last commit of this clone to the hosts, installs it there and starts one process on
# each. The workdir is a folder that all hosts share. Needs gcloud, logged in.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive --format=tar.gz --output="$scratch/pkpo_jax.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$scratch/pkpo_jax.tar.gz" "$name:" --zone="$zone" --worker=all

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}
on_all_hosts 'mkdir -p pkpo_jax && tar -xzf pkpo_jax.tar.gz -C pkpo_jax &&
  bash pkpo_jax/launch/setup.sh tpu'
run='.venv/bin/python -u -m pkpo_jax.main --distributed --stopped_exit_code=42'
on_all_hosts "cd pkpo_jax && $run$(printf ' %q' "$@")"

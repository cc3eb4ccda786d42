#!/usr/bin/env bash
# Trains on a TPU slice of a Kubernetes cluster, through xpk:
#   launch/xpk.sh CLUSTER NAME TYPE --config=... --workdir=... [--config.mesh.data=-1]
# TYPE is such as v5litepod-16. Project and zone are those of gcloud. The image is the BASE_IMAGE
# (python:3.12) with this clone in it; workdir is on a file system that all pods mount, see
# `xpk storage attach`. Kubernetes starts the workload again up to MAX_RESTARTS (100) times.
set -euo pipefail

if (($# < 4)); then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
cluster=$1 name=$2 type=$3
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/.."

xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$type" \
  --base-docker-image="${BASE_IMAGE:-python:3.12}" --script-dir="$PWD" \
  --max-restarts="${MAX_RESTARTS:-100}" --restart-on-exit-codes=1,42 \
  --command="bash launch/setup.sh tpu &&
    .venv/bin/python -u -m pkpo_jax.main --distributed --stopped_exit_code=42$(printf ' %q' "$@")"

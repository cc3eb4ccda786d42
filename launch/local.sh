#!/usr/bin/env bash
# Starts one run in several processes on this machine:
#   launch/local.sh NUM_PROCESSES --config=... --workdir=... [--config.mesh.data=-1]
# Every line of output begins with the number of its process. SIGTERM and SIGINT are passed on.
# Ends with 0 if all processes do, else with the code of one that does not.
# PYTHON is the interpreter; without it .venv/bin/python, or the first python there is.
set -euo pipefail

if (($# < 2)) || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
num_processes=$1
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[[ -x $python ]] || python=python
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')

pids=()
for ((i = 0; i < num_processes; i++)); do
  # The process itself is the job, so that signals reach it and its code is the job's.
  "$python" -u -m pkpo_jax.main "$@" --coordinator_address="127.0.0.1:$port" \
    --num_processes="$num_processes" --process_id="$i" \
    > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true' TERM INT

code=0
for pid in "${pids[@]}"; do
  # A signal that the trap handles ends `wait` early.
  while kill -0 "$pid" 2> /dev/null; do
    wait "$pid" && break
    status=$?
    kill -0 "$pid" 2> /dev/null || {
      code=$status
      break
    }
  done
done
exit "$code"

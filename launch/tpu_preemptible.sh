#!/usr/bin/env bash
# Trains on a preemptible slice, which is made again whenever it is taken away, until the run is
# over:
#   launch/tpu_preemptible.sh NAME ZONE TYPE SOFTWARE --config=... --workdir=...
# TYPE is such as v5litepod-16, SOFTWARE such as v2-alpha-tpuv5-lite. The slice stays when the run
# is over; ATTEMPTS (100) bounds how often it starts, PAUSE_S (60) parts two attempts.
set -euo pipefail

if (($# < 5)); then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
name=$1 zone=$2 type=$3 software=$4
shift 4
here=$(dirname "${BASH_SOURCE[0]}")

for ((attempt = 1; attempt <= ${ATTEMPTS:-100}; attempt++)); do
  state=$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)' \
    2> /dev/null || echo MISSING)
  printf 'Attempt %d: %s is %s.\n' "$attempt" "$name" "$state"
  if [[ $state != READY && $state != MISSING ]]; then
    gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet || true
  fi
  if [[ $state == READY ]] || gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
    --accelerator-type="$type" --version="$software" --spot; then
    if bash "$here/tpu_slice.sh" "$name" "$zone" "$@"; then
      exit 0
    fi
  fi
  sleep "${PAUSE_S:-60}"
done
printf 'Gave up after %d attempts.\n' "${ATTEMPTS:-100}" >&2
exit 1

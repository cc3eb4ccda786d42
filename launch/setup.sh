#!/usr/bin/env bash
# Installs this clone on a host: launch/setup.sh [tpu|cuda13|cuda12]
# The accelerator is an extra of jax, at the version of constraints.txt; without one it is the CPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

make .venv/.stamp-run
# What the configs of real problems and of Llama and Qwen take on top.
.venv/bin/python -m uv pip install --python .venv/bin/python --constraint constraints.txt \
  --override overrides.txt --editable '.[huggingface,problems]'
if (($#)); then
  version=$(sed -n 's/^jax==//p' constraints.txt)
  .venv/bin/python -m uv pip install --python .venv/bin/python "jax[$1]==$version"
fi
.venv/bin/python -c 'import jax; print(f"jax {jax.__version__}: {jax.local_devices()}")'

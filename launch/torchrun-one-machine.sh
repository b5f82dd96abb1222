#!/usr/bin/env bash
# One run on all GPUs of this machine:
#
#   launch/torchrun-one-machine.sh train RECIPE --data DIR --out DIR
#
# The same command continues a run that was stopped; with RESTARTS a process that dies makes all start again from the last
# checkpoint.
#
# PROCESSES   default auto: one per GPU, without GPUs one per core
# RESTARTS    how many failures are forgiven, default 0
# PYTHON      default python3
set -euo pipefail

exec "${PYTHON:-python3}" -m botformer.torchrun \
    --standalone \
    --nproc-per-node "${PROCESSES:-auto}" \
    --max-restarts "${RESTARTS:-0}" \
    -m botformer.cli "$@"

#!/usr/bin/env bash
# What a rented machine runs. An interrupted run is started again by the same command, finds itself on the volume, and
# goes on. Each run has a folder of its own, DATA_DIR, so the newest run in it is this one.
set -euo pipefail
export DATA_DIR="${DATA_DIR:-/data/${DSTACK_RUN_NAME:?}}"
mode="$LAB_MODE"
if [ -e "$DATA_DIR/@latest" ] && [ "$mode" != dev ]; then
  mode="$mode@latest"
fi
export UV_CACHE_DIR=/cache
uv sync --quiet --no-dev
exec uv run --no-sync slm-lab "$SPEC_FILE" "$SPEC_NAME" "$mode"

#!/usr/bin/env bash
# fig5: Figure 5: two moons, under every regularizer.
# 129 trainings, about 7 hours of one CPU core and no GPU hours.
# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise
exec .venv/bin/vcreg reproduce fig5 --scale full "$@"

#!/usr/bin/env bash
# table8: Time of one forward and backward pass on an A100, batch 128.
# Minutes of one GPU.
# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise
exec .venv/bin/vcreg reproduce table8 --scale full "$@"

#!/usr/bin/env bash
# table2: Transfer learning with Kinetics-400 and Kinetics-710 pretrained models, to HMDB51.
# 135 trainings, about 2,500 GPU hours (AMD MI50), scaled from the paper's 768 of one.
# Needs hmdb51: `--dry-run` says where to get them.
# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise
exec .venv/bin/vcreg reproduce table2 --scale full "$@"

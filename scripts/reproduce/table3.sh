#!/usr/bin/env bash
# table3: Long-tail learning with ResNet-32.
# 96 trainings, about 3 GPU hours (AMD MI50), scaled from the paper's 768 of one.
# Needs cifar10, cifar100: `--dry-run` says where to get them.
# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise
exec .venv/bin/vcreg reproduce table3 --scale full "$@"

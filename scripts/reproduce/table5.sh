#!/usr/bin/env bash
# table5: Hierarchical classification: trained on superclasses, probed for subclasses.
# 156 trainings, about 6 GPU hours (AMD MI50), scaled from the paper's 768 of one.
# That leaves out 130 of unknown length.
# Needs cifar100, imagenet: `--dry-run` says where to get them.
# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise
exec .venv/bin/vcreg reproduce table5 --scale full "$@"

#!/usr/bin/env bash
# table7: Where VCReg is placed in ConvNeXt-Atto.
# 95 trainings, about 1,300 GPU hours (AMD MI50), scaled from the paper's 768 of one.
# Needs dtd, fgvc_aircraft, flowers102, food101, imagenet, inaturalist18, oxford_pets, places205, stanford_cars: `--dry-run` says where to get them.
# VCREG_DATA_DIR holds a folder of each data set. Options go to the command: --out DIR, --seeds N, --dry-run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export VCREG_LAUNCHER=accelerate    # a process for each GPU; `accelerate config` says otherwise
exec .venv/bin/vcreg reproduce table7 --scale full "$@"

#!/usr/bin/env bash
# The quick comparison: six strategies on one budget of optimiser steps, then the tables.
# usage: experiments/run_quick.sh OUT [SEED…]   (stores first: experiments/prepare_real_stores.sh)
# Finished runs are not repeated; a stopped one continues.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="$1"; shift
seeds=("${@:-0}")
runs=()
for seed in "${seeds[@]}"; do
    for strategy in local flames modality fedavg paper central; do
        run="$out/$strategy-$seed"
        more=(); [ -e "$run" ] && more=(--resume)
        flames run "$here/quick.toml" --strategy "$strategy" --seed "$seed" --out "$run" "${more[@]}"
        runs+=("$run")
    done
done
python "$here/table.py" "$out/quick" "${runs[@]}"

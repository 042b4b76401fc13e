#!/usr/bin/env bash
# The quick comparison: six strategies on one budget of optimiser steps, then the tables.
# usage: experiments/run_quick.sh OUT [SEED…]   (stores first: experiments/prepare_real_stores.sh)
# Two runs at a time, one processor thread each. Finished runs are not repeated; a stopped one
# continues.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="$1"; shift
seeds=("${@:-0}")
mkdir -p "$out"
one() {
    local run="$2/$3-$4" more=()
    if [ -e "$run" ]; then more=(--resume); fi
    OMP_NUM_THREADS=1 flames run "$1/quick.toml" --strategy "$3" --seed "$4" --out "$run" \
        "${more[@]}" >> "$run.log" 2>&1 || { tail -n 3 "$run.log" >&2; return 1; }
}
export -f one
runs=()
jobs=()
for seed in "${seeds[@]}"; do
    for strategy in local flames modality fedavg paper central; do
        runs+=("$out/$strategy-$seed")
        jobs+=("$strategy $seed")
    done
done
printf '%s\n' "${jobs[@]}" | xargs -P 2 -I{} bash -c 'one "$0" "$1" $2' "$here" "$out" {}
python "$here/table.py" "$out/quick" "${runs[@]}"

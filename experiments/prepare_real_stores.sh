#!/bin/sh
# Prepare nine site stores from the public datasets: two organs in each of three modalities.
# Usage: experiments/prepare_real_stores.sh DATA_DIR STORES_DIR
# A run that was stopped goes on where it was; stores that are whole stay as they are.
set -eu
data=$1
stores=$2

add() {
    flames data add "$@"
}

add --format busi --site us-breast --modality US --organ breast "$data/busi" "$stores/us-breast"
add --format otu2d --site us-ovary --modality US --organ ovary "$data/otu_2d" "$stores/us-ovary"
for hospital in CS DU FG HT; do
    site=mr-brain-$(echo "$hospital" | tr '[:upper:]' '[:lower:]')
    add --format msd --site "$site" --modality MR --organ brain --where "hospital=$hospital" \
        --unknown-spacing "$data/lgg_flair" "$stores/$site"
done
add --format msd --site mr-limb --modality MR --organ limb "$data/sts_mr" "$stores/mr-limb"
add --format msd --site ct-limb --modality CT --organ limb "$data/sts_ct" "$stores/ct-limb"
add --format msd --site ct-lung --modality CT --organ lung --unknown-spacing "$data/lidc_ct" \
    "$stores/ct-lung"

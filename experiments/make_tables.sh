#!/bin/sh
# Make the tables of this folder again, from prepared stores and the TOML files beside this script.
# Usage: experiments/make_tables.sh RUNS [TABLE...]
#   RUNS   folder of the runs; what is finished there is not done again
#   TABLE  folds, quick, generalise, apart, adapt, students, shifts, wire, demo or real; without one:
#          all
# `flames` must be there: source .venv/bin/activate. JOBS, 2 unless set, is how many runs go at a
# time. apart and adapt need generalise; students, shifts and wire need quick. The stores:
# experiments/prepare_real_stores.sh DATA stores
set -eu
here=$(dirname "$0")
runs=${1:?name a folder for the runs, such as: experiments/make_tables.sh runs}
shift
jobs=${JOBS:-2}
stores=$here/../stores
sites="us-breast us-ovary mr-brain-cs mr-brain-du mr-brain-fg mr-brain-ht mr-limb ct-limb ct-lung"
seeds="0 1 2"

each() { # each OPTION: OPTION STORE of every site
    for site in $sites; do printf '%s %s ' "$1" "$stores/$site"; done
}

folds() {
    flames compare "$here/quick.toml" --folds 4 --seeds 3 --jobs "$jobs" --out "$runs/folds" \
        --strategies flames,local,modality,fedavg,modality-uniform,uniform,paper,central
    cp "$runs/folds/tables/scores.csv" "$here/quick-dice.csv"
    cp "$runs/folds/tables/overview.csv" "$here/quick-overview.csv"
    cp "$runs/folds/tables/paired.csv" "$here/quick-paired.csv"
    python "$here/draw_dice.py"
}

quick() {
    flames compare "$here/quick.toml" --strategies flames,modality --seeds 3 --jobs "$jobs" \
        --keep-state --out "$runs/quick"
}

generalise() {
    flames generalise "$here/generalise.toml" --seeds 3 --jobs "$jobs" --out "$runs/generalise"
    for table in scores paired matrix; do
        cp "$runs/generalise/tables/$table.csv" "$here/generalise-$table.csv"
    done
}

apart() { # server's models of modality-uniform, beside the other runs of generalise
    mkdir -p "$runs/apart/runs"
    for run in "$runs/generalise/runs"/*; do
        name=${run##*/}
        case $name in
            server-*) ;;
            *) ln -sfn "../../generalise/runs/$name" "$runs/apart/runs/$name" ;;
        esac
    done
    flames generalise "$here/generalise.toml" --strategy modality-uniform --seeds 3 \
        --jobs "$jobs" --out "$runs/apart"
    for table in scores paired; do
        cp "$runs/apart/tables/$table.csv" "$here/apart-$table.csv"
    done
}

adapt() {
    for site in us-breast us-ovary mr-brain-cs mr-brain-du mr-brain-fg mr-brain-ht; do
        case $site in us-*) group=US cases=0,5,10,20,50 ;; *) group=MR cases=0,1,2 ;; esac
        flames adapt "$runs/generalise/runs/server-$group-$site-0" --site "$stores/$site" \
            --cases $cases --seeds 3 --threads 1 --out "$runs/adapt-$site"
        cp "$runs/adapt-$site/tables/curve.csv" "$here/adapt-$site.csv"
    done
}

students() {
    for seed in $seeds; do
        for teachers in flames modality; do
            # shellcheck disable=SC2046
            flames distill "$runs/quick/$teachers-$seed" $(each --store) --labels yes \
                --seed "$seed" --threads 1 --out "$runs/students/$teachers-$seed"
        done
        flames distill "$runs/quick/flames-$seed" --store "$stores/us-ovary" \
            --store "$stores/mr-brain-ht" --store "$stores/ct-limb" --told yes \
            --seed "$seed" --threads 1 --out "$runs/students-few/flames-$seed"
        flames distill "$runs/quick/flames-$seed" --told yes --labels both \
            --seed "$seed" --threads 1 --out "$runs/students-made-up/flames-$seed"
    done
    python "$here/student_tables.py" "$runs/students" --name student-owned --out "$here"
    python "$here/student_tables.py" "$runs/students-few" --name student-few --out "$here"
    python "$here/student_tables.py" "$runs/students-made-up" --name student-made-up --out "$here"
}

shifts() {
    # shellcheck disable=SC2046
    flames evaluate "$runs/quick/flames-0" $(each --site) --shifts --out "$runs/shifts"
    cp "$runs/shifts/tables/lost.csv" "$here/shifts-lost.csv"
}

wire() {
    mkdir -p "$runs/wire"
    int8="--set wire.encoding=int8 --set wire.delta=true"
    # shellcheck disable=SC2086
    {
        coded int8 $int8
        coded topk $int8 --set wire.top-k=0.25
        coded float16 --set wire.encoding=float16
    }
    for seed in $seeds; do ln -sfn "../quick/flames-$seed" "$runs/wire/float32-$seed"; done
    python "$here/wire_cost.py" "$runs/wire" --out "$here/wire-dice.csv"
}

coded() { # coded SETTING OPTION...: three runs, under the names that wire_cost.py reads
    name=$1
    shift
    flames compare "$here/quick.toml" --strategies flames "$@" --seeds 3 --jobs "$jobs" \
        --out "$runs/wire-$name"
    for seed in $seeds; do
        ln -sfn "../wire-$name/flames-$seed" "$runs/wire/$name-$seed"
    done
}

demo() {
    [ -e "$runs/demo-stores/federation.toml" ] || flames data make "$runs/demo-stores"
    flames compare "$runs/demo-stores/federation.toml" --strategies flames,local --seeds 3 \
        --jobs "$jobs" --set threads=1 --out "$runs/demo"
    cp "$runs/demo/tables/scores.csv" "$here/demo-dice.csv"
    cp "$runs/demo/tables/paired.csv" "$here/demo-paired.csv"
}

real() {
    flames compare "$here/real-mr.toml" --strategies flames,local --seeds 1 --jobs "$jobs" \
        --out "$runs/real-mr"
    cp "$runs/real-mr/tables/scores.csv" "$here/real-mr-dice.csv"
}

[ -e "$stores/us-breast/store.json" ] || {
    echo "no stores at $stores: experiments/prepare_real_stores.sh DATA stores makes them" >&2
    exit 1
}
mkdir -p "$runs"
[ $# -gt 0 ] || set -- folds quick generalise apart adapt students shifts wire demo real
for table in "$@"; do
    case $table in
    folds | quick | generalise | apart | adapt | students | shifts | wire | demo | real) "$table" ;;
    *)
        echo "no table is named $table: see the head of $0" >&2
        exit 1
        ;;
    esac
done

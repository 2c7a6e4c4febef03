#!/usr/bin/env bash
# Measures a block beside its peers: ./bench.sh [--rounds N] [--quick] NAME [FILTER]
#
# Builds with --cfg peers in a target folder of its own, runs benches/NAME.rs in N rounds (default 3; a round runs ours
# and each peer once, so that a slow spell of the machine meets them all), and prints the medians as one table with
# ratios. FILTER picks workloads by a part of their names; --quick measures a second each. Without NAME it lists them.
# A bench that does not use criterion runs once and prints a table of its own; it is told of the rounds, and of --quick.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. .ci/common.sh

rounds=3
quick=
criterion=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds)
            rounds=${2:-}
            shift
            ;;
        --quick)
            quick=1
            criterion=(--warm-up-time 0.3 --measurement-time 1)
            ;;
        -h | --help)
            sed -n '2,8s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        -*)
            echo "usage: ./bench.sh [--rounds N] [--quick] [NAME [FILTER]]" >&2
            exit 2
            ;;
        *) break ;;
    esac
    shift
done
case $rounds in
    '' | *[!0-9]* | 0)
        echo "--rounds needs a number above 0" >&2
        exit 2
        ;;
esac

if [ $# -eq 0 ]; then
    for source in benches/*.rs; do
        name=${source#benches/}
        printf '%-12s %s\n' "${name%.rs}" "$(sed -n '1s/^\/\/! *//p' "$source")"
    done
    exit 0
fi
name=$1
filter=${2:-}
if [ ! -e "benches/$name.rs" ]; then
    echo "no bench is called $name; there are: $(cd benches && echo *.rs | sed 's/\.rs//g')" >&2
    exit 2
fi

packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v c++ >/dev/null || packages+=(g++)
# One of pingora's dependencies is built with it.
command -v cmake >/dev/null || packages+=(cmake make)
command -v python3 >/dev/null || packages+=(python3-minimal)
# The queue is measured beside servers too; one that is not to be had is left out.
[ "$name" != queue ] || command -v redis-server >/dev/null || packages+=(redis-server)
[ ${#packages[@]} -eq 0 ] || install "${packages[@]}"
[ "$name" != queue ] || need_nats_server
need_rust

unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_ENCODED_RUSTFLAGS
export RUSTFLAGS="--cfg peers"
export OUTGROW_ROUNDS=$rounds OUTGROW_QUICK=$quick
cargo bench --locked --all-features --target-dir target-peers --bench "$name" --no-run

# What one contestant frees goes back to the system and not to the next: its pages may be large ones, which one asked for
# and another gets as a gift.
export MALLOC_MMAP_THRESHOLD_=131072

results=target-peers/rounds/$name
rm -rf "$results"
folders=()
for ((round = 1; round <= rounds; round++)); do
    echo "-- round $round of $rounds" >&2
    # A folder of its own: criterion compares with what an earlier round left there, and prints that.
    export CRITERION_HOME=$PWD/$results/$round
    mkdir -p "$CRITERION_HOME"
    cargo bench --locked --all-features --target-dir target-peers --bench "$name" -- \
        "${criterion[@]}" --noplot ${filter:+"$filter"} \
        >"$CRITERION_HOME/output.txt" 2>"$CRITERION_HOME/errors.txt" </dev/null || {
        tail -n 40 "$CRITERION_HOME/output.txt" "$CRITERION_HOME/errors.txt" >&2
        exit 1
    }
    folders+=("$CRITERION_HOME")
    # Criterion took no times, so it answers by itself, and once is enough.
    if [ -z "$(find "$CRITERION_HOME" -name benchmark.json -print -quit)" ] && [ -s "$CRITERION_HOME/output.txt" ]; then
        printf '\n%s, %s\n\n' "$name" "$(rustc --version | cut -d ' ' -f 1-2)"
        cat "$CRITERION_HOME/output.txt"
        exit 0
    fi
done
printf '\n%s in %s round(s), on %s cores, %s\n\n' "$name" "$rounds" "$(nproc)" "$(rustc --version | cut -d ' ' -f 1-2)"
python3 .ci/bench_table.py "${folders[@]}"
# What a bench has to say beside its times, each line as an item of a list; the same in every round.
notes=$(grep -h '^\* ' "$results/1/output.txt" || true)
[ -z "$notes" ] || printf '\n%s\n' "$notes"

#!/usr/bin/env bash
# Checks everything, as continuous integration does: ./test.sh [--long]
#
# On Debian or Ubuntu with Rust it installs what else is missing (as root or through sudo; otherwise it names the
# packages and stops). It runs 1,000 seeds of every simulation; --long runs 10,000 and the proofs that take long;
# OUTGROW_SEEDS=N runs any number. The shared data is in OUTGROW_SHARED, else in ../shared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. .ci/common.sh

long=
for argument in "$@"; do
    case $argument in
        --long) long=1 ;;
        -h | --help)
            sed -n '2,6s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *)
            echo "usage: ./test.sh [--long]" >&2
            exit 2
            ;;
    esac
done
export OUTGROW_REQUIRE=1
if [ -n "$long" ]; then
    export OUTGROW_LONG=1
    export OUTGROW_SEEDS=${OUTGROW_SEEDS:-10000}
fi
export OUTGROW_SEEDS=${OUTGROW_SEEDS:-1000}
# What each phase sets for itself must not leak in from outside, nor between phases.
unset RUSTFLAGS RUSTDOCFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_WORKSPACE_WRAPPER CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR OUTGROW_MUTANT OUTGROW_SEED
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} CARGO_TERM_PROGRESS_WHEN=never
export RUST_BACKTRACE=${RUST_BACKTRACE:-1}

missing() {
    local packages=()
    command -v cc >/dev/null || packages+=(gcc libc6-dev)
    # It says whether the work tree is clean.
    [ ! -e .git ] || command -v git >/dev/null || packages+=(git)
    # Tests start servers of their own, on free ports; one that the package starts is left alone.
    command -v redis-server >/dev/null || packages+=(redis-server)
    # The queue's tests cut the power of file systems of their own.
    command -v mkfs.ext4 >/dev/null || packages+=(e2fsprogs)
    command -v mkfs.xfs >/dev/null || packages+=(xfsprogs)
    if [ ${#packages[@]} -gt 0 ]; then
        echo "installing ${packages[*]}"
        install "${packages[@]}"
    fi
    need_nats_server
    need_rust fmt clippy
    cargo --version
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features
}

tests() {
    rm -f target/tmp/summary.txt
    cargo test --locked --all-features
}

# The examples that `cargo test` has built, each as briefly as it can do its whole job.
examples() {
    local source name arguments
    for source in examples/*.rs examples/*/main.rs; do
        [ -e "$source" ] || continue
        name=${source#examples/}
        name=${name%/main.rs}
        name=${name%.rs}
        arguments=()
        case $name in
            zero_to_millions) arguments=(--quick --rung balancer) ;;
            tail_latency) arguments=(--quick --scenario A,errors) ;;
            hit_ratio) arguments=("${OUTGROW_SHARED:-../shared}/traces/lirs_ps.u32.zst" --svg target/hit_ratio.svg) ;;
        esac
        echo "-- $name ${arguments[*]}"
        timeout 300 "target/debug/examples/$name" "${arguments[@]}" </dev/null
    done
}

# The ladder in full on the real logs, which also proves that a seed repeats byte for byte.
ladder() {
    local log shared=${OUTGROW_SHARED:-../shared}
    cargo build --locked --release --example zero_to_millions
    for log in epa-http elastic-apache-2015; do
        for run in 1 2; do
            timeout 600 target/release/examples/zero_to_millions --log "$shared/traces/$log.log.gz" --seed 1 \
                --json "target/ladder-$log-$run.json" --html "target/ladder-$log.html" \
                </dev/null >"target/ladder-$log-$run.txt"
        done
        cmp "target/ladder-$log-1.txt" "target/ladder-$log-2.txt"
        cmp "target/ladder-$log-1.json" "target/ladder-$log-2.json"
        cat "target/ladder-$log-1.txt"
    done
}

# Each feature by itself: half of them at the same time as the other half, in a target folder of their own.
features() {
    local names half
    # The default is none.
    names=($(sed -n '/^\[features\]/,/^\[[^f]/s/^\([a-z][a-z0-9_-]*\) *=.*/\1/p' Cargo.toml))
    half=$((${#names[@]} / 2))
    each_feature target/features "${names[@]:half}" >target/features.txt 2>&1 &
    each_feature target "${names[@]:0:half}" || {
        wait
        return 1
    }
    wait $! || {
        cat target/features.txt
        return 1
    }
    grep '^--' target/features.txt
}

# each_feature FOLDER FEATURE... : checks the library with one feature after the other.
each_feature() {
    local folder=$1 feature
    shift
    for feature in "$@"; do
        echo "-- $feature"
        cargo clippy --locked --lib --no-default-features --features "$feature" --target-dir "$folder" \
            -- -D warnings || return 1
    done
}

package() {
    local dirty=()
    if [ -e .git ] && [ -n "$(git status --porcelain)" ]; then
        echo "the work tree has changes that are not committed: packaging them too"
        dirty=(--allow-dirty)
    fi
    cargo package --locked "${dirty[@]}"
    # What a user downloads is the crate, its tests and its licences, and none of our tooling.
    local listed expected unexpected
    local allowed='^(src|tests|benches|examples)/|^Cargo\.(toml(\.orig)?|lock)$|^(README|CHANGELOG)\.md$|^LICENSE-'
    allowed+='|^(clippy|rustfmt)\.toml$|^\.gitignore$|^\.cargo_vcs_info\.json$'
    listed=$(cargo package --locked --list "${dirty[@]}")
    for expected in Cargo.lock Cargo.toml README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT src/lib.rs tests/support/mod.rs; do
        if ! grep -qxF "$expected" <<<"$listed"; then
            echo "the package lacks $expected" >&2
            return 1
        fi
    done
    unexpected=$(grep -vE "$allowed" <<<"$listed" || true)
    if [ -n "$unexpected" ]; then
        printf 'the package holds what it should not:\n%s\n' "$unexpected" >&2
        return 1
    fi
}

# Builds for model checkers and sanitizers: without what the tests that they run have no use for.
checked() {
    local flags=$1
    shift
    RUSTFLAGS="--cfg outgrow_lean $flags" cargo test --locked --profile checked --features sim,suite "$@"
}

# Every interleaving of what reads without a lock, and of who writes a log, over the atomics and locks of a model checker.
orderings() {
    checked "--cfg outgrow_loom --cfg outgrow_shuttle" --target-dir target-models --test loom_cache --test loom_log
}

# Thousands of interleavings of what takes a lock: loads, writes and leases under a scheduler that chooses at every one.
interleavings() {
    checked "--cfg outgrow_loom --cfg outgrow_shuttle" --target-dir target-models --lib interleaved
}

# A minute of random and mutated bytes for each decoder of what lies on a disk, with overflow checked.
fuzz() {
    BOLERO_RANDOM_TEST_TIME_MS=60000 cargo test --locked --all-features --test fuzz_log --test fuzz_snapshot
}

# All that can be done to a cache, where every access to memory is checked: what is freed too early shows at its first
# read. Needs a nightly toolchain, and installs one where it is missing.
sanitizer() {
    local target
    target=$(rustc -vV | sed -n 's/^host: //p')
    if ! rustc +nightly --version >/dev/null 2>&1; then
        if ! command -v rustup >/dev/null || ! rustup toolchain install nightly --profile minimal --no-self-update; then
            echo "no nightly toolchain, and none to be had: the cache cannot be run under AddressSanitizer" >&2
            return 1
        fi
    fi
    RUSTUP_TOOLCHAIN=nightly checked "-Zsanitizer=address" --target-dir target-sanitized --target "$target" --test cache_stress
}

# Each planted bug must make the simulation that watches over it fail within 200 seeds, where the same build without
# the bug passes.
mutants() {
    export RUSTC_WORKSPACE_WRAPPER=$PWD/.ci/rustc-with-mutants
    local row mutant simulation status output=target/mutant.txt
    local rows=(AckBeforeSync:sim_queue SkipEpochCheck:sim_replica ForgetTornTail:sim_queue
        KeepOvertakenRead:sim_cache KeepOvertakenRead:sim_tiered KeepFailedIds:sim_queue
        SettleAnyAttempt:sim_queue IgnoreWitness:queue_damage)
    for row in "${rows[@]}"; do
        IFS=: read -r mutant simulation <<<"$row"
        OUTGROW_SEEDS=20 cargo test --locked --all-features --test "$simulation" >"$output" 2>&1 || {
            tail -n 40 "$output"
            echo "$simulation does not pass (or build) without a planted bug" >&2
            return 1
        }
        status=0
        OUTGROW_MUTANT=$mutant OUTGROW_SEEDS=200 RUST_BACKTRACE=0 timeout 600 \
            cargo test --locked --all-features --test "$simulation" >"$output" 2>&1 || status=$?
        # 101 is a failed test; anything else (a build that broke, a hang) is no proof.
        if [ "$status" -ne 101 ] || ! grep -q '^test result: FAILED' "$output"; then
            tail -n 40 "$output"
            echo "$mutant was not caught by $simulation within 200 seeds (status $status)" >&2
            return 1
        fi
        echo "$mutant: caught by $simulation: $(grep -m 1 -oE 'OUTGROW_SEED=[0-9]+' "$output" || grep -m 1 FAILED "$output")"
    done
    unset RUSTC_WORKSPACE_WRAPPER
}

phase "what is missing" missing
phase "format" cargo fmt --all -- --check
phase "lints" cargo clippy --locked --all-targets --all-features -- -D warnings
phase "documentation" documentation
phase "tests ($OUTGROW_SEEDS seeds)" tests
phase "examples" examples
[ -z "$long" ] || phase "the ladder on real logs" ladder
phase "each feature alone" features
phase "package" package
phase "orderings" orderings
phase "interleavings" interleavings
[ -z "$long" ] || phase "a minute of each fuzz target" fuzz
phase "AddressSanitizer" sanitizer
phase "planted bugs" mutants

printf '\n== seeds, crashes and faults by kind\n'
cat target/tmp/summary.txt
printf '\n== times\n'
printf '%s\n' "${TIMES[@]}"
printf '%6d s  in all\n' "$SECONDS"
echo "all checks passed"

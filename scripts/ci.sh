#!/usr/bin/env bash
# Everything that must hold before a change is merged, in the order in which it fails fastest.
#
# What always holds: it needs Rust, a C linker and git, and nothing else; it stops at the first step that fails and
# says which; it writes to the target directory and to one temporary directory, never to the tree. It is to need
# less than 25 minutes on two cores. What it leaves out: the campaign before a release, which is scripts/sim-soak.sh.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

SIM_BUDGET=5m
SIM_SEEDS_MIN=200
# For each planted bug; one that needs longer than this is as good as not found.
BUG_BUDGET=4m
EXPLORED_STATES=2000000
STEP_SECONDS_MAX=900

export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
# Nobody looks at these builds with a debugger, and what one reads takes time to make.
export CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_RELEASE_DEBUG=false
# Simulated time is steered by seeds; a debug build of the simulator would only be slower.
MAINSTAY=(cargo run --quiet --release --bin mainstay --)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
summary=()

say() { printf '%s\n' "$*"; }

fail() {
    say "ci: FAILED: $*"
    exit 1
}

# step NAME COMMAND...: runs it, timed and bounded; the whole output is shown, then one line that sums it up.
step() {
    local name=$1 start=$SECONDS status=0
    shift
    say "== $name: $*"
    if [[ $(type -t "$1") == function ]]; then
        "$@" || status=$?
    else
        timeout --kill-after=10 "$STEP_SECONDS_MAX" "$@" || status=$?
    fi
    local took=$((SECONDS - start))
    [[ $status -ne 124 ]] || fail "$name (stopped after $took s)"
    [[ $status -eq 0 ]] || fail "$name (exit code $status after $took s)"
    summary+=("$(printf '%5d s  %s' "$took" "$name")")
    say "== $name: ok, $took s"
}

tree_state() { git status --porcelain; }

toolchain() {
    command -v cargo >/dev/null || fail "no cargo on the PATH; install Rust 1.95 or later (https://rustup.rs)"
    command -v cc >/dev/null || fail "no C compiler on the PATH; Rust links with it (Debian: apt-get install gcc)"
    local component
    for component in fmt:rustfmt clippy:clippy; do
        if ! cargo "${component%%:*}" --version >/dev/null 2>&1; then
            say "cargo ${component%%:*} is missing; trying: rustup component add ${component##*:}"
            rustup component add "${component##*:}" || fail "could not add ${component##*:} to the toolchain"
        fi
    done
    cargo --version && cargo fmt --version && cargo clippy --version
}

# The number after "KEY": in one line of JSON.
json_number() { sed -n "s/.*\"$1\": *\\([0-9][0-9]*\\).*/\\1/p" "$2" | head -n 1; }

# Fresh seeds in each run, so that CI explores; the first is printed, so that what it finds can be replayed.
sim_fresh_seeds() {
    local first seeds status=0
    first=$(($(od -An -N4 -tu4 /dev/urandom) * 4096))
    say "first seed: $first"
    timeout --kill-after=10 "$STEP_SECONDS_MAX" \
        "${MAINSTAY[@]}" sim --budget "$SIM_BUDGET" --first "$first" --json >"$scratch/sim.json" || status=$?
    cat "$scratch/sim.json"
    [[ $status -eq 0 ]] || return "$status"
    seeds=$(json_number seeds "$scratch/sim.json")
    if [[ ${seeds:-0} -lt $SIM_SEEDS_MIN ]]; then
        say "only ${seeds:-0} seeds in $SIM_BUDGET; at least $SIM_SEEDS_MIN are wanted"
        return 1
    fi
    say "$first" >"$scratch/first_seed"
}

# The same seed gives the same trace, to the byte; otherwise no failure could be replayed.
sim_repeats() {
    local seed run
    seed=$(<"$scratch/first_seed")
    for run in 1 2; do
        timeout --kill-after=10 "$STEP_SECONDS_MAX" \
            "${MAINSTAY[@]}" sim --seed "$seed" --trace >"$scratch/trace.$run" || return $?
    done
    if [[ ! -s $scratch/trace.1 ]]; then
        say "the trace of seed $seed is empty"
        return 1
    fi
    cmp "$scratch/trace.1" "$scratch/trace.2" || return 1
    say "seed $seed twice: $(wc -c <"$scratch/trace.1") equal bytes of trace"
}

# The same seed gives the same trace in a debug build: nothing rests on how it was compiled.
sim_repeats_in_debug() {
    local seed release debug
    seed=$(<"$scratch/first_seed")
    release=$("${MAINSTAY[@]}" sim --seed "$seed" --trace-hash) || return $?
    debug=$(timeout --kill-after=10 "$STEP_SECONDS_MAX" \
        cargo run --quiet --bin mainstay -- sim --seed "$seed" --trace-hash) || return $?
    say "seed $seed: $release in release, $debug in debug"
    [[ -n $release && $release == "$debug" ]]
}

# Three real processes under load, the leader killed and brought back; the demo reads every acknowledged write back.
real_processes() {
    local status=0 writes lost
    timeout --kill-after=10 120 \
        "${MAINSTAY[@]}" demo --members 3 --seconds 8 --kill-leader --json >"$scratch/demo.json" || status=$?
    cat "$scratch/demo.json"
    [[ $status -eq 0 ]] || return "$status"
    writes=$(json_number writes "$scratch/demo.json")
    lost=$(json_number acked_lost "$scratch/demo.json")
    if [[ ${writes:-0} -eq 0 || ${lost:-unknown} != 0 ]]; then
        say "${writes:-no} writes, of which ${lost:-unknown} acknowledged ones were lost; 0 are allowed"
        return 1
    fi
}

# Every eighth bug of the table, from one of the first eight on: others in the next run. scripts/sim-soak.sh looks for all.
planted_bugs_are_found() {
    local bugs
    bugs=$(sed -n 's/^| \([0-9][0-9]*\) .*/\1/p' src/sim/PLANTED.md | awk -v first=$((RANDOM % 8)) 'NR % 8 == first')
    timeout --kill-after=10 "$STEP_SECONDS_MAX" cargo run --quiet --release --bin mainstay --features planted -- \
        sim --planted "${bugs//$'\n'/,}" --budget "$BUG_BUDGET"
}

# Members with a bug that clients can see: the run must fail, say that the history is impossible, and draw it.
nemesis_finds_a_planted_bug() {
    local status=0
    timeout --kill-after=10 "$STEP_SECONDS_MAX" \
        cargo run --quiet --release -p bench-harness --features mainstay/planted -- nemesis --rounds 1 \
        --only kill-follower --planted 102 --history "$scratch/seen.jsonl" --json >"$scratch/nemesis.json" || status=$?
    cat "$scratch/nemesis.json"
    [[ $status -eq 1 && -s $scratch/seen.html ]] && grep -q '"verdict":"impossible"' "$scratch/nemesis.json"
}

# The tests compare our answers with those of a real etcd where there is one, and say so where there is none.
etcd_if_it_can_be_had() {
    timeout --kill-after=10 120 scripts/get-etcd.sh || say "no etcd to be had: the comparison with it is skipped"
}

tree_before=$(tree_state)

step "toolchain" toolchain
step "dependencies" cargo fetch --locked
step "format" cargo fmt --all --check
step "etcd, to compare with" etcd_if_it_can_be_had
step "tests" cargo test --workspace
# Only tests that plant bugs, each of which says so in its name; all else has just been tested. Compiling costs more than running.
step "tests that plant bugs" env CARGO_PROFILE_DEV_OPT_LEVEL=0 \
    cargo test --package mainstay --features planted --lib planted
step "clippy" cargo clippy --workspace --all-targets -- -D warnings
# The library as its tests see it: nothing else has a bug planted in it.
step "clippy, with planted bugs" cargo clippy --package mainstay --lib --profile test --features planted -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
step "build for release" cargo build --release --workspace
step "real processes, leader killed" real_processes
step "real processes, nemesis" cargo run --quiet --release -p bench-harness -- nemesis --rounds 3
step "simulator, fresh seeds" sim_fresh_seeds
step "simulator, one seed twice" sim_repeats
step "simulator, one seed in debug" sim_repeats_in_debug
# Every point at which a member dies, and an eighth of those at which it dies again in its recovery, another one in each run.
step "simulator, crash points" "${MAINSTAY[@]}" sim --crash-points --twice-every 8 --first "$RANDOM" --json
step "every schedule up to a bound" "${MAINSTAY[@]}" sim --explore --states "$EXPLORED_STATES" --json
step "an eighth of the planted bugs is found" planted_bugs_are_found
step "nemesis finds a planted bug" nemesis_finds_a_planted_bug
# The program with bugs is the one that was just built; the test itself was compiled long ago.
step "a planted member is found out" env MAINSTAY_WITH_BUGS="${CARGO_TARGET_DIR:-$PWD/target}/release/mainstay" \
    cargo test --workspace --test real_processes planted

diff <(printf '%s\n' "$tree_before") <(printf '%s\n' "$(tree_state)") || fail "the run changed the tree (see above)"

say
printf '%s\n' "${summary[@]}"
printf '%5d s  in all\n' "$SECONDS"
say "ci: OK"

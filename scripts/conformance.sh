#!/usr/bin/env bash
# Runs clients of etcd that others wrote, and their tests, against members of ours, and prints a table.
#
#   scripts/conformance.sh [SUITE...]      etcdctl aetcd etcd3gw [default: all of them]
#   MAINSTAY=PATH scripts/conformance.sh   the binary [default: a release build of this tree]
#   WRITE=1 scripts/conformance.sh         also writes the table to docs/compatibility.md
#
# What always holds: each suite gets fresh members on ports of its own and has its time bounded; members are ended and
# their data removed. What a suite needs is installed below target/conformance. It needs pip for Python's suites;
# a suite that cannot be installed is said to be skipped. One suite that fails makes this fail.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
place=$root/target/conformance
SUITE_SECONDS_MAX=600
mkdir -p "$place"
scratch=$(mktemp -d)
members=()
rows=()
failed=0
# Below the ports that local clusters take; another run at the same time takes others.
base=$((10000 + RANDOM % 80 * 10))

say() { printf 'conformance: %s\n' "$*" >&2; }

end_members() {
    local pid
    for pid in "${members[@]:-}"; do
        [[ -z $pid ]] || kill "$pid" 2>/dev/null || true
    done
    for pid in "${members[@]:-}"; do
        [[ -z $pid ]] || wait "$pid" 2>/dev/null || true
    done
    members=()
}
trap 'end_members; rm -rf "$scratch"' EXIT

if [[ -z ${MAINSTAY:-} ]]; then
    cargo build --quiet --release --bin mainstay
    MAINSTAY=$root/target/release/mainstay
fi

# start_members COUNT BASE: members n1, n2, … with client ports BASE, BASE + 10, …
start_members() {
    local count=$1 base=$2 number cluster="" data=$scratch/data
    rm -rf "$data"
    for ((number = 0; number < count; number++)); do
        cluster+="n$number=127.0.0.1:$((base + 10 * number + 2)),"
    done
    for ((number = 0; number < count; number++)); do
        start_member "$number" "$base" "${cluster%,}" "$data"
    done
    for ((number = 0; number < count; number++)); do
        wait_ready "$number" "$data"
    done
}

start_member() {
    local number=$1 port=$(($2 + 10 * $1))
    mkdir -p "$4"
    "$MAINSTAY" start --name "n$number" --data "$4/n$number" --listen-client "127.0.0.1:$port" \
        --listen-native "127.0.0.1:$((port + 1))" --listen-peer "127.0.0.1:$((port + 2))" \
        --initial-cluster "$3" --election-ms 500 >"$4/ready.$number" 2>"$4/log.$number" &
    members[number]=$!
}

wait_ready() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        grep -q ready "$2/ready.$1" 2>/dev/null && return 0
        sleep 0.1
    done
    say "member n$1 is not ready:"
    tail -n 5 "$2/log.$1" >&2
    return 1
}

# row SUITE EXPECTED FOUND
row() {
    rows+=("| $1 | $2 | $3 |")
    say "$1: $3 (etcd 3.5.1: $2)"
}

python_place() {
    if [[ ! -x $place/python/bin/python ]]; then
        python3 -m venv "$place/python" || return 1
    fi
    "$place/python/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# source_of PACKAGE VERSION: the unpacked source archive of a Python package.
source_of() {
    local archive=$place/$1-$2.tar.gz
    [[ -f $archive ]] || "$place/python/bin/pip" download --quiet --disable-pip-version-check --no-deps \
        --no-binary :all: --dest "$place" "$1==$2" >&2 || return 1
    tar -xzf "$archive" -C "$scratch"
    printf '%s\n' "$scratch/$1-$2"
}

# counted LOG: pytest's last line, without its time.
counted() { grep -Eo '[0-9]+ (passed|failed|skipped|errors?)' "$1" | tail -n 4 | paste -sd, | sed 's/,/, /g'; }

suite_etcdctl() {
    local etcd etcdctl
    etcd=$(scripts/get-etcd.sh) || { row etcdctl "all commands" "skipped: no etcd"; return 0; }
    etcdctl=$(dirname "$etcd")/etcdctl
    start_members 3 "$base"
    if ETCDCTL=$etcdctl BASE=$base DATA=$scratch PIDS="${members[*]}" timeout "$SUITE_SECONDS_MAX" \
        bash scripts/conformance-etcdctl.sh >"$scratch/etcdctl.log" 2>&1; then
        row "etcdctl 3.5.1, three members, the leader killed in between" "all commands" \
            "$(grep -c '^ok' "$scratch/etcdctl.log") commands"
    else
        cat "$scratch/etcdctl.log" >&2
        row "etcdctl 3.5.1, three members, the leader killed in between" "all commands" "FAILED"
        failed=1
    fi
}

suite_etcd3gw() {
    local source
    python_place etcd3gw==2.7.0 pytest oslotest || { row etcd3gw "39 passed" "skipped: not installed"; return 0; }
    source=$(source_of etcd3gw 2.7.0) || { row etcd3gw "39 passed" "skipped: no source"; return 0; }
    start_members 1 "$base"
    (cd "$source" && TOOZ_TEST_ETCD_PORT=$base TOOZ_TEST_HTTP_URL=http://localhost:$base \
        timeout "$SUITE_SECONDS_MAX" "$place/python/bin/python" -m pytest -q etcd3gw/tests) \
        >"$scratch/etcd3gw.log" 2>&1 || { tail -n 60 "$scratch/etcd3gw.log" >&2; failed=1; }
    row "etcd3gw 2.7.0 (JSON)" "39 passed" "$(counted "$scratch/etcd3gw.log")"
}

suite_aetcd() {
    local source
    python_place aetcd==1.0.0 pytest pytest-asyncio pytest-mock || { row aetcd "61 passed, 2 skipped" "skipped: not installed"; return 0; }
    source=$(source_of aetcd 1.0.0) || { row aetcd "61 passed, 2 skipped" "skipped: no source"; return 0; }
    start_members 1 "$base"
    (cd "$source" && TEST_ETCD_HTTP_URL=http://localhost:$base PATH=$root/target/etcd:$PATH \
        timeout "$SUITE_SECONDS_MAX" "$place/python/bin/python" -m pytest -q -o addopts= tests/integration) \
        >"$scratch/aetcd.log" 2>&1 || { tail -n 60 "$scratch/aetcd.log" >&2; failed=1; }
    row "aetcd 1.0.0 (integration tests)" "61 passed, 2 skipped" "$(counted "$scratch/aetcd.log")"
}

suites=("$@")
[[ ${#suites[@]} -gt 0 ]] || suites=(etcdctl etcd3gw aetcd)
for suite in "${suites[@]}"; do
    say "== $suite"
    "suite_$suite"
    end_members
    base=$((base + 30))
done

table() {
    printf '# Clients of etcd against mainstay\n\n'
    printf 'Made by `WRITE=1 scripts/conformance.sh`. The middle column is what etcd 3.5.1 passes.\n\n'
    printf '| suite | etcd 3.5.1 | mainstay |\n|---|---|---|\n'
    printf '%s\n' "${rows[@]}"
}
table
if [[ ${WRITE:-} == 1 ]]; then
    table >docs/compatibility.md
fi
exit "$failed"

#!/usr/bin/env bash
# Runs clients of etcd that others wrote, and their tests, against members of ours, and prints a table.
#
#   scripts/conformance.sh [SUITE...]      etcdctl etcdctl34 aetcd etcd3gw etcd_client etcd3_node [default: all of them]
#   MAINSTAY=PATH scripts/conformance.sh   the binary [default: a release build of this tree]
#   WRITE=1 scripts/conformance.sh         also writes the table to docs/compatibility.md
#
# What always holds: each suite gets fresh members on ports of its own and has its time bounded; members are ended and
# their data removed. What a suite needs is installed below target/conformance. It needs pip for Python's suites and for
# protoc, apt-get for etcdctl 3.4, npm for Node's; a suite that cannot be installed is said to be skipped. One suite that
# fails makes this fail. Tests that are left out are named here, each with the reason.

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

# counted LOG: how many tests passed and did not, by the last line of pytest or of Rust's tests.
counted() { grep -Eo '[1-9][0-9]* (passed|failed|skipped|errors?|deselected)' "$1" | tail -n 4 | paste -sd, | sed 's/,/, /g'; }

# etcdctl_suite VERSION ETCDCTL
etcdctl_suite() {
    local what="etcdctl $1, three members, the leader killed in between"
    start_members 3 "$base"
    if ETCDCTL=$2 VERSION=$1 BASE=$base DATA=$scratch PIDS="${members[*]}" timeout "$SUITE_SECONDS_MAX" \
        bash scripts/conformance-etcdctl.sh >"$scratch/etcdctl.log" 2>&1; then
        row "$what" "all commands" "$(grep -c '^ok' "$scratch/etcdctl.log") commands"
    else
        cat "$scratch/etcdctl.log" >&2
        row "$what" "all commands" "FAILED"
        failed=1
    fi
}

suite_etcdctl() {
    local etcd
    etcd=$(scripts/get-etcd.sh) || { row etcdctl "all commands" "skipped: no etcd"; return 0; }
    etcdctl_suite 3.5 "$(dirname "$etcd")/etcdctl"
}

suite_etcdctl34() {
    local directory=$place/etcdctl34
    if [[ ! -x $directory/usr/bin/etcdctl ]]; then
        mkdir -p "$directory"
        (cd "$directory" && apt-get download --quiet etcd-client && dpkg-deb -x etcd-client_*.deb .) >&2 ||
            { row "etcdctl 3.4" "all commands" "skipped: not to be had"; return 0; }
    fi
    etcdctl_suite 3.4 "$directory/usr/bin/etcdctl"
}

# Its tests know one port only, which is replaced by ours, and a user root; they run one after the other, since they share
# keys. Left out: a fourth member, and tokens that end within four seconds (they fail with a stock etcd, too).
suite_etcd_client() {
    local source=$place/etcd-client-0.21.1 stock="23 passed"
    local what="etcd-client 0.21.1 (Rust, tests/client.rs)"
    python_place grpcio-tools || { row "$what" "$stock" "skipped: no protoc"; return 0; }
    printf '#!/bin/sh\nexec "%s" -m grpc_tools.protoc "$@"\n' "$place/python/bin/python" >"$place/protoc"
    chmod +x "$place/protoc"
    [[ -d $source ]] || source_of_crate etcd-client 0.21.1 || { row "$what" "$stock" "skipped: no source"; return 0; }
    start_members 1 "$base"
    user_root
    sed -i "s/localhost:[0-9]*/localhost:$base/" "$source/tests/testing.rs"
    (cd "$source" && PROTOC=$place/protoc CARGO_TARGET_DIR=$place/etcd-client-target \
        timeout "$SUITE_SECONDS_MAX" cargo test --quiet --jobs 1 --test client -- --test-threads 1 --include-ignored \
        --skip test_cluster --skip test_auth_refresh_token) >"$scratch/etcd-client.log" 2>&1 ||
        { tail -n 60 "$scratch/etcd-client.log" >&2; failed=1; }
    row "$what" "$stock" "$(counted "$scratch/etcd-client.log")"
}

# source_of_crate NAME VERSION: puts a copy of what cargo fetches into $place/NAME-VERSION, as a workspace of its own.
source_of_crate() {
    local fetched manifest
    mkdir -p "$place/fetch/src"
    : >"$place/fetch/src/lib.rs"
    printf '[package]\nname = "fetch"\n[dependencies]\n%s = "=%s"\n[workspace]\n' "$1" "$2" >"$place/fetch/Cargo.toml"
    fetched=$(cargo metadata --quiet --format-version 1 --manifest-path "$place/fetch/Cargo.toml") || return 1
    manifest=$(grep -o "\"manifest_path\":\"[^\"]*/$1-$2/Cargo.toml\"" <<<"$fetched" | head -n 1 | cut -d '"' -f 4)
    [[ -n $manifest ]] || return 1
    cp -r "$(dirname "$manifest")" "$place/$1-$2"
    printf '\n[workspace]\n' >>"$place/$1-$2/Cargo.toml"
}

# A user root, who may do everything once users count.
user_root() {
    local path body
    while read -r path body; do
        curl --silent --fail --output /dev/null --data "$body" "http://localhost:$base/v3/auth/$path"
    done <<'END'
user/add {"name": "root", "password": "rootpwd"}
role/add {"name": "root"}
user/grant {"user": "root", "role": "root"}
END
}

suite_etcd3_node() {
    local what="etcd3 1.1.2 (Node; put, get, delete, watch, lease, lock, election)"
    mkdir -p "$place/node"
    (cd "$place/node" && npm install --silent --no-save --prefix . etcd3@1.1.2 >&2) ||
        { row "$what" ok "skipped: not installed"; return 0; }
    start_members 1 "$base"
    if NODE_PATH=$place/node/node_modules timeout "$SUITE_SECONDS_MAX" node scripts/conformance-etcd3.js \
        "127.0.0.1:$base" >"$scratch/node.log" 2>&1; then
        row "$what" ok "$(tail -n 1 "$scratch/node.log")"
    else
        cat "$scratch/node.log" >&2
        row "$what" ok "FAILED"
        failed=1
    fi
}

suite_etcd3gw() {
    local source
    python_place etcd3gw==2.7.0 pytest oslotest || { row etcd3gw "39 passed" "skipped: not installed"; return 0; }
    source=$(source_of etcd3gw 2.7.0) || { row etcd3gw "39 passed" "skipped: no source"; return 0; }
    start_members 3 "$base"
    (cd "$source" && TOOZ_TEST_ETCD_PORT=$base TOOZ_TEST_HTTP_URL=http://localhost:$base \
        timeout "$SUITE_SECONDS_MAX" "$place/python/bin/python" -m pytest -q etcd3gw/tests) \
        >"$scratch/etcd3gw.log" 2>&1 || { tail -n 60 "$scratch/etcd3gw.log" >&2; failed=1; }
    row "etcd3gw 2.7.0 (JSON)" "39 passed" "$(counted "$scratch/etcd3gw.log")"
}

suite_aetcd() {
    local source
    python_place aetcd==1.0.0 pytest pytest-asyncio pytest-mock || { row aetcd "61 passed, 2 skipped" "skipped: not installed"; return 0; }
    source=$(source_of aetcd 1.0.0) || { row aetcd "61 passed, 2 skipped" "skipped: no source"; return 0; }
    # One test knows a port of its own.
    sed -i "s/aetcd.Client(/aetcd.Client(port=$base, /" "$source/tests/integration/test_auth.py"
    start_members 3 "$base"
    (cd "$source" && TEST_ETCD_HTTP_URL=http://localhost:$base PATH=$root/target/etcd:$PATH \
        timeout "$SUITE_SECONDS_MAX" "$place/python/bin/python" -m pytest -q -o addopts= tests/integration) \
        >"$scratch/aetcd.log" 2>&1 || { tail -n 60 "$scratch/aetcd.log" >&2; failed=1; }
    row "aetcd 1.0.0 (integration tests)" "61 passed, 2 skipped" "$(counted "$scratch/aetcd.log")"
}

suites=("$@")
[[ ${#suites[@]} -gt 0 ]] || suites=(etcdctl etcdctl34 etcd3gw aetcd etcd_client etcd3_node)
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

#!/usr/bin/env bash
# Every command of etcdctl that talks to a server, against three members, the leader killed in between. Called by
# conformance.sh, which has started the members and will end those that are left.
#
# ETCDCTL: the program. BASE: the client port of the first member; the others' are 10 and 20 above it. DATA: a directory for
# scratch. PIDS: the members' processes, in order.

set -euo pipefail
endpoints=127.0.0.1:$BASE,127.0.0.1:$((BASE + 10)),127.0.0.1:$((BASE + 20))
second=$((BASE + 10))
read -r -a pids <<<"$PIDS"
ctl() { ETCDCTL_API=3 timeout 30 "$ETCDCTL" --endpoints "$endpoints" --command-timeout 20s "$@"; }

# expect WHAT PATTERN COMMAND...: runs it and looks for PATTERN in what it says.
expect() {
    local what=$1 pattern=$2 said
    shift 2
    if ! said=$("$@" 2>&1) || ! grep -Eq -- "$pattern" <<<"$said"; then
        printf 'FAILED %s: %s\nwanted: %s\nsaid:   %s\n' "$what" "$*" "$pattern" "$said"
        exit 1
    fi
    printf 'ok %s\n' "$what"
}
txn() { printf 'value("a") = "1"\n\nput a 2\nget a\n\nget a\n\n' | ctl txn; }

round() {
    expect "put" OK ctl put a 1
    expect "get" '^1$' ctl get a
    expect "get --prefix --keys-only" '^a$' ctl get --prefix --keys-only a
    expect "get --count-only -w fields" '"Count" : 1' ctl get a --count-only -w fields
    expect "get --consistency=s" '^1$' ctl get a --consistency=s
    expect "put --prev-kv" '^1$' ctl put a 1 --prev-kv
    expect "txn" SUCCESS txn
    expect "get --rev" '^2$' ctl get a
    expect "put b" OK ctl put b 1
    expect "del --prefix" '^1$' ctl del b --prefix
    local lease
    lease=$(ctl lease grant 600 | awk '{print $2}')
    expect "lease grant" '^[0-9a-f]+$' echo "$lease"
    expect "put --lease" OK ctl put leased x --lease="$lease"
    expect "lease timetolive --keys" 'leased' ctl lease timetolive "$lease" --keys
    expect "lease list" "$lease" ctl lease list
    expect "lease keep-alive --once" 'keepalived with TTL\(600\)' ctl lease keep-alive --once "$lease"
    expect "lease revoke" 'revoked' ctl lease revoke "$lease"
    expect "lock" 'locked' ctl lock round -- sh -c 'echo locked'
    expect "elect, elect --listen" 'here' elect
    expect "watch --rev" '^PUT$' watch
    local revision
    revision=$(ctl get a -w json | sed -n 's/.*"revision":\([0-9]*\).*/\1/p')
    expect "compaction" "compacted revision $revision" ctl compaction "$revision"
    expect "endpoint status" "$second" ctl endpoint status -w table
    expect "endpoint hashkv" "$second" ctl endpoint hashkv
    expect "endpoint health" 'is healthy' ctl endpoint health
    expect "member list" "127.0.0.1:$second" ctl member list
    expect "alarm list" '^$' ctl alarm list
    expect "alarm disarm" '^$' ctl alarm disarm
    expect "defrag" 'Finished defragmenting' ctl defrag
    expect "auth status" 'Authentication Status: false' ctl auth status
    expect "make-mirror's reads: get --from-key" 'a' ctl get --from-key '' --keys-only
}

watch() { timeout 5 "$ETCDCTL" --endpoints "$endpoints" watch a --rev 2 2>/dev/null | head -n 3 || true; }

elect() {
    timeout 20 "$ETCDCTL" --endpoints "$endpoints" elect leader here >"$DATA/elect" 2>&1 &
    local campaign=$! tries said=""
    for ((tries = 0; tries < 50; tries++)); do
        said=$(timeout 2 "$ETCDCTL" --endpoints "$endpoints" elect --listen leader 2>/dev/null | head -n 2 || true)
        [[ -z $said ]] || break
    done
    kill "$campaign" 2>/dev/null || true
    printf '%s\n' "$said"
}

round
leader=""
for number in 0 1 2; do
    port=$((BASE + 10 * number))
    if ETCDCTL_API=3 "$ETCDCTL" --endpoints "127.0.0.1:$port" endpoint status | awk -F', ' '{print $5}' | grep -q true; then
        leader=$number
    fi
done
printf 'killing the leader, n%s\n' "$leader"
kill -9 "${pids[$leader]}"
endpoints=$(for number in 0 1 2; do [[ $number == "$leader" ]] || printf '127.0.0.1:%s,' $((BASE + 10 * number)); done)
endpoints=${endpoints%,}
# The first write may be one that was on its way to the killed leader; its outcome is unknown then, and etcdctl, like all
# clients of etcd, leaves it to its user to write again.
put_again() {
    local tries
    for ((tries = 0; tries < 10; tries++)); do
        ctl put a 3 && return 0
    done
    return 1
}
expect "put after the leader was killed" OK put_again
expect "get after the leader was killed" '^3$' ctl get a
expect "watch after the leader was killed" 'PUT' sh -c "timeout 5 '$ETCDCTL' --endpoints '$endpoints' watch a --rev $(ctl get a -w json | sed -n 's/.*"revision":\([0-9]*\).*/\1/p') | head -n 1"
expect "lock after the leader was killed" 'locked' ctl lock again -- sh -c 'echo locked'
lease=$(ctl lease grant 600 | awk '{print $2}')
expect "lease keep-alive after the leader was killed" 'keepalived with TTL\(600\)' ctl lease keep-alive --once "$lease"

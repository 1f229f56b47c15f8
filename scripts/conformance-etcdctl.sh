#!/usr/bin/env bash
# Every command of etcdctl that talks to a server, against three members; then the leader is killed, and every command once
# more. Called by conformance.sh, which has started the members and will end those that are left.
#
# Left out: changes of members; `migrate`, which reads files of etcd before its version 3.
#
# ETCDCTL: the program. VERSION: its version, 3.4 or 3.5. BASE: the client port of the first member; the others' are 10 and
# 20 above it. DATA: a directory for scratch. PIDS: the members' processes, in order.

set -euo pipefail
export ETCDCTL_API=3
endpoints=127.0.0.1:$BASE,127.0.0.1:$((BASE + 10)),127.0.0.1:$((BASE + 20))
# One of the members that live, for commands of one member.
one=127.0.0.1:$((BASE + 10))
read -r -a pids <<<"$PIDS"
ctl() { timeout 30 "$ETCDCTL" --endpoints "$endpoints" --command-timeout 20s "$@"; }
ctl_one() { timeout 90 "$ETCDCTL" --endpoints "$one" --command-timeout 20s "$@"; }

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

revision() { ctl get a -w json | sed -n 's/.*"revision":\([0-9]*\).*/\1/p'; }

keys_and_values() {
    local before
    expect "put" OK ctl put a 1
    before=$(revision)
    expect "get" '^1$' ctl get a
    expect "get --prefix --keys-only" '^a$' ctl get --prefix --keys-only a
    [[ $VERSION == 3.4 ]] || expect "get --count-only -w fields" '"Count" : 1' ctl get a --count-only -w fields
    expect "get --consistency=s" '^1$' ctl get a --consistency=s
    expect "get --from-key" '^a$' ctl get --from-key '' --keys-only
    expect "put --prev-kv" '^1$' ctl put a 1 --prev-kv
    expect "txn" SUCCESS txn
    expect "get after a transaction" '^2$' ctl get a
    expect "get --rev" '^1$' ctl get a --rev "$before"
    expect "watch --rev" '^PUT$' watch "$before"
    expect "put b" OK ctl put b 1
    expect "del --prefix" '^1$' ctl del b --prefix
    expect "make-mirror" '^2$' mirror
    before=$(revision)
    expect "compaction" "compacted revision $before" ctl compaction "$before"
}

# The events since a revision that come first.
watch() { timeout 5 "$ETCDCTL" --endpoints "$endpoints" watch a --rev "$1" 2>/dev/null | head -n 3 || true; }

# What a mirror of `a` below another prefix shows; it would go on for ever.
mirror() {
    local tries said=""
    timeout 20 "$ETCDCTL" --endpoints "$endpoints" make-mirror --prefix a --dest-prefix mirror/a --dest-insecure-transport \
        "$one" >"$DATA/mirror" 2>&1 &
    local mirroring=$!
    for ((tries = 0; tries < 50; tries++)); do
        said=$(ctl get mirror/a --print-value-only)
        [[ -z $said ]] || break
    done
    kill "$mirroring" 2>/dev/null || true
    wait "$mirroring" 2>/dev/null || true
    ctl del --prefix mirror/ >/dev/null
    printf '%s\n' "$said"
}

leases_locks_and_elections() {
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
}

elect() {
    local tries said=""
    timeout 20 "$ETCDCTL" --endpoints "$endpoints" elect leader here >"$DATA/elect" 2>&1 &
    local campaign=$!
    for ((tries = 0; tries < 50; tries++)); do
        said=$(timeout 2 "$ETCDCTL" --endpoints "$endpoints" elect --listen leader 2>/dev/null | head -n 2 || true)
        [[ -z $said ]] || break
    done
    kill "$campaign" 2>/dev/null || true
    wait "$campaign" 2>/dev/null || true
    printf '%s\n' "$said"
}

upkeep() {
    expect "endpoint status" "$one" ctl endpoint status -w table
    expect "endpoint hashkv" "$one" ctl endpoint hashkv
    expect "endpoint health" 'is healthy' ctl endpoint health
    expect "member list" "$one" ctl member list
    expect "alarm list" '^$' ctl alarm list
    expect "alarm disarm" '^$' ctl alarm disarm
    expect "defrag" 'Finished defragmenting' ctl defrag
    expect "snapshot save" 'saved|Snapshot' ctl_one snapshot save "$DATA/saved"
    expect "snapshot status" '^[0-9a-f]+, [1-9]' ctl_one snapshot status "$DATA/saved"
    rm -rf "$DATA/restored"
    expect "snapshot restore" 'restor|member|^$' ctl_one snapshot restore "$DATA/saved" --data-dir "$DATA/restored"
    expect "the database in it" 'db$' ls "$DATA/restored/member/snap"
    expect "move-leader" 'transferred' move_leader
    expect "check datascale" 'PASS' ctl_one check datascale --load s
}

# From whoever leads to another.
move_leader() {
    local target
    target=$(ctl endpoint status | awk -F', ' '$5 == "false" {print $2; exit}')
    ctl move-leader "$target"
}

root() { ctl --user root:secret "$@"; }

users_and_roles() {
    [[ $VERSION == 3.4 ]] || expect "auth status" 'Authentication Status: false' ctl auth status
    expect "user add" 'User root created' ctl user add root:secret
    expect "role add" 'Role root created' ctl role add root
    expect "user grant-role" 'granted to user root' ctl user grant-role root root
    expect "user add --new-user-password" 'User reader created' ctl user add reader --new-user-password old
    expect "role add, of another" 'Role readers created' ctl role add readers
    expect "role grant-permission" 'Role readers updated' ctl role grant-permission readers read a
    expect "role grant-permission --prefix" 'Role readers updated' ctl role grant-permission readers readwrite b --prefix=true
    expect "user grant-role, of another" 'granted to user reader' ctl user grant-role reader readers
    expect "auth enable" 'Authentication Enabled' ctl auth enable
    expect "get by nobody" 'user name is empty' refused ctl get a
    expect "get by root" '^2$' root get a
    expect "user passwd" 'Password updated' passwd reader new
    expect "get by another, with the old password" 'invalid user ID or password' refused ctl --user reader:old get a
    expect "get by another" '^2$' ctl --user reader:new get a
    expect "put by another" 'permission denied' refused ctl --user reader:new put a 3
    expect "put by another, where it may" 'OK' ctl --user reader:new put b/1 3
    expect "del by another, where it may" '^1$' ctl --user reader:new del b/1
    expect "user get" 'readers' root user get reader
    expect "user get --detail" 'b' root user get reader --detail
    expect "user list" 'reader' root user list
    expect "role get" 'KV Read' root role get readers
    expect "role list" 'readers' root role list
    expect "role revoke-permission" 'Permission of key a is revoked' root role revoke-permission readers a
    expect "get by another, not any more" 'permission denied' refused ctl --user reader:new get a
    expect "user revoke-role" 'revoked from user reader' root user revoke-role reader readers
    expect "user delete" 'User reader deleted' root user delete reader
    expect "role delete" 'Role readers deleted' root role delete readers
    expect "auth disable" 'Authentication Disabled' root auth disable
    expect "get by nobody, once more" '^2$' ctl get a
    expect "user delete, of root" 'User root deleted' ctl user delete root
    expect "role delete, of root" 'Role root deleted' ctl role delete root
}

# refused COMMAND...: succeeds if it fails.
refused() { ! "$@"; }

passwd() { printf '%s\n' "$2" | root user passwd "$1" --interactive=false; }

# Whether the machine is fast enough for what it looks for is not what is tried here.
perf() { ctl_one check perf --load s || true; }

round() {
    keys_and_values
    leases_locks_and_elections
    upkeep
    users_and_roles
}

round
leader=""
for number in 0 1 2; do
    port=$((BASE + 10 * number))
    if "$ETCDCTL" --endpoints "127.0.0.1:$port" endpoint status | awk -F', ' '{print $5}' | grep -q true; then
        leader=$number
    fi
done
printf 'killing the leader, n%s\n' "$leader"
kill -9 "${pids[$leader]}"
endpoints=$(for number in 0 1 2; do [[ $number == "$leader" ]] || printf '127.0.0.1:%s,' $((BASE + 10 * number)); done)
endpoints=${endpoints%,}
one=${endpoints%,*}
expect "put after the leader was killed" OK ctl put after 1
round
[[ $VERSION == 3.4 ]] || expect "check perf" 'PASS: Throughput' perf

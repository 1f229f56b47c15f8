#!/usr/bin/env bash
# The rows of docs/performance.md: each load RUNS times (5 by default) on a cluster of its own, medians at the end.
#
#   scripts/bench.sh [RUNS]             takes about 8 minutes; nothing else should run on the machine
#
# Every line printed is one run, as JSON, on standard output; the table of medians comes last, on standard error.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-5}
results=$(mktemp)
trap 'rm -f "$results"' EXIT

cargo build --quiet --release --workspace
harness=target/release/bench-harness

# row NAME ARGUMENTS...: the same load, again and again.
row() {
    local name=$1 run
    shift
    for ((run = 1; run <= runs; run++)); do
        printf '%s run %d of %d\n' "$name" "$run" "$runs" >&2
        "$harness" load --op put --warmup 2 --json "$@" 2>/dev/null | sed "s/^{/{\"row\":\"$name\",/" | tee -a "$results"
    done
}

row P1 --connections 16 --depth 64 --seconds 5
row P1b --connections 256 --depth 1 --seconds 5
row P2 --connections 64 --depth 16 --rate 20000 --seconds 5
row P3 --connections 1 --depth 1 --seconds 5
row P11 --members 5 --connections 16 --depth 64 --seconds 5
"$harness" nemesis --rounds 20 --only kill-leader --election-ms 300 --json 2>/dev/null \
    | sed 's/^{/{"row":"P7",/' | tee -a "$results"

# The median of field $2, a path such as latency_ms.p50, over the runs of row $1.
median() {
    sed -n "/\"row\":\"$1\"/p" "$results" | python3 -c '
import json, statistics, sys
values = []
for line in sys.stdin:
    value = json.loads(line)
    for step in sys.argv[1].split("."):
        value = value[step]
    values.append(value)
print(f"{statistics.median(values):.2f}")' "$2"
}

{
    echo
    for name in P1 P1b P2 P3 P11; do
        printf '%-4s %10s ops/s  p50 %s ms  p99 %s ms  server %s us/op  client %s us/op  raw p99 %s us\n' "$name" \
            "$(median "$name" ops_per_s)" "$(median "$name" latency_ms.p50)" "$(median "$name" latency_ms.p99)" \
            "$(median "$name" server_cpu_us_per_op)" "$(median "$name" client_cpu_us_per_op)" \
            "$(median "$name" raw_dsync_us.p99)"
    done
    printf '%-4s %10s ms in the median, %s ms at the worst of 20\n' P7 \
        "$(median P7 silence_p50_ms)" "$(median P7 silence_max_ms)"
} >&2

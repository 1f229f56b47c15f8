#!/usr/bin/env bash
# The campaign before a change to raft, wal, kv or replica is called done: many seeds, and every planted bug found.
#
#   scripts/sim-soak.sh [SEEDS] [FIRST_SEED]      20,000 seeds of one simulated minute by default

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds=${1:-20000}
first=${2:-$(($(od -An -N4 -tu4 /dev/urandom) * 4096))}

echo "seeds $first and the $seeds from there on, one simulated minute each"
cargo run --quiet --release --bin mainstay -- sim --seeds "$seeds" --first "$first" --minutes 1 --json
echo "every crash point"
cargo run --quiet --release --bin mainstay -- sim --crash-points --json
echo "every schedule of small clusters, up to ten million states of each"
cargo run --quiet --release --bin mainstay -- sim --explore --states 10000000 --json
echo "planted bugs"
cargo run --quiet --release --bin mainstay --features planted -- sim --planted all --json

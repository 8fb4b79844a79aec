#!/bin/sh
# Builds the agent for Linux on aarch64 and runs it under qemu: its commands, and the tests of the protocol.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
missing=
for entry in aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64:qemu-user; do
    command -v "${entry%%:*}" >/dev/null || missing="$missing ${entry##*:}"
done
if [ -n "$missing" ]; then
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    # Unquoted: one argument a package.
    # shellcheck disable=SC2086
    $sudo apt-get install -q -y --no-install-recommends $missing libc6-dev-arm64-cross
fi
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu'
cargo build --package riposte-agent --locked --target "$target"
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
agent="qemu-aarch64 -L /usr/aarch64-linux-gnu target/$target/debug/riposte-agent"
$agent --version
$agent actions --state-dir "$state" --json | python3 -c '
import json, sys
actions = json.load(sys.stdin)
assert any(action["action"] == "log-only" and action["available"] for action in actions), actions'
cargo nextest run --package riposte-protocol --locked --target "$target"

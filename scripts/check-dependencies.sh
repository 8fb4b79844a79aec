#!/usr/bin/env bash
# Licences, bans and sources of all dependencies, and known vulnerabilities if the advisory database can be had. Without it
# the other checks run, and the last lines say that this one did not.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked
cargo deny check licenses bans sources

# A database that was fetched before counts for 90 days (deny.toml); `cargo deny` refuses an older one.
if fetched=$(cargo deny fetch db 2>&1); then
    cargo deny --offline check advisories
elif [ -n "$(find "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" -mindepth 2 -maxdepth 2 -name crates 2>/dev/null)" ]; then
    echo "the advisory database cannot be updated; the one of an earlier run is used" >&2
    cargo deny --offline check advisories
else
    {
        echo "KNOWN VULNERABILITIES WERE NOT CHECKED: the advisory database cannot be fetched:"
        echo "$fetched" | sed -n 's/^fatal: /    /p; /ERROR/s/.*\[ERROR\] /    /p'
        echo "Run 'cargo deny check advisories' on a host that reaches https://github.com/RustSec/advisory-db."
    } >&2
fi

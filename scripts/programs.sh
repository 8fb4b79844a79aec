#!/usr/bin/env bash
# Builds released programs of the packages named as arguments, into target/release. The same commit, toolchain and C compiler
# make the same bytes in any folder and at any time: no path and no date of this host gets into a program.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# What C code has of __DATE__ and __TIME__.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# Panics name the file of Rust, assertions the file of C. The separator of encoded flags is a byte that no path has.
separator=$'\x1f'
remap="--remap-path-prefix=$PWD=/riposte$separator--remap-path-prefix=$cargo_home=/cargo"
export CARGO_ENCODED_RUSTFLAGS="${CARGO_ENCODED_RUSTFLAGS:+$CARGO_ENCODED_RUSTFLAGS$separator}$remap"
prefix_map="-ffile-prefix-map=$PWD=/riposte -ffile-prefix-map=$cargo_home=/cargo"
export CFLAGS="${CFLAGS:-} $prefix_map" CXXFLAGS="${CXXFLAGS:-} $prefix_map"
exec cargo build --release --locked "${@/#/--package=}"

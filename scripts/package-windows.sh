#!/bin/sh
# Makes the package of the agent for Windows, target/packages-windows/riposte-agent-VERSION-x64.msi, with wixl.
#   PROGRAM  the agent, built before; else the release is built
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target=x86_64-pc-windows-gnu
out=target/packages-windows
stage=$out/stage
if [ -z "${PROGRAM:-}" ]; then
    cargo build --package riposte-agent --locked --release --target "$target"
    PROGRAM=target/$target/release/riposte-agent.exe
    # What a host must carry; the limit is ours.
    size=$(stat -c %s "$PROGRAM")
    echo "riposte-agent.exe has $size bytes"
    [ "$size" -le $((12 * 1024 * 1024)) ] || { echo 'it must not be larger than 12 MiB' >&2; exit 1; }
fi
rm -rf "$out"
mkdir -p "$stage"
cp "$PROGRAM" "$stage/riposte-agent.exe"
# Notepad of older versions wants both characters at the end of a line.
for file in LICENSE:LICENSE.txt deploy/windows/first-time.ps1:first-time.ps1; do
    sed 's/$/\r/' "${file%%:*}" >"$stage/${file##*:}"
done
wixl --arch x64 -D Version="$version" -D Stage="$stage" -o "$out/riposte-agent-$version-x64.msi" deploy/windows/riposte-agent.wxs
rm -r "$stage"
(cd "$out" && sha256sum ./*.msi >SHA256SUMS)
ls -l "$out"

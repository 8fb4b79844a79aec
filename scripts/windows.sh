#!/bin/sh
# Builds what the tests under Wine need, in target/windows: the agent, the recorder programs, and a Wine prefix in which the
# recorders stand where Windows has netsh, reg, net, powershell, tasklist and taskkill.
set -eu
cd "$(dirname "$0")/.."
target=x86_64-pc-windows-gnu
out=target/windows
mkdir -p "$out/bin"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
# RELEASE=1 takes the program that is shipped; it takes minutes to build.
if [ "${RELEASE:-}" ]; then
    cargo build --package riposte-agent --locked --release --target "$target"
    profile=release
else
    cargo build --package riposte-agent --locked --target "$target"
    profile=debug
fi
cp "target/$target/$profile/riposte-agent.exe" "$out/bin/"
PROGRAM=$out/bin/riposte-agent.exe scripts/package-windows.sh >/dev/null
cp target/packages-windows/*.msi "$out/bin/riposte-agent.msi"
x86_64-w64-mingw32-gcc -shared -O2 -Wall -o "$out/bin/bcryptprimitives.dll" tests/windows/programs/bcryptprimitives.c -ladvapi32
x86_64-w64-mingw32-gcc -municode -O2 -Wall -o "$out/bin/recorder.exe" tests/windows/programs/recorder.c
prefix=$PWD/$out/prefix
if [ ! -d "$prefix/drive_c/windows/system32" ]; then
    echo "making a Wine prefix, which takes a minute"
    WINEPREFIX=$prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree=;mshtml=" wineboot --init >/dev/null 2>&1
    WINEPREFIX=$prefix wineserver --wait
fi
# What a crash of the tests has left is ended with the server of the prefix.
WINEPREFIX=$prefix wineserver --kill 2>/dev/null || true
system=$prefix/drive_c/windows/system32
# Of the programs that the package installs.
cp "$out/bin/bcryptprimitives.dll" "$system/"
for name in netsh reg net tasklist taskkill; do
    rm -f "$system/$name.exe" "$system/$name.exe.log" "$system/$name.exe.state"
    cp "$out/bin/recorder.exe" "$system/$name.exe"
done
mkdir -p "$system/WindowsPowerShell/v1.0"
rm -f "$system/WindowsPowerShell/v1.0/"powershell.exe* "$system/powershell.exe"
cp "$out/bin/recorder.exe" "$system/WindowsPowerShell/v1.0/powershell.exe"

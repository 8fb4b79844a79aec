#!/usr/bin/env bash
# Writes what the released programs are made of, as CycloneDX: target/sbom/riposte.cdx.json and riposte-agent.cdx.json. Fails
# if one of them lacks a crate that cargo would link, or names one that is not in Cargo.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
out=target/sbom

cargo cyclonedx --version >/dev/null 2>&1 || cargo install cargo-cyclonedx --locked

# The tool writes beside each Cargo.toml of the workspace, so it works on a copy.
copy=$out/copy
rm -rf "$out"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$copy"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) cargo cyclonedx --quiet --manifest-path "$copy/Cargo.toml" --format json \
    --spec-version 1.5 --target "$target"
mv "$copy/riposte.cdx.json" "$copy/agent/riposte-agent.cdx.json" "$out/"
# A document for others does not say in which folder it was made.
sed -i "s|$(cd "$copy" && pwd)|/riposte|g" "$out"/*.cdx.json
rm -rf "$copy"

locked=$(awk '/^name = / { name = $3 } /^version = / { print name "@" $3 }' Cargo.lock | tr -d '"' | sort -u)
for package in riposte riposte-agent; do
    document=$out/$package.cdx.json
    named=$(grep -o '"purl": "pkg:cargo/[^"?#]*' "$document" | sed 's|.*pkg:cargo/||' | sort -u)
    linked=$(cargo tree --locked --package "$package" --edges normal --target "$target" --prefix none --no-dedupe \
        --format '{p}' | awk '{ sub(/^v/, "", $2); print $1 "@" $2 }' | sort -u)
    missing=$(comm -13 <(echo "$named") <(echo "$linked"))
    unknown=$(comm -23 <(echo "$named") <(echo "$locked"))
    if [ -n "$missing$unknown" ]; then
        echo "$document is wrong; linked and not named:" $missing "; named and not in Cargo.lock:" $unknown >&2
        exit 1
    fi
    echo "$document names the $(echo "$linked" | wc -l) crates that $package links, and $(echo "$named" | wc -l) in all"
done

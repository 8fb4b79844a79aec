#!/usr/bin/env bash
# Makes what a release publishes, in target/release-VERSION: the packages, the context of both images, what the programs
# are made of (SBOM), SHA256SUMS over all of them, and its signature. `make release` calls it; docs/install.md says how to
# verify it.
#
#   RELEASE_KEY   the private SSH key that signs SHA256SUMS, or its public half if an agent or a hardware token has it
#   UNSIGNED=1    makes no signature: for a trial
#   PROFILE       as in scripts/package.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# The purpose that a signature is made for. Another signature by the same key does not pass for it.
namespace=riposte-release

if [ -z "${RELEASE_KEY:-}" ] && [ -z "${UNSIGNED:-}" ]; then
    echo 'A release is signed: name the SSH key by RELEASE_KEY=FILE, or try without a signature by UNSIGNED=1' >&2
    exit 1
fi
if [ -n "${RELEASE_KEY:-}" ] && ! ssh-keygen -l -f "$RELEASE_KEY" >/dev/null; then
    echo "RELEASE_KEY=$RELEASE_KEY is no SSH key" >&2
    exit 1
fi
if [ -n "$(git status --porcelain)" ]; then
    [ -n "${UNSIGNED:-}" ] || { echo 'A release is made of a commit: commit or stash the changes' >&2; exit 1; }
    echo 'The changes that are not committed are in this trial' >&2
fi

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
out=target/release-$version

OUT=$out scripts/package.sh
scripts/sbom.sh
cp target/sbom/*.cdx.json "$out/"
cp openapi.yaml config.default.toml "$out/"

# The images of the Dockerfile, with these programs instead of a build of their own:
#   tar -xzf riposte-VERSION-images.tar.gz && docker build --target manager -t riposte riposte-images
images=target/package/riposte-images
mkdir -p "$images/bin" "$images/deploy"
cp target/package/bin/* "$images/bin/"
cp deploy/agent-entrypoint.sh "$images/deploy/"
awk '
    / AS build$/ { print "FROM scratch AS build\nCOPY bin/ /build/target/release/\n"; skipping = 1; replaced++; next }
    /^FROM / { skipping = 0 }
    !skipping { print }
    END { exit replaced != 1 }
' Dockerfile >"$images/Dockerfile" || { echo 'the Dockerfile has no stage "build"' >&2; exit 1; }
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c -C target/package riposte-images |
    gzip -n >"$out/riposte-$version-images.tar.gz"

(cd "$out" && find . -type f ! -name 'SHA256SUMS*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum >SHA256SUMS)
if [ -n "${RELEASE_KEY:-}" ]; then
    ssh-keygen -q -Y sign -n "$namespace" -f "$RELEASE_KEY" "$out/SHA256SUMS"
    # As a person who downloads it does.
    signers=$(mktemp)
    public=${RELEASE_KEY%.pub}.pub
    if [ -e "$public" ]; then public=$(cat "$public"); else public=$(ssh-keygen -y -f "$RELEASE_KEY"); fi
    printf 'riposte namespaces="%s" %s\n' "$namespace" "$public" >"$signers"
    (cd "$out" && sha256sum --quiet --check SHA256SUMS &&
        ssh-keygen -Y verify -f "$signers" -I riposte -n "$namespace" -s SHA256SUMS.sig <SHA256SUMS)
    rm "$signers"
else
    echo 'NOT SIGNED: this is a trial, and no release' >&2
fi
echo "$out"

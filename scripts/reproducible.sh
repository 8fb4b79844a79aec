#!/usr/bin/env bash
# Builds the released programs of the packages named as arguments twice, from scratch, in folders of other names and lengths,
# in another time zone and language, with other temporary files. Prints both hashes of each program; fails on a difference
# and says where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/target/reproducible
first=$root/a second=$root/another-folder/with-a-longer-name
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# Both copies first: the second build begins minutes later, and an edit in between would look like a difference.
for folder in "$first" "$second"; do
    rm -rf "$folder"
    mkdir -p "$folder"
    git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$folder"
done

build() {
    local folder=$1
    shift
    mkdir -p "$folder-temporary"
    (cd "$folder" && env -u CARGO_TARGET_DIR TMPDIR="$folder-temporary" "$@")
    rm -rf "$folder-temporary"
}

build "$first" env TZ=UTC LC_ALL=C scripts/programs.sh "$@"
build "$second" env TZ=Asia/Kathmandu LC_ALL=C.UTF-8 scripts/programs.sh "$@"

failed=0
for program in "$@"; do
    one=$first/target/release/$program other=$second/target/release/$program
    for file in "$one" "$other"; do
        printf '%s  %s\n' "$(sha256sum <"$file" | cut -d' ' -f1)" "${file#"$root/"}"
    done
    # A path of this host in a program differs on the next host, also where both builds here have it.
    paths=$(strings -n 6 "$one" "$other" | grep -F -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}/" | sort -u | head -5 || true)
    if [ -n "$paths" ]; then
        printf '%s contains paths of this host:\n%s\n' "$program" "$paths" >&2
        failed=1
    fi
    if ! cmp -s "$one" "$other"; then
        echo "$program is not reproducible. Bytes that differ: $(cmp -l "$one" "$other" | wc -l); sections that differ:" >&2
        diff <(readelf -SW "$one") <(readelf -SW "$other") >&2 || true
        echo "texts that differ:" >&2
        diff <(strings -n 6 "$one") <(strings -n 6 "$other") | head -40 >&2 || true
        failed=1
    fi
done
[ "$failed" -eq 0 ] && echo "reproducible: $*"
exit "$failed"

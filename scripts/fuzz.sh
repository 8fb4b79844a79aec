#!/usr/bin/env bash
# Fuzzes the targets named as arguments, else all of fuzz/corpus, one after the other for FUZZ_SECS seconds each. The stable
# toolchain suffices: the coverage passes are part of it, and sanitizers would find nothing in code without `unsafe`.
#
# What libFuzzer finds on its way is kept in target/fuzz/corpus. With KEEP=1 the smallest inputs that reach more than
# fuzz/corpus are added to it at the end. An input that fails is written to target/fuzz/failed/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECS:-600}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)

if ! cargo bolero --help >/dev/null 2>&1; then
    # Without the engines that need the nightly toolchain or libraries in C.
    cargo install cargo-bolero --locked --no-default-features --features libfuzzer
fi

run() { # target, first folder of inputs, arguments of libFuzzer
    local target=$1 folder=$2 arguments=()
    shift 2
    for argument in "$@"; do arguments+=("--engine-args=$argument"); done
    cargo bolero test --package riposte-fuzz --sanitizer NONE --target-dir target/fuzz --timeout 10s \
        --corpus-dir "$folder" --crashes-dir "$PWD/target/fuzz/failed/$target" "${arguments[@]}" "$target"
}

failed=()
for target in "${targets[@]}"; do
    kept=$PWD/fuzz/corpus/$target found=$PWD/target/fuzz/corpus/$target
    [ -d "$kept" ] || { echo "there is no target $target; see fuzz/corpus" >&2; exit 1; }
    mkdir -p "$found"
    echo "== $target, $seconds s =="
    run "$target" "$found" "$kept" "-max_total_time=$seconds" -max_len=8192 -print_final_stats=1 || failed+=("$target")
    if [ -n "${KEEP:-}" ]; then
        # Only what reaches new code: what takes a loop more often would be thousands of files.
        run "$target" "$kept" "$found" -set_cover_merge=1 -use_counters=0 -use_cmp=0 -max_len=1024
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}. Mend the fault, and keep its input: mv target/fuzz/failed/TARGET/INPUT fuzz/corpus/TARGET/" >&2
    exit 1
fi

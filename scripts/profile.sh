#!/bin/sh
# Where the CPU time of a manager goes: `perf` beside the load of the bench `latency` (RATE alerts a second, 500 unless said
# otherwise). Prints the share of each thread, and of each function with those that it calls. Virtual machines often count no
# instructions, so that it samples the clock.
set -eu
cd "$(dirname "$0")/.."
command -v perf >/dev/null || { echo "perf is missing: install linux-perf" >&2; exit 1; }
mkdir -p target/profile
cargo bench --package riposte --locked --bench latency --no-run
RATE=${RATE:-500} SECONDS=${SECONDS:-20} cargo bench --package riposte --locked --bench latency >target/profile/latency.txt 2>&1 &
load=$!
manager=
for _ in $(seq 60); do
    manager=$(pgrep -f "^$PWD/target/release/riposte serve" | head -n 1) && break
    sleep 0.5
done
[ -n "$manager" ] || { cat target/profile/latency.txt >&2; exit 1; }
# The agents enrol first, and the caches get warm.
sleep 8
perf record -q -e cpu-clock -F 400 --call-graph dwarf,16384 -p "$manager" -o target/profile/perf.data -- sleep 8
wait $load || { cat target/profile/latency.txt >&2; exit 1; }
grep -E "CPU|p50|p99" target/profile/latency.txt
perf report -i target/profile/perf.data --no-children --no-inline -g none --sort comm 2>/dev/null | grep -E "^ +[0-9]"
perf report -i target/profile/perf.data --children --no-inline -g none --sort comm,symbol 2>/dev/null | grep -E "^ +[0-9]" | head -n "${LINES:-80}"
echo "more: perf report -i target/profile/perf.data"

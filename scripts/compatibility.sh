#!/usr/bin/env bash
# Programs of another commit with those of this one, in both directions: its manager with this agent, and this manager
# with its agent. `make compatibility` calls it. The tests are those of `tests/it/compatibility/`, over streams and over
# polls, and as root one block with real packets.
#
#   FROM   the other commit (default: the last one; if nothing has changed since, the one before it)
#
# The other programs are built in a worktree below target/. Both are kept there for the next time.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${FROM:-}" ]; then
    FROM=HEAD~1
    [ -z "$(git status --porcelain)" ] || FROM=HEAD
fi
commit=$(git rev-parse --verify --quiet "$FROM^{commit}") || {
    echo "FROM=$FROM is no commit of this repository" >&2
    exit 1
}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
source=$target/compatibility/source
other=$target/compatibility/build
now=$target/debug

git worktree prune
if [ -e "$source/.git" ]; then
    git -C "$source" checkout --quiet --force --detach "$commit"
else
    git worktree add --quiet --force --detach "$source" "$commit"
fi
echo "The other programs: $(git log -1 --format='%h %s' "$commit")"
(cd "$source" && CARGO_TARGET_DIR=$other cargo build --package riposte --package riposte-agent --bins --locked)
cargo build --package riposte --package riposte-agent --bins --locked

tests='test(/^compatibility::/)'
if [ "$(id -u)" = 0 ]; then
    tests="$tests | test(=real_drop::a_block_that_is_lifted_by_hand_is_lifted_at_once)"
else
    echo 'Not as root: the block with real packets is left out.'
fi
run() {
    echo
    echo "== $1"
    MANAGER_PROGRAM=$2 AGENT_PROGRAM=$3 cargo nextest run --package riposte --test it --locked --no-fail-fast -E "$tests"
}
failed=0
run 'the other manager, this agent' "$other/debug/riposte" "$now/riposte-agent" || failed=1
run 'this manager, the other agent' "$now/riposte" "$other/debug/riposte-agent" || failed=1
exit "$failed"

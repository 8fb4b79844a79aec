#!/usr/bin/env bash
# Runs the manager and one agent on this machine until Ctrl-C, and says what to do next. `make run` builds them first.
#
#   RIPOSTE_LISTEN   where the manager listens (127.0.0.1:8480)
#   DATA             where both keep their files (data)
#   ENFORCE=1        the agent acts (as root); without it, it only says what it would have done
set -eu
cd "$(dirname "$0")/.."
# Settings for another manager must not lead this one's commands astray.
unset RIPOSTE_KEY RIPOSTE_KEY_FILE RIPOSTE_MANAGER RIPOSTE_TOKEN RIPOSTE_STATE_DIR RIPOSTE_OBSERVE

data=${DATA:-data}
listen=${RIPOSTE_LISTEN:-127.0.0.1:8480}
case $listen in
    0.0.0.0:*) url=http://127.0.0.1:${listen##*:} ;;
    '[::]:'*) url="http://[::1]:${listen##*:}" ;;
    *) url=http://$listen ;;
esac
key=$data/manager/admin.key
riposte=target/debug/riposte
agent=target/debug/riposte-agent
pids=()

# Called by the trap below.
# shellcheck disable=SC2317
stop() {
    trap '' INT TERM
    trap - EXIT
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 0' INT TERM

# Each in a process group of its own: Ctrl-C reaches this script alone, which then asks both to stop, once.
start() {
    set -m
    "$@" </dev/null &
    set +m
    pids+=("$!")
}

fail() {
    echo "$*" >&2
    exit 1
}

if "$riposte" status --manager "$url" >/dev/null 2>&1; then
    fail "something answers at $url already; stop it, or set RIPOSTE_LISTEN to another address"
fi
start "$riposte" serve --data-dir "$data/manager" --listen "$listen"
manager_pid=${pids[0]}
for _ in $(seq 300); do
    kill -0 "$manager_pid" 2>/dev/null || fail 'the manager did not start'
    "$riposte" status --manager "$url" >/dev/null 2>&1 && break
    sleep 0.2
done
"$riposte" status --manager "$url" >/dev/null || fail 'the manager did not get ready within a minute'

if [ -e "$data/agent/agent.json" ]; then
    grep -qF "\"manager\": \"$url\"" "$data/agent/agent.json" ||
        fail "the agent in $data/agent is enrolled at another address than $url; set DATA to another directory"
else
    token=$("$riposte" agent token --manager "$url" --key-file "$key" --label env=local)
    printf '%s\n' "$token" | "$agent" enroll --manager "$url" --token-file - --state-dir "$data/agent" ||
        fail "the agent could not be enrolled; to begin anew, stop this and remove $data"
fi
if [ "${ENFORCE:-}" = 1 ]; then
    start "$agent" run --state-dir "$data/agent"
    doing='acts on this machine'
else
    start "$agent" run --state-dir "$data/agent" --observe
    doing='only observes (sudo ENFORCE=1 scripts/run.sh lets it act)'
fi

cat <<TEXT

Riposte runs at $url; its agent $(uname -n) $doing.
In another terminal, in this directory:

  # 1. a policy: who tries passwords over SSH is dropped for a minute
  curl -sS $url/v1/policies -H "Authorization: Bearer \$(cat $key)" -H 'Content-Type: application/json' \\
    -d '{"name":"block-ssh-bruteforce","match":[{"rule_ids":["5763"]}],"respond":{"action":"firewall-drop","for":"1m"}}'

  # 2. an alert, as Wazuh writes it
  curl -sS $url/v1/alerts -H "Authorization: Bearer \$(cat $key)" -H 'Content-Type: application/json' \\
    -d '{"timestamp":"'"\$(date -u +%FT%TZ)"'","id":"'"\$(date +%s).1"'","rule":{"id":"5763","level":10},
         "agent":{"id":"001","name":"'"\$(uname -n)"'"},"data":{"srcip":"203.0.113.7"}}'

  # 3. what became of it: decided, sent, done, and lifted after a minute
  curl -sS $url/v1/responses -H "Authorization: Bearer \$(cat $key)"
  curl -sS $url/v1/commands -H "Authorization: Bearer \$(cat $key)"

The API is described at $url/docs. Ctrl-C stops both.

TEXT
# Until Ctrl-C, or until one of them ends by itself.
wait -n "${pids[@]}" || true
fail 'the manager or the agent has ended; its last lines say why'

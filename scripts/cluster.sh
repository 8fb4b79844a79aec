#!/usr/bin/env bash
# Three managers on one PostgreSQL behind nginx, and ten agents that only observe, in a temporary folder until Ctrl-C.
# `make cluster` installs what it needs and builds the programs.
#
#   PORT     where the proxy listens on loopback (8480); the managers use the three ports after it
#   AGENTS   number of agents (10)
set -eu
cd "$(dirname "$0")/.."
unset RIPOSTE_KEY RIPOSTE_KEY_FILE RIPOSTE_MANAGER RIPOSTE_TOKEN RIPOSTE_STATE_DIR RIPOSTE_OBSERVE
PATH="$PATH:/usr/sbin:/sbin"
for bin in /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$bin"
done
export PATH

port=${PORT:-8480}
agents=${AGENTS:-10}
riposte=target/debug/riposte
agent=target/debug/riposte-agent
folder=$(mktemp -d)
url=http://127.0.0.1:$port
pids=()

# Called by the trap below.
# shellcheck disable=SC2317
stop() {
    trap '' INT TERM
    trap - EXIT
    # What was started last stops first: agents, the proxy, the managers, PostgreSQL.
    for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
        kill "${pids[at]}" 2>/dev/null || true
    done
    for ((at = ${#pids[@]} - 1; at > 0; at--)); do
        wait "${pids[at]}" 2>/dev/null || true
    done
    # Without connections it stops at once.
    [ ${#pids[@]} -eq 0 ] || wait "${pids[0]}" 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 0' INT TERM

# Each in a process group of its own: Ctrl-C reaches this script alone.
start() {
    local log=$1
    shift
    set -m
    "$@" </dev/null >>"$folder/$log.log" 2>&1 &
    set +m
    pids+=("$!")
}

fail() {
    echo "$*; the logs were:" >&2
    tail -n 5 "$folder"/*.log >&2 || true
    exit 1
}

# Waits up to a minute for a command to succeed.
wait_for() {
    local what=$1
    shift
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "$what is not ready within a minute"
}

# PostgreSQL refuses to run as root.
chmod 755 "$folder"
mkdir "$folder/postgres"
as_owner=()
if [ "$(id -u)" -eq 0 ]; then
    chown nobody "$folder/postgres"
    as_owner=(setpriv "--reuid=$(id -u nobody)" --clear-groups)
fi
(cd / && "${as_owner[@]}" initdb --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C \
    --pgdata="$folder/postgres/data") >"$folder/initdb.log" 2>&1 || fail 'PostgreSQL could not be set up'
cd_postgres() { cd / && exec "$@"; }
export -f cd_postgres
start postgres bash -c 'cd_postgres "$@"' postgres "${as_owner[@]}" postgres -D "$folder/postgres/data" \
    -k "$folder/postgres" -h ''
wait_for PostgreSQL psql -h "$folder/postgres" -U postgres -c 'SELECT 1'
database="postgres://postgres@localhost/postgres?host=$folder/postgres"

managers=()
for number in 1 2 3; do
    data=$folder/manager-$number
    own=127.0.0.1:$((port + number))
    if [ "$number" -gt 1 ]; then
        # The others sign with the same key.
        mkdir -m 700 "$data"
        cp -p "$folder/manager-1/signing.key" "$data/"
    fi
    start "manager-$number" "$riposte" serve --data-dir "$data" --listen "$own" --database-url "$database" \
        --public-url "$url" --trusted-proxies 127.0.0.1
    managers+=("${pids[-1]}")
    wait_for "manager $number" "$riposte" status --manager "http://$own"
done
key=$folder/manager-1/admin.key

mkdir -p "$folder/nginx"
cat >"$folder/nginx.conf" <<CONF
pid $folder/nginx/pid;
daemon off;
worker_processes 1;
error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $folder/nginx/body;
    proxy_temp_path $folder/nginx/proxy;
    fastcgi_temp_path $folder/nginx/fastcgi;
    uwsgi_temp_path $folder/nginx/uwsgi;
    scgi_temp_path $folder/nginx/scgi;
    map \$http_upgrade \$riposte_connection { default upgrade; "" ""; }
    upstream riposte {
        server 127.0.0.1:$((port + 1)) max_fails=1 fail_timeout=2s;
        server 127.0.0.1:$((port + 2)) max_fails=1 fail_timeout=2s;
        server 127.0.0.1:$((port + 3)) max_fails=1 fail_timeout=2s;
        keepalive 16;
        keepalive_timeout 20s;
    }
    server {
        listen 127.0.0.1:$port;
        client_max_body_size 17m;
        location / {
            proxy_pass http://riposte;
            proxy_http_version 1.1;
            proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header Forwarded "";
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$riposte_connection;
            proxy_read_timeout 11m;
            # A manager that has no lease says 503: another one is asked, unless the request may change something.
            proxy_next_upstream error timeout http_503;
            proxy_next_upstream_tries 3;
        }
    }
}
CONF
start nginx nginx -e stderr -c "$folder/nginx.conf"
wait_for 'the proxy' "$riposte" status --manager "$url"

for number in $(seq "$agents"); do
    token=$("$riposte" agent token --manager "$url" --key-file "$key" --label env=local)
    printf '%s\n' "$token" | "$agent" enroll --manager "$url" --token-file - --name "host-$number" \
        --state-dir "$folder/agent-$number" >>"$folder/agent-$number.log" 2>&1 || fail "agent $number could not be enrolled"
    start "agent-$number" "$agent" run --state-dir "$folder/agent-$number" --observe
done

cat <<TEXT

Three managers on one PostgreSQL, behind a proxy at $url, and $agents agents that observe.
Everything is in $folder, with a log of each program.

  export RIPOSTE_MANAGER=$url RIPOSTE_KEY_FILE=$key
  $riposte node list          # the managers and their duties
  $riposte agent list         # who is connected, on whichever manager
  kill -9 ${managers[0]}                # a manager dies: look at the two lists again
  kill -STOP ${managers[1]}             # a manager stands still; -CONT lets it go on

Ctrl-C ends all and removes the folder.

TEXT
# Until Ctrl-C; a manager that is killed by hand ends nothing.
while true; do
    sleep 3600 &
    wait "$!" || true
done

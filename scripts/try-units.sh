#!/usr/bin/env bash
# Runs the units for real: boots a systemd of its own (this host's distribution in a folder, in namespaces), enrols an
# agent there, has it drop an address by nft and lift it again, kills and stops it. `make units` builds the programs first.
# Needs root, debootstrap and a Debian or an Ubuntu; what it made in the folder stays for the next time.
#
#   PROFILE   which build is tried: debug or release (debug)
#   SUITE     which distribution it is tried in (scripts/own-systemd.sh)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/target/units
built=target/${PROFILE:-debug}

# shellcheck source=scripts/own-systemd.sh
. scripts/own-systemd.sh
make_root "$root"
rm -rf "$root"/var/log/journal "$root/var/lib/riposte" "$root/var/lib/private/riposte" "$root/var/lib/riposte-agent"
install -D -m 755 -t "$root/usr/bin" "$built/riposte" "$built/riposte-agent"
install -D -m 755 -t "$root/usr/lib/riposte-forward" "$built/riposte"
install -D -m 644 -t "$root/etc/systemd/system" deploy/*.service

boot "$root"
inside systemd-analyze verify riposte.service riposte-agent.service riposte-forward.service
inside systemctl start riposte
until_true inside riposte status
inside sh -c 'riposte agent token | riposte-agent enroll --manager http://127.0.0.1:8480 --token-file -'
# Comes back when the agent has said that it is ready.
inside systemctl start riposte-agent

respond() {
    api POST "/v1/responses$1" "$2"
}
drops() {
    inside nft get element inet riposte blocked_v4 '{ 203.0.113.7 }'
}
# That it is not found is not enough: the look itself may have failed.
lets_through() {
    local set
    set=$(inside nft list set inet riposte blocked_v4) && [[ $set != *203.0.113.7* ]]
}
is_started_again() {
    [ "$(inside systemctl show --property=NRestarts --value riposte-agent)" = 1 ] && inside systemctl is-active riposte-agent
}
agent=$(inside riposte agent list --json | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
response=$(respond '' '{"action":"firewall-drop","target":"203.0.113.7","agents":["'"$agent"'"],"reason":"a trial"}')
until_true drops
inside systemctl kill --signal=KILL riposte-agent
until_true is_started_again
drops >/dev/null || fail 'a killed agent lifted what it held'
inside systemctl stop riposte-agent
[ "$(inside systemctl show --property=Result --value riposte-agent)" = success ] || fail 'the agent did not stop as it should'
drops >/dev/null || fail 'a stopped agent lifted what it held'
inside systemctl start riposte-agent
response=${response#*'"id":"'}
respond "/${response%%\"*}/lift" '{"reason":"the trial is over"}' >/dev/null
until_true lets_through
# 0 is closed, 10 is open. Each systemd counts a little differently, so there is some room; that no line is lost is tested.
for limit in riposte:2 riposte-agent:3.5 riposte-forward:2; do
    unit=${limit%:*}.service
    level=$(inside systemd-analyze security --no-pager "$unit" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
    echo "$unit $level"
    awk -v level="$level" -v limit="${limit#*:}" 'BEGIN { exit !(level != "" && level <= limit + 0) }' ||
        fail "$unit is more open than it should be: '$level'"
done
inside systemctl stop riposte
[ "$(inside systemctl show --property=Result --value riposte)" = success ] || fail 'the manager did not stop as it should'
echo 'the units work'

#!/usr/bin/env bash
# Runs both units for real: boots a systemd of its own (this host's distribution in a folder, in namespaces), enrols an
# agent there, has it drop an address by nft and lift it again, kills and stops it. `make units` builds the programs first.
# Needs root, debootstrap and a Debian or an Ubuntu; nothing of this host's is touched, and what it made in the folder stays
# for the next time.
#
#   PROFILE   which build is tried: debug or release (debug)
#   SUITE     which distribution it is tried in: the name of a release that debootstrap knows (this host's own)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/target/units
built=target/${PROFILE:-debug}

fail() {
    echo "try-units: $*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail 'this needs root: it makes namespaces and starts a systemd'
for program in debootstrap unshare nsenter pgrep curl awk; do
    command -v "$program" >/dev/null || fail "this needs $program"
done
# The programs want the libc that they were built with, or a newer one.
suite=${SUITE:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release | tr -d '"')}
[ -e "/usr/share/debootstrap/scripts/${suite:-none}" ] ||
    fail "debootstrap does not know this host's distribution ('$suite'): name one by SUITE whose libc is not older"
if [ "$(cat "$root/made" 2>/dev/null)" != "$suite" ]; then
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,nftables,iproute2,procps,ca-certificates "$suite" "$root"
    echo "$suite" >"$root/made"
fi
rm -rf "$root"/var/log/journal "$root/var/lib/riposte" "$root/var/lib/private/riposte" "$root/var/lib/riposte-agent"
install -D -m 755 -t "$root/usr/bin" "$built/riposte" "$built/riposte-agent"
install -D -m 644 -t "$root/etc/systemd/system" deploy/*.service

# A control group of its own: systemd moves every process of the one that it takes for the root.
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$groups" ] || fail 'this needs a mounted cgroup2'
group=$groups/riposte-units-$$
mkdir "$group"
# Expanded inside.
# shellcheck disable=SC2016
boot='
set -e
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount -t sysfs -o ro sysfs "$0/sys"
mount -t tmpfs -o mode=755 tmpfs "$0/dev"
for device in null zero full random urandom tty; do touch "$0/dev/$device"; mount --bind "/dev/$device" "$0/dev/$device"; done
mkdir "$0/dev/pts" "$0/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$0/dev/pts"
ln -s pts/ptmx "$0/dev/ptmx"
for folder in run tmp dev/shm; do mount -t tmpfs -o mode=1755 tmpfs "$0/$folder"; done
mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
cd "$0"
pivot_root . mnt
umount -l /mnt
ip link set lo up
container=riposte exec /lib/systemd/systemd --system --log-target=console
'
(
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --pid --mount --net --uts --ipc --cgroup --fork --kill-child --propagation private \
        sh -c "$boot" "$root" >"$root/boot.log" 2>&1
) &
outer=$!

# Called by the trap below.
# shellcheck disable=SC2317
stop() {
    kill -KILL "$outer" 2>/dev/null || true
    wait "$outer" 2>/dev/null || true
    for _ in $(seq 50); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
}
trap stop EXIT

inside() {
    nsenter --target "$inner" --all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C RIPOSTE_KEY_FILE=/var/lib/riposte/admin.key "$@"
}

# Tries for 20 seconds.
until_true() {
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    fail "did not come true: $*"
}

has_systemd() {
    inner=$(pgrep --parent "$outer") && inside systemctl is-system-running --wait
}
until_true has_systemd
inside systemd-analyze verify riposte.service riposte-agent.service
inside systemctl start riposte
until_true inside riposte status
inside sh -c 'riposte agent token | riposte-agent enroll --manager http://127.0.0.1:8480 --token-file -'
# Comes back when the agent has said that it is ready.
inside systemctl start riposte-agent

respond() {
    local key
    key=$(inside cat /var/lib/riposte/admin.key)
    nsenter --target "$inner" --net curl -sS --fail -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        "http://127.0.0.1:8480/v1/responses$1" -d "$2"
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
agent=$(inside riposte agent list | cut -d' ' -f1)
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
inside systemd-analyze security --no-pager | awk '
    { limit = 0 }
    $1 == "riposte.service" { limit = 2 }
    $1 == "riposte-agent.service" { limit = 3.5 }
    limit { print; seen++; if ($2 > limit) open = 1 }
    END { exit open || seen != 2 }
' || fail 'the units are more open than they should be'
inside systemctl stop riposte
[ "$(inside systemctl show --property=Result --value riposte)" = success ] || fail 'the manager did not stop as it should'
echo 'both units work'

#!/usr/bin/env bash
# Sourced by the scripts that try units and packages: a systemd of its own (this host's distribution in a folder, in
# namespaces). Needs root, debootstrap and a Debian or an Ubuntu; nothing of this host's is touched.
#
#   SUITE   which distribution: the name of a release that debootstrap knows (this host's own)
#
# fail WHY              ends the script
# make_root FOLDER      installs the distribution there, unless it is there
# boot FOLDER           boots it; it is stopped when the script ends. $inner is its process
# boot FOLDER SCRATCH   boots a copy of it in memory, so that several hosts share one folder. SCRATCH is a folder of the host
# inside COMMAND …      runs a command in the host whose process is $inner: the last one that was booted
# until_true COMMAND …  tries for 20 seconds

fail() {
    echo "${0##*/}: $*" >&2
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

make_root() {
    [ "$(cat "$1/made" 2>/dev/null)" != "$suite" ] || return 0
    rm -rf --one-file-system "$1"
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,nftables,iproute2,procps,ca-certificates "$suite" "$1"
    echo "$suite" >"$1/made"
}

# What `stop` ends: processes, and the control groups of hosts.
started=() groups=()

# Called by a trap.
# shellcheck disable=SC2317
stop() {
    kill -KILL "${started[@]}" 2>/dev/null || true
    wait "${started[@]}" 2>/dev/null || true
    local group
    for group in "${groups[@]}"; do
        for _ in $(seq 50); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.1
        done
    done
}

boot() {
    local root=$1 scratch=${2:-} hierarchy group boot
    # A control group of its own: systemd moves every process of the one that it takes for the root.
    hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [ -n "$hierarchy" ] || fail 'this needs a mounted cgroup2'
    group=$hierarchy/riposte-units-$$-${#groups[@]}
    mkdir "$group"
    groups+=("$group")
    # Expanded inside.
    # shellcheck disable=SC2016
    boot='
    set -e
    root=$0
    if [ -n "$1" ]; then
        mount -t tmpfs tmpfs "$1"
        mkdir "$1/upper" "$1/work" "$1/root"
        mount -t overlay -o "lowerdir=$0,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
        root=$1/root
    fi
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    for folder in run tmp dev/shm; do mount -t tmpfs -o mode=1755 tmpfs "$root/$folder"; done
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    cd "$root"
    pivot_root . mnt
    umount -l /mnt
    # As a container manager leaves it: systemd mounts credentials in a namespace of its own, and they must arrive.
    mount --make-rshared /
    ip link set lo up
    container=riposte exec /lib/systemd/systemd --system --log-target=console
    '
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec unshare --pid --mount --net --uts --ipc --cgroup --fork --kill-child --propagation private \
            sh -c "$boot" "$root" "$scratch" >"${scratch:-$root/boot}.log" 2>&1
    ) &
    outer=$!
    started+=("$outer")
    trap stop EXIT
    until_true has_systemd
}

# folder_of PROCESS: the folder of its system, as it is seen from outside.
folder_of() {
    echo "/proc/$1/root"
}

inside() {
    nsenter --target "$inner" --all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        RIPOSTE_KEY_FILE=/var/lib/riposte/admin.key "$@"
}

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

# api METHOD PATH [BODY]: asks the manager inside.
api() {
    local key
    key=$(inside cat /var/lib/riposte/admin.key)
    nsenter --target "$inner" --net curl -sS --fail -X "$1" -H "Authorization: Bearer $key" \
        -H 'Content-Type: application/json' "http://127.0.0.1:8480$2" ${3:+-d "$3"}
}

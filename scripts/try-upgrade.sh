#!/usr/bin/env bash
# Tries the packages: under a systemd of its own (scripts/own-systemd.sh) it installs those of an earlier commit, puts data
# in, upgrades, rolls back, removes and purges, and looks at what is left. The .rpm are inspected only. `make upgrade` calls
# it. Needs root, debootstrap and rpm.
#
#   FROM      the commit whose programs are installed first. Without it: this commit's, as packages of a lower version
#   PROFILE   which build is packaged: release, or debug for a trial (release)
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/upgrade
root=$work/root
# Shared with `make first-day`.
pristine=$PWD/target/pristine

# shellcheck source=scripts/own-systemd.sh
. scripts/own-systemd.sh
command -v rpm >/dev/null || fail 'this needs rpm, to look into the packages for it'
step() {
    printf '\n== %s\n' "$*"
}

# ----------------------------------------------------------------------------------------------------------------------
step 'The packages'
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# A version that sorts before it.
before=$version~before
profile=${PROFILE:-release}
mkdir -p "$work"
PROFILE=$profile OUT=$work/new scripts/package.sh
if [ -n "${FROM:-}" ]; then
    commit=$(git rev-parse --verify --quiet "$FROM^{commit}") || fail "FROM=$FROM is no commit of this repository"
    # Shared with `make compatibility`.
    source=$PWD/target/compatibility/source build=$PWD/target/compatibility/build
    git worktree prune
    if [ -e "$source/.git" ]; then
        git -C "$source" checkout --quiet --force --detach "$commit"
    else
        git worktree add --quiet --force --detach "$source" "$commit"
    fi
    if [ -e "$source/scripts/package.sh" ]; then
        (cd "$source" && CARGO_TARGET_DIR=$build PROFILE=$profile VERSION=$before OUT=$work/old scripts/package.sh)
    else
        # Of before there were packages: its programs, packaged as those of this commit.
        flags=(--package riposte --package riposte-agent --bins --locked)
        [ "$profile" = debug ] || flags+=(--release)
        (cd "$source" && CARGO_TARGET_DIR=$build cargo build "${flags[@]}")
        PROGRAMS=$build/$profile VERSION=$before OUT=$work/old scripts/package.sh
    fi
else
    VERSION=$before PROFILE=$profile OUT=$work/old scripts/package.sh
fi
# The earlier manager has another configuration of its own, so that dpkg has to choose.
unpacked=$work/unpacked
rm -rf "$unpacked"
dpkg-deb --raw-extract "$work"/old/riposte_*.deb "$unpacked"
echo '# as it was' >>"$unpacked/etc/riposte/manager.env"
dpkg-deb --build --root-owner-group "$unpacked" "$work"/old/riposte_*.deb >/dev/null

# ----------------------------------------------------------------------------------------------------------------------
step 'What is in the .rpm'
rpm_has() {
    local package=$1 listed
    listed=$(rpm -qp --nosignature --queryformat '[%{FILEMODES:perms} %{FILEFLAGS:fflags} %{FILENAMES}\n]' "$package")
    shift
    for wanted in "$@"; do
        grep -qE "^$wanted\$" <<<"$listed" || fail "$package has no file like '$wanted': $listed"
    done
    for script in postin preun postun; do
        rpm -qp --nosignature --queryformat "%{${script^^}}" "$package" | sh -n || fail "$package: $script is no shell script"
    done
}
rpm_has "$work/new/riposte-$version-1.$(uname -m).rpm" '-rwxr-xr-x +/usr/bin/riposte' \
    '-rw------- cn /etc/riposte/manager.env' '-rw-r--r-- +/usr/lib/systemd/system/riposte.service' \
    '-rw-r--r-- d /usr/share/man/man1/riposte.1' '-rw-r--r-- d /usr/share/doc/riposte/install.md'
rpm_has "$work/new/riposte-agent-$version-1.$(uname -m).rpm" '-rwxr-xr-x +/usr/bin/riposte-agent' \
    '-rw------- cn /etc/riposte/agent.env' '-rw-r--r-- +/usr/lib/systemd/system/riposte-agent.service' \
    '-rw-r--r-- d /usr/share/man/man8/riposte-agent.8'
rpm_has "$work/new/riposte-forward-$version-1.$(uname -m).rpm" '-rwxr-xr-x +/usr/lib/riposte-forward/riposte' \
    '-rw------- cn /etc/riposte/forward.env' '-rw-r--r-- +/usr/lib/systemd/system/riposte-forward.service'

# ----------------------------------------------------------------------------------------------------------------------
step "Install $before"
make_root "$pristine"
rm -rf --one-file-system "$root"
cp -a "$pristine" "$root"
mkdir "$root/old" "$root/new"
cp "$work"/old/*.deb "$root/old/"
cp "$work"/new/*.deb "$root/new/"
files() {
    # What systemd, dpkg and debconf write for any package is theirs.
    (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./old -o -path ./new -o -path ./var/log -o -path ./var/cache \
        -o -path ./var/lib/dpkg -o -path ./boot.log \) -prune -o -print | sort)
}
boot "$root"
files >"$work/files-before"
accounts=$(inside getent passwd; inside getent group)
install_all() {
    inside sh -c "dpkg --install --force-confold /$1/*.deb"
}
install_all old
until_true inside riposte status
[ "$(inside stat -c '%a %U' /etc/riposte/manager.env /etc/riposte/agent.env /etc/riposte/forward.env | sort -u)" = '600 root' ] ||
    fail 'the settings can be read by other accounts'
inside test -e /usr/share/man/man8/riposte-agent.8.gz
inside sh -c 'riposte agent token | riposte-agent enroll --manager http://127.0.0.1:8480 --token-file -'
inside systemctl start riposte-agent
for unit in riposte riposte-agent riposte-forward; do
    inside systemctl is-enabled "$unit" >/dev/null || fail "$unit is not enabled"
done

step 'The forwarder says what is missing'
inside systemctl show --property=ConditionResult --value riposte-forward | grep -qx no || fail 'it started without a key'
inside sh -c 'umask 077; riposte key add wazuh --role ingest --pipeline wazuh >/etc/riposte/forward.key'
if inside systemctl start riposte-forward 2>/dev/null; then fail 'it started without the group of the alerts'; fi
inside journalctl --unit riposte-forward-group --no-pager | grep -q 'has no group wazuh' || fail 'it does not say which group'
# As Wazuh's installation makes them.
inside sh -c 'groupadd --system wazuh && mkdir -p /var/ossec/logs/alerts && chgrp -R wazuh /var/ossec && chmod -R 750 /var/ossec &&
    install -m 640 -g wazuh /dev/null /var/ossec/logs/alerts/alerts.json'
forwards=
if inside /usr/lib/riposte-forward/riposte forward --help >/dev/null 2>&1; then forwards=1; fi
forwarder_runs() {
    inside systemctl is-active riposte-forward && nsenter --target "$inner" --net curl -sS --fail http://127.0.0.1:9481/metrics
}
send_alert() {
    inside sh -c "printf '%s\n' '{\"timestamp\":\"'\$(date -u +%FT%T.000+0000)'\",\"id\":\"1795514400.$1\",\"rule\":{\"id\":\"5763\",\"level\":10,\"description\":\"sshd: brute force\"},\"agent\":{\"id\":\"001\",\"name\":\"elsewhere\"},\"manager\":{\"name\":\"wazuh\"},\"data\":{\"srcip\":\"198.51.100.$1\"}}' >>/var/ossec/logs/alerts/alerts.json"
}
has_alert() {
    api GET '/v1/alerts?limit=100' | grep -qF "1795514400.$1"
}
if [ -n "$forwards" ]; then
    inside systemctl start riposte-forward
    until_true forwarder_runs
    send_alert 11
    until_true has_alert 11
else
    echo 'The program of before has no `forward`: its service is not tried'
    inside systemctl stop riposte-forward
fi

# ----------------------------------------------------------------------------------------------------------------------
step 'Data, and a changed setting'
agent=$(inside riposte agent list --json | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
api POST /v1/protected '{"kind":"ip","value":"192.0.2.0/24","reason":"of before the upgrade"}' >/dev/null
api POST /v1/responses '{"action":"firewall-drop","target":"203.0.113.7","agents":["'"$agent"'"],"reason":"a trial"}' >/dev/null
drops() {
    inside nft get element inet riposte blocked_v4 '{ 203.0.113.7 }'
}
until_true drops
inside sh -c 'echo RIPOSTE_MAX_BATCH=4321 >>/etc/riposte/manager.env'
inside systemctl restart riposte
until_true inside riposte status

runs() {
    until_true inside riposte status
    for unit in riposte riposte-agent ${forwards:+riposte-forward}; do
        inside systemctl is-active "$unit" >/dev/null || fail "$unit does not run"
    done
    for package in riposte riposte-agent riposte-forward; do
        # The installed version, without the release.
        [ "$(inside dpkg-query --show --showformat '${Version}' "$package")" = "$1-1" ] || fail "$package is not $1"
    done
    api GET /v1/protected | grep -q '192.0.2.0/24' || fail 'the data are lost'
    drops >/dev/null || fail 'the block is lifted'
    inside grep -q RIPOSTE_MAX_BATCH=4321 /etc/riposte/manager.env || fail 'the changed setting is lost'
    inside sh -c 'tr "\0" "\n" </proc/$(systemctl show --property=MainPID --value riposte)/environ' |
        grep -qx RIPOSTE_MAX_BATCH=4321 || fail 'the changed setting is not in force'
    until_true agent_streams
    inside riposte audit verify >/dev/null
}
agent_streams() {
    inside riposte agent list --json | grep -q '"presence":"streaming"'
}
runs "$before"

step "Upgrade to $version"
install_all new
runs "$version"
api POST /v1/protected '{"kind":"ip","value":"198.51.100.128/25","reason":"of after the upgrade"}' >/dev/null
if [ -n "$(inside riposte agent list --outdated --json)" ] && [ -z "${FROM:-}" ]; then fail 'an agent of the same program is outdated'; fi
backup=$(inside sh -c 'ls -d /var/lib/riposte/backups/before-* 2>/dev/null | tail -1')
echo "The backup of before: ${backup:-none, the schema is the same}"

step "Roll back to $before"
if [ -z "$backup" ]; then
    # As if the schema had changed: a backup of now, without the keys.
    backup=/var/lib/riposte/backups/by-hand
    inside mkdir -p /var/lib/riposte/backups
    inside riposte backup --without-keys --data-dir /var/lib/riposte --to "$backup"
fi
# docs/upgrade.md, Roll back.
inside systemctl stop riposte
inside mkdir /var/lib/riposte/newer
inside sh -c 'mv /var/lib/riposte/riposte.db* /var/lib/riposte/newer/'
inside riposte restore --from "$backup" --data-dir /var/lib/riposte
inside sh -c 'dpkg --install --force-confold --force-downgrade /old/riposte_*.deb'
inside systemctl start riposte
inside sh -c 'dpkg --install --force-confold --force-downgrade /old/riposte-agent_*.deb /old/riposte-forward_*.deb'
runs "$before"

step "Upgrade to $version again"
install_all new
runs "$version"

step 'An agent that would not start again is not restarted'
running=$(inside systemctl show --property=MainPID --value riposte-agent)
inside sh -c 'echo RIPOSTE_TRANSPORT=strem >>/etc/riposte/agent.env'
inside sh -c 'dpkg --install --force-confold /new/riposte-agent_*.deb 2>&1' | tee "$work/refused"
grep -q '^/etc/riposte/agent.env:[0-9]*: RIPOSTE_TRANSPORT: ' "$work/refused" || fail 'the package did not say what is wrong'
[ "$(inside systemctl show --property=MainPID --value riposte-agent)" = "$running" ] || fail 'the agent was restarted'
inside sed -i /RIPOSTE_TRANSPORT=strem/d /etc/riposte/agent.env
inside sh -c 'dpkg --install --force-confold /new/riposte-agent_*.deb'
[ "$(inside systemctl show --property=MainPID --value riposte-agent)" != "$running" ] || fail 'the agent was not restarted'
runs "$version"
if [ -n "$forwards" ]; then
    send_alert 12
    until_true has_alert 12
fi

# ----------------------------------------------------------------------------------------------------------------------
step 'Remove and purge'
inside dpkg --remove riposte-agent
if drops >/dev/null 2>&1; then fail 'a removed agent left its block in force'; fi
inside test -e /var/lib/riposte-agent/journal || fail 'a removal deleted the journal'
inside dpkg --purge riposte-agent riposte-forward
said=$(inside dpkg --purge riposte 2>&1)
grep -q 'kept the ledger' <<<"$said" || fail "it does not say that the ledger is kept: $said"
inside test -e /var/lib/private/riposte/signing.key || fail 'an unattended purge deleted the keys'
inside sh -c 'dpkg --install /new/riposte_*.deb'
until_true inside riposte status
api GET /v1/protected | grep -q '192.0.2.0/24' || fail 'a new installation does not find the ledger'
inside sh -c 'echo "riposte riposte/purge-ledger boolean true" | debconf-set-selections'
said=$(inside dpkg --purge riposte 2>&1)
grep -q 'deleted the ledger' <<<"$said" || fail "it does not say that the ledger is deleted: $said"

step 'What is left'
inside groupdel wazuh
inside rm -rf /var/ossec
[ -z "$(inside systemctl list-unit-files --no-legend 'riposte*')" ] || fail 'units are left'
[ -z "$(inside systemctl list-units --all --no-legend 'riposte*')" ] || fail 'units are loaded'
[ "$(inside getent passwd; inside getent group)" = "$accounts" ] || fail 'accounts are left'
files >"$work/files-after"
left=$(diff "$work/files-before" "$work/files-after" | grep -E '^> .*(riposte|ossec)' || true)
[ -z "$left" ] || fail "files are left: $left"
echo 'the packages install, upgrade, roll back and purge'

#!/usr/bin/env bash
# Tries the first day of a site with Wazuh (docs/migrate-from-wazuh.md), from nothing to a verified block: eleven hosts, each a
# systemd of its own (scripts/own-systemd.sh) on one network. On the Wazuh manager's host the packages are installed and
# `riposte setup wazuh` is run; on ten others the line that it prints. One policy acts, an alert is written as Wazuh writes it,
# and real packets of that address are dropped on that host and on no other, until the response is lifted. The commands that a
# person types are shown and counted. `make first-day` calls it. Needs root, debootstrap and overlayfs; nothing of this host's
# is touched.
#
# Wazuh itself is not installed: its files are written as it writes them, and its service is a stand-in.
#
#   PROFILE    which build is packaged: release, or debug for a trial (release)
#   PACKAGES   a folder with the packages, made before; nothing is built then
#   SUITE      which distribution it is tried in (scripts/own-systemd.sh)
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/first-day
# Shared with `make upgrade`.
pristine=$PWD/target/pristine

# shellcheck source=scripts/own-systemd.sh
. scripts/own-systemd.sh
step() {
    printf '\n== %s\n' "$*"
}

# Where the manager is, and its name. Attackers are on the same wire; these networks are for documentation and for private use.
network=10.77.0 manager_address=10.77.0.2 name=riposte.example.org
attacker=203.0.113.66 bystander=203.0.113.67
# What Wazuh calls the hosts. The seventh has another name itself.
hosts=(web-01 web-02 web-03 web-04 db-05 db-06 mail-07 files-08 ci-09 vpn-10)
renamed=mx.example.org
attacked=3
policy=wazuh-firewall-drop-1

# ----------------------------------------------------------------------------------------------------------------------
step 'The packages'
packages=${PACKAGES:-$work/packages}
[ -n "${PACKAGES:-}" ] || PROFILE=${PROFILE:-release} OUT=$packages scripts/package.sh

# ----------------------------------------------------------------------------------------------------------------------
step 'Eleven hosts on one network'
make_root "$pristine"
rm -rf --one-file-system "$work/hosts"
mkdir -p "$work/hosts"
# The wire, with the attackers on it.
unshare --net sleep infinity &
outside=$!
started+=("$outside")
trap stop EXIT
on_the_wire() {
    nsenter --target "$outside" --net "$@"
}
has_left() {
    [ "$(readlink "/proc/$outside/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}
until_true has_left
on_the_wire ip link add wire type bridge
on_the_wire ip link set wire up
on_the_wire ip link set lo up
for address in "$attacker" "$bystander"; do on_the_wire ip address add "$address/24" dev wire; done
on_the_wire ip route add "$network.0/24" dev wire

# host NUMBER NAME ADDRESS: boots a host, and plugs it in.
host() {
    mkdir "$work/hosts/$1"
    boot "$pristine" "$work/hosts/$1"
    process[$1]=$inner
    on_the_wire ip link add "host$1" type veth peer name eth0 netns "$inner"
    on_the_wire ip link set "host$1" master wire up
    inside ip address add "$3/24" dev eth0
    inside ip link set eth0 up
    inside ip route add 203.0.113.0/24 dev eth0
    inside hostname "$2"
    inside sh -c "echo '$manager_address $name' >>/etc/hosts"
}
process=()
host 0 wazuh "$manager_address"
cp "$packages"/riposte_*.deb "$packages"/riposte-forward_*.deb "$(folder_of "$inner")/srv/"

# As an installation of Wazuh 4 makes them; the active response is the one of its documentation.
inside sh -c 'groupadd --system wazuh && mkdir -p /var/ossec/etc /var/ossec/logs/alerts && chown -R root:wazuh /var/ossec && chmod -R 750 /var/ossec &&
    install -m 640 -g wazuh /dev/null /var/ossec/logs/alerts/alerts.json && install -m 640 -g wazuh /dev/null /var/ossec/etc/client.keys &&
    install -m 660 -g wazuh /dev/stdin /var/ossec/etc/ossec.conf' <<'XML'
<!--
  Wazuh - Manager - Default configuration for debian 12
  More info at: https://documentation.wazuh.com
  Mailing list: https://groups.google.com/forum/#!forum/wazuh
-->

<ossec_config>
  <global>
    <jsonout_output>yes</jsonout_output>
    <alerts_log>yes</alerts_log>
    <logall>no</logall>
    <logall_json>no</logall_json>
    <email_notification>no</email_notification>
    <agents_disconnection_time>10m</agents_disconnection_time>
    <agents_disconnection_alert_time>0</agents_disconnection_alert_time>
  </global>

  <alerts>
    <log_alert_level>3</log_alert_level>
    <email_alert_level>12</email_alert_level>
  </alerts>

  <remote>
    <connection>secure</connection>
    <port>1514</port>
    <protocol>tcp</protocol>
    <queue_size>131072</queue_size>
  </remote>

  <rootcheck>
    <disabled>no</disabled>
    <frequency>43200</frequency>
    <skip_nfs>yes</skip_nfs>
  </rootcheck>

  <syscheck>
    <disabled>no</disabled>
    <frequency>43200</frequency>
    <directories>/etc,/usr/bin,/usr/sbin</directories>
    <ignore type="sregex">.log$|.swp$</ignore>
  </syscheck>

  <global>
    <white_list>127.0.0.1</white_list>
    <white_list>^localhost.localdomain$</white_list>
    <white_list>10.77.0.1</white_list>
  </global>

  <command>
    <name>disable-account</name>
    <executable>disable-account</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>

  <command>
    <name>restart-wazuh</name>
    <executable>restart-wazuh</executable>
  </command>

  <command>
    <name>firewall-drop</name>
    <executable>firewall-drop</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>

  <command>
    <name>host-deny</name>
    <executable>host-deny</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>

  <command>
    <name>route-null</name>
    <executable>route-null</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>

  <command>
    <name>win_route-null</name>
    <executable>route-null.exe</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>

  <command>
    <name>netsh</name>
    <executable>netsh.exe</executable>
    <timeout_allowed>yes</timeout_allowed>
  </command>

  <active-response>
    <disabled>no</disabled>
    <command>firewall-drop</command>
    <location>local</location>
    <rules_id>5763</rules_id>
    <timeout>600</timeout>
  </active-response>

  <localfile>
    <log_format>journald</log_format>
    <location>journald</location>
  </localfile>

  <ruleset>
    <decoder_dir>ruleset/decoders</decoder_dir>
    <rule_dir>ruleset/rules</rule_dir>
    <rule_exclude>0215-policy_rules.xml</rule_exclude>
    <list>etc/lists/audit-keys</list>
  </ruleset>
</ossec_config>

<ossec_config>
  <localfile>
    <log_format>syslog</log_format>
    <location>/var/ossec/logs/active-responses.log</location>
  </localfile>
</ossec_config>
XML
inside sh -c 'cat >/etc/systemd/system/wazuh-manager.service' <<'UNIT'
[Unit]
Description=Stands for Wazuh manager
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
UNIT
inside systemctl start wazuh-manager

# The hosts of agents. Each is known to Wazuh, and answers on the port of ssh.
for index in "${!hosts[@]}"; do
    number=$((index + 1))
    called=${hosts[index]}
    [ "$number" != 7 ] || called=$renamed
    host "$number" "$called" "$network.$((number + 10))"
    cp "$packages"/riposte-agent_*.deb "$(folder_of "$inner")/srv/"
    secret=$(head -c 32 /dev/urandom | od -A n -t x1 | tr -d ' \n')
    line=$(printf '%03d %s any %s' "$number" "${hosts[index]}" "$secret")
    inside sh -c "mkdir -p /var/ossec/etc /var/ossec/logs && echo '$line' >/var/ossec/etc/client.keys && chmod 640 /var/ossec/etc/client.keys"
    echo "$line" >>"$(folder_of "${process[0]}")/var/ossec/etc/client.keys"
    inside sh -c 'cat >/etc/systemd/system/answer.socket' <<'UNIT'
[Socket]
ListenStream=22
Accept=yes
UNIT
    inside sh -c 'cat >/etc/systemd/system/answer@.service' <<'UNIT'
[Service]
ExecStart=-/bin/echo SSH-2.0-trial
StandardInput=socket
UNIT
    inside systemctl start answer.socket
done
inner=${process[0]}
# What the programs said, if something failed. Called by a trap.
# shellcheck disable=SC2317
end() {
    local status=$?
    set +e
    if [ "$status" != 0 ]; then
        inner=${process[0]}
        inside journalctl --no-pager --lines=10 --unit=riposte
        inside journalctl --no-pager --lines=10 --unit=riposte-forward
        inner=${process[attacked]}
        inside journalctl --no-pager --lines=10 --unit=riposte-agent
    fi
    stop
}
trap end EXIT

# reaches FROM NUMBER: whether packets from this address get to the host and back.
reaches() {
    local banner
    banner=$(on_the_wire curl --silent --max-time 3 --interface "$1" "telnet://$network.$(($2 + 10)):22" </dev/null) &&
        [[ $banner == SSH-2.0-trial* ]]
}
# That nothing comes back is not enough: the connection has to time out.
is_dropped() {
    local status=0
    on_the_wire curl --silent --connect-timeout 2 --interface "$1" "telnet://$network.$(($2 + 10)):22" </dev/null >/dev/null || status=$?
    [ "$status" = 28 ]
}
for number in $(seq "${#hosts[@]}"); do
    reaches "$attacker" "$number" || fail "host $number cannot be reached before anything is installed"
done

# ----------------------------------------------------------------------------------------------------------------------
typed=0
# Without the key that `inside` names: it goes before a context.
as_person() {
    inside env --unset=RIPOSTE_KEY_FILE sh -c "HOME=~root && export HOME && cd /srv && $1"
}
# types COMMAND: a person types it on the Wazuh manager's host, as root.
types() {
    typed=$((typed + 1))
    printf '\nwazuh# %s\n' "$1" >&2
    as_person "$1"
}
step "The Wazuh manager's host"
began=$SECONDS
types 'apt install --yes ./riposte_*.deb ./riposte-forward_*.deb' >"$work/installed"
types "riposte tls self-signed --name $name --dir /etc/riposte/tls"
types 'chown --reference=/var/lib/riposte/ /etc/riposte/tls/key.pem'
types "cat >>/etc/riposte/manager.env <<END
RIPOSTE_LISTEN=0.0.0.0:8480
RIPOSTE_PUBLIC_URL=https://$name:8480
RIPOSTE_TLS_CERT=/etc/riposte/tls/cert.pem
RIPOSTE_TLS_KEY=/etc/riposte/tls/key.pem
END"
types 'systemctl restart riposte'
types "riposte context add first --manager https://$name:8480 --ca /etc/riposte/tls/ca.pem --key-file /var/lib/riposte/admin.key"
types 'riposte setup wazuh --yes' >"$work/setup"
cat "$work/setup"
grep -q 'riposte-forward.service runs' "$work/setup" || fail 'the forwarder was not started'
line=$(sed -n 's/^ *\(echo rit_.*\)/\1/p' "$work/setup")
[ -n "$line" ] || fail 'setup printed no line for the hosts'

step 'The same line on each host'
for number in "${!process[@]}"; do
    [ "$number" != 0 ] || continue
    inner=${process[number]}
    printf '\n%s# apt install ./riposte-agent_*.deb && the line\n' "$(inside hostname)"
    inside sh -c "cd /srv && apt install --yes ./riposte-agent_*.deb && $line" >"$work/host" 2>&1 || fail "$(cat "$work/host")"
    grep '^Enrolled' "$work/host"
done
inner=${process[0]}

all_here() {
    # Every host streams, and the manager knows which agent of Wazuh it is.
    as_person 'riposte agent list --json' >"$work/agents"
    local index
    for index in "${!hosts[@]}"; do
        grep -q "\"wazuh_id\":\"$(printf '%03d' $((index + 1)))\"" "$work/agents" || return 1
    done
    [ "$(grep -c '"presence":"streaming"' "$work/agents")" = "${#hosts[@]}" ]
}
step 'Before the policy acts'
until_true all_here
types 'riposte agent list'
grep -q "\"wazuh_name\":\"${hosts[6]}\"" "$work/agents" || fail 'the renamed host does not have its name in Wazuh as a label'

# attack NUMBER: what Wazuh writes of somebody who guesses passwords on this host.
alerts=0
attack() {
    local id host now day
    alerts=$((alerts + 1))
    id=$(printf '%03d' "$1")
    host=${hosts[$1 - 1]}
    now=$(date -u +%FT%T.%3N+0000)
    day=$(LC_ALL=C date -u '+%b %e %T')
    printf '%s\n' '{"timestamp":"'"$now"'","rule":{"level":10,"description":"sshd: brute force trying to get access to the system. Authentication failed.","id":"5763","mitre":{"id":["T1110"],"tactic":["Credential Access"],"technique":["Brute Force"]},"frequency":8,"firedtimes":1,"mail":false,"groups":["syslog","sshd","authentication_failures"],"gdpr":["IV_35.7.d","IV_32.2"],"hipaa":["164.312.b"],"nist_800_53":["SI.4","AU.14","AC.7"],"pci_dss":["11.4","10.2.4","10.2.5"],"tsc":["CC6.1","CC6.8","CC7.2","CC7.3"]},"agent":{"id":"'"$id"'","name":"'"$host"'","ip":"'"$network.$(($1 + 10))"'"},"manager":{"name":"wazuh"},"id":"'"$(date +%s).$((48213 + alerts))"'","previous_output":"'"$day $host"' sshd[1187]: Failed password for root from '"$attacker"' port 50210 ssh2","full_log":"'"$day $host"' sshd[1187]: Failed password for root from '"$attacker"' port 50212 ssh2","predecoder":{"program_name":"sshd","timestamp":"'"$day"'","hostname":"'"$host"'"},"decoder":{"parent":"sshd","name":"sshd"},"data":{"srcip":"'"$attacker"'","srcport":"50212","dstuser":"root"},"location":"/var/log/auth.log"}' |
        inside sh -c 'cat >>/var/ossec/logs/alerts/alerts.json'
}
responses() {
    as_person "riposte response list --json --state $1" >"$work/responses" && [ "$(grep -c . "$work/responses")" = "$2" ]
}
# As it was imported: it observes, and blocks nothing.
attack "$attacked"
until_true responses observed 1
reaches "$attacker" "$attacked" || fail 'a policy that observes blocked an address'

step 'The policy acts'
# docs/migrate-from-wazuh.md, Cut over: Wazuh's own block goes first.
types "sed -i '/<active-response>/,/<\\/active-response>/d' /var/ossec/etc/ossec.conf"
types 'systemctl restart wazuh-manager'
types "riposte policy mode $policy enforce"
has_block() {
    inner=${process[attacked]} inside nft get element inet riposte blocked_v4 "{ $attacker }" >/dev/null 2>&1
}
sent=$(date +%s%3N)
attack "$attacked"
for _ in $(seq 500); do
    if has_block; then break; fi
    sleep 0.02
done
took=$(($(date +%s%3N) - sent))
is_dropped "$attacker" "$attacked" || fail "packets of $attacker still reach ${hosts[attacked - 1]}"
verified=$SECONDS
reaches "$bystander" "$attacked" || fail 'another address is blocked too'
for number in $(seq "${#hosts[@]}"); do
    [ "$number" = "$attacked" ] || reaches "$attacker" "$number" || fail "${hosts[number - 1]} blocks too"
done
responses active 1 || fail 'the manager does not list one response in force'
set_up=$typed

step 'Lifted again'
# The answer of `responses` is one object; its own id is the only key of that name without a prefix.
response=$(sed 's/.*[{,]"id":"\([^"]*\)".*/\1/' "$work/responses")
types 'riposte response list --state active'
types "riposte response lift $response --reason 'a customer who forgot the password' --yes"
until_true reaches "$attacker" "$attacked"
if has_block; then fail 'the block is still in the kernel'; fi
count=$typed

step 'A renewed certificate can be read by the service'
owner=$(inside stat -c %u /etc/riposte/tls/key.pem)
as_person "riposte tls self-signed --name $name --dir /etc/riposte/tls"
[ "$(inside stat -c '%u %a' /etc/riposte/tls/key.pem)" = "$owner 600" ] || fail 'the renewed key has another owner'

cat <<TEXT

From nothing to a verified block:
  on the Wazuh manager's host   $set_up commands
  on each of ${#hosts[@]} hosts           1 line
  all programs together took    $((verified - began)) s here, without what a person takes to type
  from the alert to the block   $took ms
  lifted by                     $((count - set_up)) commands
TEXT

//! What is posted: alert `n` is a function of `n` and the seed. So the verifier knows what must
//! have become of an alert without having kept it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::random::Random;

/// Alerts from this number on are lines of `alerts.json`, those before are posted. A run of hours posts a few million, and each
/// has an address of its own below 2^24.
pub(crate) const FIRST_WRITTEN: u64 = 1 << 23;
/// One alert in this many is answered on every agent.
const STAGED_EVERY: u64 = 2000;
/// File name of the program without a lasting effect.
pub(crate) const PROGRAM: &str = "note.sh";
/// The program: it records the address that it receives. Its order may be cut short, where the agent is killed while it
/// writes: then it does nothing.
pub(crate) const PROGRAM_TEXT: &str = r#"#!/bin/sh
read -r INPUT || exit 1
ADDRESS=${INPUT#*\"srcip\":\"}
echo "${ADDRESS%%\"*}" >> "${0%/*}/../ran"
"#;

/// Number of targets per agent that several alerts share.
const POOL: u64 = 8;

/// A network, and the common start of its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// The network as the manager and the agents configure it.
    pub(crate) cidr: &'static str,
    beginning: &'static str,
}

impl Network {
    /// Protected from the start.
    pub(crate) const SHIELDED: Self = Self { cidr: "192.0.2.0/24", beginning: "192.0.2." };
    /// Protected from the middle of the run.
    pub(crate) const TURNING: Self = Self { cidr: "172.21.0.0/16", beginning: "172.21." };
    /// Protected by every agent's local policy, unknown to the manager.
    pub(crate) const REFUSED: Self = Self { cidr: "198.18.0.0/16", beginning: "198.18." };

    /// Whether it contains this address.
    pub(crate) fn contains(self, address: &str) -> bool {
        address.starts_with(self.beginning)
    }
}

/// Kind of an alert, which determines its responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AlertKind {
    /// One short response, on a target of its own.
    Brief,
    /// One response that outlasts the run, on a target of its own.
    Long,
    /// One response without an end, on a target of its own.
    Endless,
    /// Two responses of different length, on a shared target.
    Hot,
    /// One response without a lasting effect, a program, on a target of its own.
    Once,
    /// The same, on every agent, in waves.
    Staged,
    /// One response that is spared, because its target is protected.
    Shielded,
    /// One response that outlasts the run, on a shared target that becomes protected.
    Turning,
    /// One response that every agent refuses, on a target of its own.
    Refused,
    /// No response: no policy matches.
    Nothing,
}

impl AlertKind {
    /// Every kind with responses, and the rule that its policies match.
    pub(crate) const ANSWERED: [(Self, &'static str); 9] = [
        (Self::Brief, "100001"),
        (Self::Long, "100002"),
        (Self::Endless, "100003"),
        (Self::Hot, "100004"),
        (Self::Once, "100005"),
        (Self::Staged, "100006"),
        (Self::Shielded, "100007"),
        (Self::Turning, "100008"),
        (Self::Refused, "100010"),
    ];

    fn rule(self) -> &'static str {
        Self::ANSWERED.iter().find(|(kind, _)| *kind == self).map_or("100009", |(_, rule)| rule)
    }

    /// Number of its responses.
    pub(crate) const fn responses(self) -> usize {
        match self {
            Self::Hot => 2,
            Self::Nothing => 0,
            _ => 1,
        }
    }

    /// Whether other alerts may have its target. Then its response may need no command of its own.
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, Self::Hot | Self::Turning)
    }
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) agents: u64,
    /// Duration of a short block.
    pub(crate) brief: Duration,
    /// Whether some blocks outlast the run, or are aimed at protected targets: the number of held
    /// effects then grows.
    pub(crate) lasting: bool,
}

/// One alert of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) kind: AlertKind,
    /// Number of the agent that it comes from.
    pub(crate) agent: u64,
    /// The address in it.
    pub(crate) target: String,
}

impl Plan {
    /// Returns alert number `n`.
    pub(crate) fn of(&self, n: u64) -> Planned {
        let mut random = Random::new(self.seed, n ^ 0xa1e7_0000_0000_0000);
        let agent = random.next() % self.agents;
        let kind = match random.next() % 100 {
            // Few, because each is an order to every agent.
            _ if n.is_multiple_of(STAGED_EVERY) => AlertKind::Staged,
            // Few, because a reconnecting agent reports all of them: after half an hour about a
            // thousand each.
            65..68 if self.lasting => AlertKind::Long,
            68..70 if self.lasting => AlertKind::Endless,
            0..70 => AlertKind::Brief,
            70..85 => AlertKind::Hot,
            85..88 => AlertKind::Once,
            88..90 if self.lasting => AlertKind::Shielded,
            90..92 if self.lasting => AlertKind::Turning,
            92..94 if self.lasting => AlertKind::Refused,
            _ => AlertKind::Nothing,
        };
        let target = match kind {
            AlertKind::Hot => format!("172.20.{agent}.{}", 1 + random.next() % POOL),
            AlertKind::Turning => format!("172.21.{agent}.{}", 1 + random.next() % POOL),
            AlertKind::Shielded => format!("192.0.2.{}", n & 255),
            AlertKind::Refused => format!("198.18.{}.{}", n >> 8 & 255, n & 255),
            _ => format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255),
        };
        Planned { kind, agent, target }
    }

    /// The alert in the format of Wazuh 4.x.
    pub(crate) fn alert(&self, n: u64) -> Value {
        let Planned { kind, agent, target } = self.of(n);
        json!({
            "timestamp": "2026-11-24T10:00:00.000+0000",
            "rule": {"level": 10, "id": kind.rule(), "description": "sshd: brute force trying to get access to the system.",
                "groups": ["syslog", "sshd", "authentication_failures"]},
            "agent": {"id": format!("{:03}", agent + 1), "name": name_of(agent), "ip": "198.51.100.5"},
            "manager": {"name": "wazuh-manager"},
            "id": format!("1795514400.{n}"),
            "full_log": format!("sshd[{n}]: Failed password for invalid user from {target} port 4711 ssh2"),
            "decoder": {"parent": "sshd", "name": "sshd"},
            "data": {"srcip": target, "srcport": "4711"},
            "location": "journald",
        })
    }

    /// The custom action, whose program is not Riposte's.
    pub(crate) fn action() -> Value {
        json!({"name": "note", "summary": "Records an address.", "executable": PROGRAM, "target_kinds": ["ip"],
            "default_target": "source.ip"})
    }

    /// The agents' local policy.
    pub(crate) fn local_policy() -> String {
        format!("[protected]\naddresses = [\"{}\"]\n", Network::REFUSED.cidr)
    }

    /// A protected entry.
    pub(crate) fn protected(network: Network) -> Value {
        json!({"kind": "ip", "value": network.cidr, "reason": "nothing may be done to it"})
    }

    /// The policies that respond to the alerts.
    pub(crate) fn policies(&self) -> Vec<Value> {
        let brief = self.brief.as_secs().max(2);
        let policy = |name: &str, rule: &str, lasts: Option<String>| {
            let mut policy = json!({"name": name, "mode": "enforce", "match": [{"rule_ids": [rule]}],
                "respond": {"action": "log-only", "target": "source.ip", "on": "origin"}});
            if let Some(lasts) = lasts {
                policy["respond"]["for"] = lasts.into();
            }
            policy
        };
        let once = |name: &str, rule: &str| {
            let mut policy = policy(name, rule, None);
            policy["respond"]["action"] = "note".into();
            policy
        };
        let mut staged = once("staged", AlertKind::Staged.rule());
        staged["respond"]["on"] = "all".into();
        staged["respond"]["waves"] = json!({"count": 3, "over": "9s"});
        vec![
            once("once", AlertKind::Once.rule()),
            staged,
            policy("brief", AlertKind::Brief.rule(), Some(format!("{brief}s"))),
            policy("long", AlertKind::Long.rule(), Some("6h".into())),
            policy("endless", AlertKind::Endless.rule(), None),
            policy("shielded", AlertKind::Shielded.rule(), None),
            policy("turning", AlertKind::Turning.rule(), Some("6h".into())),
            policy("refused", AlertKind::Refused.rule(), Some(format!("{brief}s"))),
            policy("hot-short", AlertKind::Hot.rule(), Some(format!("{}s", brief.div_ceil(2)))),
            policy("hot-long", AlertKind::Hot.rule(), Some(format!("{}s", brief * 2))),
        ]
    }
}

/// The name of an agent.
pub(crate) fn name_of(agent: u64) -> String {
    format!("host-{agent:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_follows_from_its_number_and_targets_are_its_own() {
        let plan = Plan { seed: 1, agents: 8, brief: Duration::from_secs(10), lasting: true };
        assert_eq!(plan.of(7), plan.of(7));
        let is_own = |kind: AlertKind| !kind.is_shared() && kind != AlertKind::Shielded;
        let own = (1..5000).map(|n| plan.of(n)).filter(|planned| is_own(planned.kind));
        let targets: Vec<String> = own.map(|planned| planned.target).collect();
        let distinct: std::collections::HashSet<&String> = targets.iter().collect();
        assert_eq!(distinct.len(), targets.len());
    }
}

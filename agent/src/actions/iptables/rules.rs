//! Reads a listing of `iptables -S`: whether our rule drops a packet from (or to) an address, or an
//! earlier rule accepts it.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::Attempt;

/// A chain, and whether the address is matched as source or destination.
pub(super) type ChainSide = (&'static str, &'static str);

/// Position of our rule in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No earlier rule accepts the address.
    First,
    /// It is there, but an earlier rule may accept the address.
    Behind,
    /// It is not there.
    Absent,
}

/// Limit of nested chains; in practice the kernel allows no more.
const MAX_DEPTH: u32 = 16;

/// The rules of every chain.
#[derive(Debug, Default)]
pub(super) struct Rules(BTreeMap<String, Chain>);

/// The rules of one chain. Ours are found by what they match: there may be very many of them, and
/// none of them accepts anything.
#[derive(Debug, Default)]
struct Chain {
    /// Position of the first one, and their number, by side and address.
    ours: HashMap<(String, IpNet), (usize, usize)>,
    /// All others with their position, in their order.
    others: Vec<(usize, Vec<String>)>,
    length: usize,
}

impl Chain {
    fn push(&mut self, rule: Vec<String>) {
        let position = self.length;
        self.length += 1;
        match our_match(&rule) {
            Some(ours) => self.ours.entry(ours).or_insert((position, 0)).1 += 1,
            None => self.others.push((position, rule)),
        }
    }
}

impl Rules {
    pub(super) fn read(listing: &str) -> Self {
        let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
        for line in listing.lines() {
            let mut words = line.split_whitespace().map(|word| word.trim_matches('"').to_owned());
            match (words.next().as_deref(), words.next()) {
                (Some("-A"), Some(chain)) => chains.entry(chain).or_default().push(words.collect()),
                (Some("-N" | "-P"), Some(chain)) => {
                    chains.entry(chain).or_default();
                }
                _ => {}
            }
        }
        Self(chains)
    }

    pub(super) fn standing(&self, attempt: &Attempt<'_>, (chain, side): ChainSide) -> Standing {
        let Some(network) = attempt.target.network() else { return Standing::Absent };
        let Some(chain) = self.0.get(chain) else { return Standing::Absent };
        let Some((ours, _)) = chain.ours.get(&(side.to_owned(), network.trunc())) else { return Standing::Absent };
        let mut earlier = chain.others.iter().take_while(|(position, _)| position < ours);
        if earlier.any(|(_, rule)| self.lets_through(rule, side, network, 0)) {
            Standing::Behind
        } else {
            Standing::First
        }
    }

    /// How many rules of ours for the address there are.
    pub(super) fn copies(&self, attempt: &Attempt<'_>, (chain, side): ChainSide) -> usize {
        let Some(network) = attempt.target.network() else { return 0 };
        let ours = self.0.get(chain).and_then(|chain| chain.ours.get(&(side.to_owned(), network.trunc())));
        ours.map_or(0, |(_, copies)| *copies)
    }

    /// Whether a rule may accept a packet. A rule that cannot be understood counts as accepting.
    fn lets_through(&self, rule: &[String], side: &str, network: IpNet, depth: u32) -> bool {
        if is_elsewhere(rule, side, network) {
            return false;
        }
        let target = |flag: &str| value(rule, flag);
        match (target("-j"), target("-g")) {
            (Some("ACCEPT" | "QUEUE" | "NFQUEUE"), _) | (None, Some(_)) => true,
            // At the end of a built-in chain its policy decides, and most policies accept.
            (Some("RETURN"), _) => depth == 0,
            (Some(chain), _) => self.0.get(chain).is_some_and(|rules| {
                let mut rules = rules.others.iter().map(|(_, rule)| rule);
                depth >= MAX_DEPTH || rules.any(|rule| self.lets_through(rule, side, network, depth + 1))
            }),
            (None, None) => false,
        }
    }
}

/// What a rule of ours matches: the side and the address. `None` for any other rule.
fn our_match(rule: &[String]) -> Option<(String, IpNet)> {
    let words = ["-m", "comment", "--comment", "riposte", "-j", "DROP"];
    match rule {
        [side, address, rest @ ..] if rest == words && ["-s", "-d"].contains(&side.as_str()) => {
            Some((side.clone(), parse(address)?))
        }
        _ => None,
    }
}

/// Whether a rule matches only other addresses or the loopback interface.
fn is_elsewhere(rule: &[String], side: &str, network: IpNet) -> bool {
    let is_negated = |flag: &str| rule.windows(2).any(|pair| pair[0] == "!" && pair[1] == flag);
    let other = value(rule, side).filter(|_| !is_negated(side)).and_then(parse);
    let is_apart = other.is_some_and(|other| !other.contains(&network) && !network.contains(&other));
    let interface = if side == "-s" { "-i" } else { "-o" };
    is_apart || (value(rule, interface) == Some("lo") && !is_negated(interface))
}

fn parse(address: &str) -> Option<IpNet> {
    let network = address.parse::<IpNet>().or_else(|_| address.parse::<std::net::IpAddr>().map(IpNet::from)).ok();
    network.map(|network| network.trunc())
}

fn value<'a>(rule: &'a [String], flag: &str) -> Option<&'a str> {
    rule.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1].as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use riposte_protocol::target::{Target, TargetKind};

    use super::*;
    use crate::actions::{Host, Transcript};
    use crate::runner::Runner;

    const OURS: &str = "-A INPUT -s 203.0.113.7/32 -m comment --comment riposte -j DROP";

    fn standing(before: &str) -> Standing {
        let host = Host::new(Runner::new(), std::path::Path::new("/nonexistent"));
        let target = Target::parse(TargetKind::Ip, "203.0.113.7").unwrap();
        let transcript = Mutex::<Transcript>::default();
        let attempt = Attempt::new(&host, &transcript, &target);
        Rules::read(&format!("-P INPUT ACCEPT\n-N mine\n{before}\n{OURS}\n")).standing(&attempt, ("INPUT", "-s"))
    }

    #[test]
    fn an_earlier_rule_decides_whether_ours_drops() {
        for harmless in [
            "",
            "-A INPUT -s 198.51.100.0/24 -j ACCEPT",
            "-A INPUT -i lo -j ACCEPT",
            "-A INPUT -j LOG --log-prefix x",
            "-A INPUT -s 203.0.113.0/24 -j DROP",
            "-A INPUT -p tcp",
            "-A mine -s 203.0.113.9/32 -j REJECT\n-A mine -j RETURN\n-A INPUT -p tcp -j mine",
        ] {
            assert_eq!(standing(harmless), Standing::First, "{harmless}");
        }
        for open in [
            "-A INPUT -j ACCEPT",
            "-A INPUT -s 203.0.113.0/24 -j ACCEPT",
            "-A INPUT ! -s 198.51.100.0/24 -j ACCEPT",
            "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            "-A INPUT ! -i lo -j ACCEPT",
            "-A INPUT -j RETURN",
            "-A INPUT -g mine",
            "-A mine -p tcp -j ACCEPT\n-A INPUT -j mine",
            "-A mine -j mine\n-A INPUT -j mine",
        ] {
            assert_eq!(standing(open), Standing::Behind, "{open}");
        }
        assert_eq!(Rules::read("").0.len(), 0);
        assert_eq!(Rules::read("-P INPUT DROP").0.len(), 1);
    }
}

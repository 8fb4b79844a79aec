//! Alerts to load a server with: Wazuh's format, about a kilobyte each, with texts of our own. No
//! two alerts share rule, host, account, address, port, time and log line: repetition would flatter
//! compression and caches.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use riposte::clock::Clock;
use riposte_protocol::time::Timestamp;

/// The rule of a policy that only observes.
pub(crate) const OBSERVED: &str = "100200";
/// The rule of a policy that responds on the alert's own agent.
pub(crate) const ENFORCED: &str = "100300";
/// The rule of a policy that responds on every agent.
pub(crate) const EVERYWHERE: &str = "100400";

/// Rules: id, level, description, groups, program.
const RULES: [(&str, u8, &str, &str, &str); 20] = [
    ("5710", 5, "login attempt with an account that does not exist", r#""syslog","sshd","invalid_login""#, "sshd"),
    ("5715", 3, "a session was opened over the network", r#""syslog","sshd","authentication_success""#, "sshd"),
    ("5503", 5, "the password was wrong", r#""pam","syslog","authentication_failed""#, "su"),
    ("2902", 7, "a package was installed by hand", r#""syslog","dpkg","config_changed""#, "dpkg"),
    ("31101", 5, "the web server answered with a client error", r#""web","accesslog","attack""#, "nginx"),
    ("31106", 6, "a request that looks like an injection was answered", r#""web","accesslog","injection""#, "apache2"),
    ("31151", 10, "many client errors from one address", r#""web","accesslog","web_scan","recon""#, "nginx"),
    (
        "550",
        7,
        "the checksum of a watched file changed",
        r#""ossec","syscheck","syscheck_entry_modified""#,
        "syscheckd",
    ),
    ("554", 5, "a file was added to a watched directory", r#""ossec","syscheck","syscheck_entry_added""#, "syscheckd"),
    ("80792", 3, "a program was run by an account of the system", r#""audit","audit_command""#, "auditd"),
    (
        "60122",
        5,
        "a logon to a workstation failed",
        r#""windows","windows_security","authentication_failed""#,
        "winlogon",
    ),
    ("61603", 0, "a process was created", r#""windows","sysmon","process_creation""#, "sysmon"),
    ("86601", 3, "the network sensor saw a known signature", r#""ids","suricata""#, "suricata"),
    ("4101", 5, "the perimeter dropped a packet", r#""firewall","firewall_drop""#, "kernel"),
    ("3301", 6, "the mail server refused to relay", r#""syslog","postfix","spam""#, "postfix/smtpd"),
    ("11203", 4, "an anonymous file transfer began", r#""syslog","vsftpd","access""#, "vsftpd"),
    ("50105", 8, "the database refused a connection", r#""database","mysql","access_denied""#, "mysqld"),
    ("19005", 3, "a hardening check did not pass", r#""sca","hardening""#, "sca"),
    ("23505", 10, "a vulnerable package is installed", r#""vulnerability-detector""#, "modulesd"),
    ("87105", 12, "several engines call a file malicious", r#""virustotal","malware""#, "integrator"),
];

const USERS: [&str; 24] = [
    "amelie", "backup", "bjorn", "carla.w", "deploy", "dmitri", "elif", "farouk", "git", "hana", "ines", "jenkins",
    "kofi", "lena.k", "marek", "nadia", "oracle", "postgres", "quentin", "rosa", "svc_scan", "tomasz", "ubuntu",
    "yusuf",
];

const WORDS: [&str; 32] = [
    "refused",
    "session",
    "timeout",
    "module",
    "upstream",
    "handshake",
    "replica",
    "quota",
    "segment",
    "channel",
    "window",
    "lease",
    "digest",
    "archive",
    "cursor",
    "mount",
    "socket",
    "payload",
    "thread",
    "queue",
    "origin",
    "cache",
    "socket",
    "signal",
    "vector",
    "policy",
    "tunnel",
    "record",
    "header",
    "stanza",
    "broker",
    "journal",
];

pub(crate) struct Alerts {
    random: u64,
    made: u64,
    second: i64,
}

impl Alerts {
    /// Creates a source; two sources with different seeds never make the same alert.
    pub(crate) fn new(seed: u64) -> Self {
        let second = Clock::system().now().as_secs();
        Self { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, made: seed << 40, second }
    }

    /// xorshift64*: quick, and random enough to show no pattern.
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The upper bits are the better ones; a slight bias does no harm here.
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A random address from the routed ranges.
    fn address(&mut self) -> Ipv4Addr {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(0);
        let [_, b, c, d] = bits.to_be_bytes();
        Ipv4Addr::new(u8::try_from(11 + self.below(89)).unwrap_or(11), b, c, d)
    }

    /// Returns sixteen random bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 16] {
        u128::from_be_bytes(
            [self.next().to_be_bytes(), self.next().to_be_bytes()].concat().try_into().unwrap_or([0; 16]),
        )
        .to_be_bytes()
    }

    /// Appends one alert from any of `hosts` hosts, of any rule that no policy names.
    pub(crate) fn any(&mut self, hosts: usize, out: &mut String) {
        let (rule, host, source) = (self.pick(&RULES), self.below(hosts), self.address());
        self.write(rule, host, source, out);
    }

    /// Appends one alert of `rule_id` from that host, about that address or a random one.
    pub(crate) fn of(&mut self, rule_id: &'static str, host: usize, source: Option<Ipv4Addr>, out: &mut String) {
        let (_, level, description, groups, program) = self.pick(&RULES);
        let source = source.unwrap_or_else(|| self.address());
        self.write((rule_id, level.max(3), description, groups, program), host, source, out);
    }

    fn write(
        &mut self,
        (rule_id, level, description, groups, program): (&str, u8, &str, &str, &str),
        host: usize,
        source: Ipv4Addr,
        out: &mut String,
    ) {
        self.made += 1;
        let (made, user, port, process) =
            (self.made, self.pick(&USERS), 1024 + self.below(64_000), 300 + self.below(4_000_000));
        let when = Timestamp::from_millis(self.second * 1000 + i64::try_from(self.below(1000)).unwrap_or(0));
        let (fired, name) = (1 + self.below(400), host_name(host));
        let mut line = format!("{name} {program}[{process}]: {description}: user={user} src={source} port={port} ");
        for _ in 0..6 + self.below(14) {
            let word = self.pick(&WORDS);
            let _ = match self.below(4) {
                0 => write!(line, "{word}={:08x} ", self.next() >> 32),
                1 => write!(line, "{word}/{} ", self.below(100_000)),
                _ => write!(line, "{word} "),
            };
        }
        let (inode, hash, destination, second) = (self.next() >> 40, self.next(), self.address(), self.second);
        let _ = write!(
            out,
            r#"{{"timestamp":"{when}","rule":{{"level":{level},"description":"{program}: {description}","id":"{rule_id}","firedtimes":{fired},"mail":false,"groups":[{groups}],"pci_dss":["10.2.{}","11.4"],"gdpr":["IV_35.7.d"],"nist_800_53":["AU.14","AC.{}"]}},"agent":{{"id":"{:03}","name":"{name}","ip":"10.{}.{}.{}"}},"manager":{{"name":"collector-{}"}},"id":"{}.{made}","full_log":"{line}","predecoder":{{"program_name":"{program}","hostname":"{name}"}},"decoder":{{"name":"{program}"}},"data":{{"srcip":"{source}","srcport":"{port}","dstip":"{destination}","dstuser":"{user}","uid":"{}","process":{{"id":"{process}","hash":"{hash:016x}{:016x}","inode":"{inode}"}}}},"location":"/var/log/{program}/{}-{:04x}.log"}}"#,
            1 + self.below(7),
            1 + self.below(20),
            host + 1,
            host >> 16 & 255,
            host >> 8 & 255,
            host & 255,
            1 + self.below(4),
            second,
            1000 + self.below(9000),
            self.next(),
            self.pick(&WORDS),
            self.below(65_536),
        );
    }
}

/// Returns the name of a host in its alerts; its agent enrols under the same name.
pub(crate) fn host_name(host: usize) -> String {
    format!("host-{host:05}")
}

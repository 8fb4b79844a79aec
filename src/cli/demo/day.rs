//! The day before the demo: the same manager with a clock that is moved, policies that only observe,
//! and alerts as they come in over a day. The console then shows what the policies would have done,
//! and the demo goes on by setting them to enforce.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::samples::{ALERTS, POLICIES, SampleAlert, SendingManager, SentAlert, TOKEN_LASTS, ready};
use crate::cli::client::Remote;
use crate::cli::{keyfiles, serve};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::principal::Role;
use crate::engine::secrets::new_secret;
use crate::shutdown::Tasks;
use crate::views::agents::{CreateToken, CreatedToken};
use crate::views::alerts::Intake;
use crate::views::policies::PolicyView;
use crate::views::protected::{CreateProtected, CreatedProtected};
use crate::views::users::{CreateUser, CreatedUser};

/// The person of the demo.
pub(super) const PERSON: &str = "demo";
/// Characters of the person's password: enough for a manager that ends with the demo.
const PASSWORD_LENGTH: usize = 16;
/// How long the day is.
const DAY: Duration = Duration::from_hours(24);
/// Time between two alerts of the day; each hour has another number of them.
const STEP: Duration = Duration::from_mins(4);
/// Bits of the addresses of the day that differ: as many attackers.
const ATTACKERS: u64 = 61;

/// What the day leaves: how a person logs in, and the token of the agents.
pub(super) struct Lived {
    pub(super) password: String,
    pub(super) token: String,
}

/// Lives through the day before `until`, on the ledger in `data_dir`.
///
/// # Errors
/// If the manager does not start, or refuses something.
pub(super) async fn before(until: Timestamp, data_dir: &Path) -> anyhow::Result<Lived> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let manager = format!("http://{}", listener.local_addr()?);
    let (tasks, clock) = (Tasks::new(), Clock::manual(until.minus(DAY)));
    let mut config = Config::default();
    config.server.data_dir = data_dir.to_owned();
    let key_file = data_dir.join(keyfiles::ADMIN_KEY);
    let serving = serve::serve(config, listener, clock.clone(), tasks.clone());
    tokio::pin!(serving);
    let lived = async {
        let remote = ready(&manager, key_file).await?;
        live(&remote, &clock, until).await
    };
    let lived = tokio::select! {
        served = &mut serving => anyhow::bail!("the manager ended early: {served:?}"),
        lived = lived => lived,
    };
    tasks.stop();
    serving.await?;
    lived
}

async fn live(remote: &Remote, clock: &Clock, until: Timestamp) -> anyhow::Result<Lived> {
    let secret = new_secret().map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    let password: String = secret.chars().take(PASSWORD_LENGTH).collect();
    let person = CreateUser { name: PERSON.into(), role: Role::Admin, password: Some(password.clone()), scope: None };
    let _: CreatedUser = remote.post("/v1/users", &person).await?;
    let scanners = CreateProtected {
        kind: "ip".into(),
        value: "192.0.2.0/28".into(),
        policies: Vec::new(),
        reason: "our own vulnerability scanners".into(),
        expires_in: None,
    };
    let _: CreatedProtected = remote.post("/v1/protected", &scanners).await?;
    for mut document in serde_json::from_str::<Vec<Map<String, Value>>>(POLICIES)? {
        document.insert("mode".to_owned(), json!("observe"));
        let _: PolicyView = remote.post("/v1/policies", &document).await?;
    }
    let samples: Vec<SampleAlert> = serde_json::from_str(ALERTS)?;
    let mut number = 0_u64;
    while clock.now().plus(STEP) < until {
        // Fewer at night, more in the afternoon, and a wave of guesses before noon.
        let hour = clock.now().as_secs().div_euclid(3600).rem_euclid(24);
        let count = match hour {
            10 => 5,
            13..=18 => 2,
            0..=5 => u64::from(number.is_multiple_of(4)),
            _ => 1,
        };
        let alerts: Vec<SentAlert> =
            (0..count).map(|index| sample(&samples, number + index, clock.now())).collect::<Result<_, _>>()?;
        if !alerts.is_empty() {
            let _: Intake = remote.post("/v1/alerts", &alerts).await?;
        }
        number += count.max(1);
        clock.advance(STEP);
    }
    // Made at the end of the day, because it is good for an hour.
    let labels = [("env", "demo"), ("wazuh_id", "001")].map(|(key, value)| (key.to_owned(), value.into()));
    let asked = CreateToken { labels: labels.into_iter().collect(), uses: 1, expires_in: TOKEN_LASTS.parse()? };
    let created: CreatedToken = remote.post("/v1/enrollment-tokens", &asked).await?;
    Ok(Lived { password, token: created.token.context("the manager returned no token")? })
}

/// Leaves something in force and something that waits for a person, for those who look at the console.
///
/// # Errors
/// If the manager refuses.
pub(super) async fn leave(remote: &Remote, agent: &str) -> anyhow::Result<()> {
    let asks = json!({"name": "ask-before-an-account", "mode": "approve", "match": [{"rule_ids": ["92657"]}],
        "respond": {"action": "disable-account", "target": "destination.user", "for": "2h"}, "approval": {"within": "2h"},
        "note": "A person decides before an account is locked."});
    let _: PolicyView = remote.post("/v1/policies", &asks).await?;
    let samples: Vec<SampleAlert> = serde_json::from_str(ALERTS)?;
    let logon = samples.iter().position(|sample| sample.rule.id == "92657");
    let logon = u64::try_from(logon.context("the demo has no alert of a privileged logon")?)?;
    // A number that is none of the day's, of the same sample.
    let number = u64::try_from(samples.len())? * 1_000_000 + logon;
    let _: Intake = remote.post("/v1/alerts", &sample(&samples, number, Clock::system().now())?).await?;
    for address in ["198.51.100.23", "203.0.113.45", "2001:db8::bad"] {
        let by_hand = json!({"action": "firewall-drop", "target": address, "agents": [agent], "for": "2h",
            "reason": "seen again after the block had ended"});
        let _: Value = remote.post("/v1/responses", &by_hand).await?;
    }
    Ok(())
}

/// One of the samples, from another attacker each time.
fn sample(samples: &[SampleAlert], number: u64, at: Timestamp) -> anyhow::Result<SentAlert> {
    let length = u64::try_from(samples.len())?;
    let mut sample = samples[usize::try_from(number % length)?].clone();
    if let Some(address) = &mut sample.data.srcip {
        // One in eight is the site's own scanner, which is protected.
        let host = number.wrapping_mul(37) % ATTACKERS;
        let is_scanner = number.is_multiple_of(8);
        *address = if is_scanner { format!("192.0.2.{}", host % 14 + 1) } else { format!("203.0.113.{}", host + 1) };
    }
    let id = format!("{}.{number}", at.as_secs());
    Ok(SentAlert { timestamp: at, id, manager: SendingManager { name: "demo" }, sample })
}

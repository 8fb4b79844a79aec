//! `riposte-agent rotate-key`: replaces the agent's own key, while the agent runs or not. A running agent
//! takes the new key over: the manager ends its connection, and it reads the key anew.

use std::io::Write as _;

use anyhow::{Context as _, bail};

use super::arguments::RotateKeyArguments;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::own_key;
use crate::platform::guarded;

pub(super) async fn rotate_key(arguments: RotateKeyArguments) -> anyhow::Result<()> {
    let state_dir = &arguments.state.path;
    let mut identity = Identity::load(state_dir)?;
    identity.enrolment.check_transport(arguments.plain.insecure_http)?;
    let key = state_dir.join("key");
    let other = guarded::other_owner(&key).with_context(|| format!("cannot look at {}", key.display()))?;
    if let Some((owner, account)) = other {
        // The agent could not read a key of another account.
        bail!("{} belongs to the account {owner}, and this is {account}: run this command as its owner", key.display());
    }
    let now = Clock::system().knowing(state_dir).now();
    let since = own_key::rotate(&mut identity, now).await.with_context(|| {
        let next = state_dir.join("key.next");
        if next.exists() {
            format!(
                "the key is not replaced yet; {} is kept, and the agent tries again at its next connection",
                next.display()
            )
        } else {
            "the key is not replaced".to_owned()
        }
    })?;
    writeln!(std::io::stdout(), "The key {} counts since {since}.", identity.key().verifying_key().kid())?;
    Ok(())
}

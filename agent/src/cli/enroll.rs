//! `riposte-agent enroll`: reads the token and the certificate authority, and enrols this host.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::arguments::{self, EnrollArguments};
use crate::enroll::EnrollOptions;
use crate::platform::{self, guarded};
use crate::tls::Trust;
use crate::{actions, agent, wazuh_identity};

/// Limit of the token's length, in bytes: longer than any token, so that an endless input cannot
/// fill the memory.
const MAX_TOKEN_BYTES: u64 = 4096;
/// Limit of a certificate's file, in bytes: larger than the authorities of a whole system.
const MAX_CA_BYTES: u64 = 1024 * 1024;

pub(super) async fn enroll(arguments: EnrollArguments) -> anyhow::Result<()> {
    let token = match (arguments.token, arguments.token_file) {
        (Some(token), _) => token,
        (None, Some(file)) => read_token(&file)?,
        (None, None) => bail!("the enrolment token is missing: set RIPOSTE_TOKEN, or use --token-file"),
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        bail!("the token is empty");
    }
    let name = arguments.name.unwrap_or_else(platform::hostname);
    let policy = arguments.policy.load(&arguments.state)?;
    let host = arguments::host(&arguments.state, &arguments.wazuh, &policy);
    let capabilities = agent::capabilities(actions::ALL, &host, &policy);
    let state_dir = &arguments.state.path;
    let read = |file: Option<&Path>, what: &str| -> anyhow::Result<Option<Vec<u8>>> {
        let read = |file: &Path| {
            guarded::read_named(file, MAX_CA_BYTES)
                .with_context(|| format!("cannot read {what} from {}", file.display()))
        };
        file.map(read).transpose()
    };
    let trust = Trust {
        ca: read(arguments.ca.as_deref(), "the certificate authority")?,
        client: read(arguments.client_cert.as_deref(), "the agent's certificate")?,
    };
    let wazuh = wazuh_identity::of_host(&host.wazuh_home);
    let options = EnrollOptions { replace: arguments.replace, insecure_http: arguments.plain.insecure_http, wazuh };
    let enrolment =
        crate::enroll::enroll(&arguments.manager, &token, &name, state_dir, capabilities, trust, options).await?;
    let mut out = std::io::stdout();
    writeln!(out, "Enrolled {} as {} at {}.", enrolment.name, enrolment.agent_id, enrolment.manager)?;
    writeln!(out, "Next: riposte-agent run --state-dir {}", state_dir.display())?;
    Ok(())
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut token = String::new();
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut token).context("cannot read the token")?;
        return Ok(token);
    }
    let token = guarded::read_named(file, MAX_TOKEN_BYTES)
        .with_context(|| format!("cannot read the token from {}", file.display()))?;
    String::from_utf8(token).with_context(|| format!("{} holds no token", file.display()))
}

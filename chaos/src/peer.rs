//! The other managers on the same PostgreSQL. Each reaches it through a proxy of its own, so that it
//! can be cut off.

use std::path::Path;

use anyhow::Context as _;

use crate::postgres::Postgres;
use crate::programs::Manager;
use crate::proxy::Proxy;

/// Another manager.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) manager: Manager,
    /// Its way to PostgreSQL.
    pub(crate) link: Proxy,
}

impl Peer {
    /// Starts number `number` beside `first`, with the same signing key.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn start(
        home: &Path,
        number: usize,
        first: &Manager,
        postgres: &Postgres,
        http: &reqwest::Client,
    ) -> anyhow::Result<Self> {
        let link = Proxy::start(vec![postgres.address], number as u64).await?;
        let data = home.join(format!("data-{number}"));
        std::fs::create_dir_all(&data)?;
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        std::fs::copy(first.data.join("signing.key"), data.join("signing.key")).context("signing.key")?;
        let url = Some(Postgres::url_at(link.address));
        let mut manager = Manager::new(data, home.join(format!("manager-{number}.log")), url, None)?;
        manager.start()?;
        manager.is_ready(http).await?;
        Ok(Self { manager, link })
    }
}

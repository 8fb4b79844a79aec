//! What the tests stand on: the real manager on a port of its own with a clock that the test moves ([`app`]), clients
//! ([`client`]), an agent that the test plays ([`agent`]), both databases ([`database`]), and alerts ([`alert`]).

pub(crate) mod agent;
pub(crate) mod alert;
pub(crate) mod app;
pub(crate) mod client;
pub(crate) mod database;

use std::future::Future;
use std::time::Duration;

pub(crate) use agent::FakeAgent;
pub(crate) use app::TestApp;
pub(crate) use client::{Answer, Client};
pub(crate) use database::Database;

/// Nothing here takes longer, unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that is about to happen.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until there is something to see.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    seen.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain until {what}"))
}

/// Makes of one test two: on SQLite and on PostgreSQL.
macro_rules! on_both_databases {
    ($($(#[$doc:meta])* async fn $name:ident($database:ident: Database) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                async fn check($database: Database) $body

                #[tokio::test]
                async fn on_sqlite() {
                    check(Database::sqlite()).await;
                }

                #[tokio::test]
                async fn on_postgresql() {
                    check(Database::postgresql().await).await;
                }
            }
        )*
    };
}
